"""What a robot is and may do: embodiment file, limits, command gate."""
