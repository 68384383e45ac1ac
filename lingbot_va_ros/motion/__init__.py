"""Joint motion as plain data: plans, splices, trajectories, time. No ROS, no torch."""
