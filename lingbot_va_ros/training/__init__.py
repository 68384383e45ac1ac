"""Train and try a policy: recorded episodes, losses, closed-loop episodes; no ROS."""
