"""`lingbot_va demo`: episodes on the simulated robot over ROS 2, a report and a video."""
