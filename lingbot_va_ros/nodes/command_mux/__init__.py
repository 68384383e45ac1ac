"""The node `command_mux` and its gripper actions."""
