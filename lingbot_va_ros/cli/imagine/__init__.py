"""`lingbot_va imagine`: imagined video and actions from still images."""
