"""`lingbot_va check`: checkpoint, policy file, embodiment and the running graph."""
