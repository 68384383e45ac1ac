"""
The files that a user writes or downloads, read and checked.

Policy, embodiment, URDF, checkpoint configuration. No ROS, no torch.
"""
