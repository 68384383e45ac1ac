"""Closed-loop episodes in simulation, in virtual time, and the figures read from them. No ROS."""
