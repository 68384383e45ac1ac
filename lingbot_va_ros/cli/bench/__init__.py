"""`lingbot_va bench`: the engine, a peer beside it, and the ROS path, measured."""
