"""The inference thread, the schedule, and what it sees of the robot. No ROS."""
