"""The node `sim_robot`: a simulated robot with the topics of a real arm with ros2_control."""
