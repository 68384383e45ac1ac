"""Shared by the launch files: their arguments, and the actions that start nodes."""
