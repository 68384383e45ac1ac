"""LeRobot's checkpoint folders: weights and LoRA adapters."""
