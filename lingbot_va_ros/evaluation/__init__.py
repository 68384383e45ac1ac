"""Closed-loop episodes in simulation, in virtual time, and their statistics. No ROS."""
