"""`lingbot_va eval`: success, time and smoothness on the simulated tasks."""
