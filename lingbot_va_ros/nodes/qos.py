"""The quality-of-service profiles of the package's topics, by what the topic is for."""

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(reliability: ReliabilityPolicy, durability: DurabilityPolicy, depth: int):
    return QoSProfile(
        reliability=reliability, durability=durability, history=HistoryPolicy.KEEP_LAST,
        depth=depth)


# Sensor data: the newest message only; an old image is worth nothing.
SENSOR = _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 1)
# Commands: reliable, and only the newest counts.
COMMAND = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 1)
# Joint states of several publishers may come in one burst; none of them may push another out.
JOINT_STATES = _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 10)
# Executed commands become memory: none may be lost.
EXECUTED = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 1000)
# State that a late subscriber must see.
LATCHED = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, 1)
# Events: reliable with a short history.
EVENTS = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 10)
