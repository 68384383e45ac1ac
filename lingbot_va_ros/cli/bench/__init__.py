"""`lingbot_va bench`: measures the engine, the public implementation and the ROS path."""
