"""The command line `lingbot_va`."""
