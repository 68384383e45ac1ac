"""Maps actions to joints and back: action maps, kinematics, joint states. No ROS, no torch."""
