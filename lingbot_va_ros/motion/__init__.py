"""Joint motion as data: plans, trajectories, time. No ROS, no torch."""
