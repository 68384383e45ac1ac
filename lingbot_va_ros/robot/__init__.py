"""The robot's side of an action: action maps, kinematics, joint states. No ROS, no torch."""
