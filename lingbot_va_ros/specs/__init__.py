"""
Reads and checks the files that a user writes or downloads.

Policy file, embodiment file, robot description, checkpoint configuration. No ROS, no torch.
"""
