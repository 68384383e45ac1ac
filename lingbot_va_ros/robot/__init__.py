"""Actions to joints and back, kinematics, measured joints. No ROS, no torch."""
