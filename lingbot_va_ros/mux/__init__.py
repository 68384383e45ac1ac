"""The command mux without ROS: modes, command sources, validation, limits, ramps, commands."""
