"""The simulated joint_trajectory_controller, and the loop that updates it in virtual time."""
