"""Train a small checkpoint: recorded episodes, losses, trainer, export. No ROS."""
