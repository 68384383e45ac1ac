"""MuJoCo scenes and the simulated controller."""
