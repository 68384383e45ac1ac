"""
Measure what joint_trajectory_controllers make of the mux's commands, in virtual time.

The mux and the conversion to messages are those of command_mux; the controllers are simulated
(docs/reference/simulated_controller.md). One joint is to move at constant speed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.motion.time import NANOSECONDS, to_nanoseconds, to_seconds
from lingbot_va_ros.motion.trajectory import TrajectoryMessage, TrajectoryPoint
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.nodes.command_mux.gripper_action import GripperActions
from lingbot_va_ros.nodes.command_mux.outputs import Outputs
from lingbot_va_ros.nodes.sim_robot.messages import trajectory_of
from lingbot_va_ros.nodes.stamps import nanoseconds_of
from lingbot_va_ros.sim.controllers.command_trace import CommandTrace, trace_commands
from lingbot_va_ros.sim.controllers.control_loop import ControlLoop
from lingbot_va_ros.sim.controllers.delivery import Delivery
from lingbot_va_ros.sim.controllers.first_order_joints import FirstOrderJoints
from lingbot_va_ros.sim.controllers.messages import Trajectory
from lingbot_va_ros.sim.controllers.settings import controller_settings, CONTROLLERS, Replacement
from lingbot_va_ros.sim.controllers.trajectory_controller import TrajectoryController
from lingbot_va_ros.specs.embodiment import Embodiment, load_embodiment

EMBODIMENT = 'sim_left'
SPEED = 0.5  # rad/s of the first joint in the plan
RATES = (100, 250, 500, 1000)  # Hz of the controller
# Delay of messages and how much longer they may take, s. What DDS and Python take at least is a
# jitter below a millisecond.
DELAYS = ((0.0, 0.0008), (0.005, 0.0008), (0.015, 0.005))
MUX_RATES = (50, 100)  # Hz
# Share of a controller's period from a tick of the mux to an update.
PHASES = (0.15, 0.65)
TIME_CONSTANT = 0.03  # s, of the joints
BEGIN_NS = 100 * NANOSECONDS
SETTLING, MEASURED = 0.8, 0.6  # s
POLICY_PERIOD_NS = 20_000_000
AHEAD, BRAKING = 0.5, 0.2  # s of the plan at constant speed, and until it is at rest


@dataclass(frozen=True)
class Condition:
    """A controller, its rate in Hz, delay and jitter of messages in s, rate of the mux in Hz."""

    controller: str
    rate: int
    delay: float
    jitter: float
    mux_rate: int


def all_conditions(
    controllers: Sequence[str] = CONTROLLERS, rates: Sequence[int] = RATES,
    delays: Sequence[tuple[float, float]] = DELAYS, mux_rates: Sequence[int] = MUX_RATES,
) -> list[Condition]:
    """Return every combination of controllers, rates, delays and rates of the mux."""
    return [
        Condition(controller, rate, delay, jitter, mux_rate)
        for controller in controllers for mux_rate in mux_rates
        for rate in rates for delay, jitter in delays]


def measure_controllers(
    conditions: Sequence[Condition], say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """
    Return a row for each condition.

    Speeds are rad/s and accelerations rad/s² of the controller's commands to the first joint, the
    least and the greatest over PHASES. `rejected` counts messages that the controller rejected,
    and `mode` is the mux's at the end: below POLICY it has stopped the arm.
    """
    embodiment = load_embodiment(EMBODIMENT)
    rows, controller = [], ''
    for condition in conditions:
        if condition.controller != controller:
            controller = condition.controller
            say(f'controller {controller}')
        rows.append(_measure(embodiment, condition))
    return rows


def _measure(embodiment: Embodiment, condition: Condition) -> dict[str, Any]:
    speeds, accelerations = [], []
    rejected, mode = 0, MuxMode.POLICY
    for seed, phase in enumerate(PHASES):
        # Rolling as command_mux asks for it: allow_trajectory_replacement is false.
        controller = TrajectoryController(embodiment.joints, controller_settings(
            condition.controller, rate=condition.rate, replacement=Replacement.IMMEDIATE))
        loop = ControlLoop(
            controller, Delivery(condition.delay, condition.jitter, seed), lambda rejection: None)
        mux = MuxInVirtualTime(embodiment, round(NANOSECONDS / condition.mux_rate))
        trace = _drive(mux, loop, BEGIN_NS + round(phase * controller.settings.period_ns))
        speeds.append(trace.speeds()[:, 0])
        accelerations.append(trace.accelerations()[:, 0])
        rejected += controller.rejected
        mode = min(mode, mux.mode)
    return {
        'controller': condition.controller, 'rate': condition.rate, 'delay': condition.delay,
        'jitter': condition.jitter, 'mux_rate': condition.mux_rate,
        'speed_min': float(np.concatenate(speeds).min()),
        'speed_max': float(np.concatenate(speeds).max()),
        'acceleration_max': float(np.abs(np.concatenate(accelerations)).max()),
        'rejected': rejected, 'mode': mode.name}


def _drive(mux: 'MuxInVirtualTime', loop: ControlLoop, begin_ns: int) -> CommandTrace:
    joints = FirstOrderJoints(mux.embodiment.home, TIME_CONSTANT)
    loop.begin(begin_ns, joints.positions, joints.velocities)

    def tick(now_ns: int) -> list[Trajectory]:
        return mux.tick(now_ns, joints.positions, joints.velocities)

    return trace_commands(
        loop, joints, tick, BEGIN_NS, mux.period_ns, begin_ns, SETTLING + MEASURED,
    ).after(SETTLING)


class MuxInVirtualTime:
    """
    The mux of command_mux with a policy that moves the first joint at constant speed.

    :param period_ns: of its ticks.
    """

    def __init__(self, embodiment: Embodiment, period_ns: int):
        self.embodiment = embodiment
        self.period_ns = period_ns
        self._mux = Mux(embodiment, MuxSettings(), period_ns)
        self._sent = SentMessages()
        node = cast(Node, self._sent)
        self._outputs = Outputs(
            node, embodiment, GripperActions(node, embodiment, threshold=0.02, goal_period=0.2))
        self._moving_since_ns: int | None = None
        self._next_plan_ns = 0

    @property
    def mode(self) -> MuxMode:
        """Return who moves the arm."""
        return self._mux.machine.mode

    def tick(
        self, now_ns: int, positions: np.ndarray, velocities: np.ndarray) -> list[Trajectory]:
        """
        Take measured joints [J] and a plan, and return the messages of one tick.

        The policy is given the arm as soon as the mux allows it.
        """
        now_s, mux = to_seconds(now_ns), self._mux
        mux.take_joint_state(
            self.embodiment.joints, positions.tolist(), velocities.tolist(), now_ns, now_ns, now_s)
        if now_ns >= self._next_plan_ns:
            self._next_plan_ns = now_ns + POLICY_PERIOD_NS
            mux.take_policy_plan(self._plan(now_ns), now_ns, now_s)
        if self._moving_since_ns is None and mux.set_mode(MuxMode.POLICY, now_ns, now_s)[0]:
            self._moving_since_ns = now_ns
        self._sent.messages.clear()
        self._outputs.send(mux.tick(now_ns, now_s))
        return [
            trajectory_of(message, nanoseconds_of(message.header.stamp))
            for message in self._sent.messages]

    def _plan(self, now_ns: int) -> TrajectoryMessage:
        moving = self._moving_since_ns is not None
        speed = SPEED if moving else 0.0
        way = speed * to_seconds(now_ns - (self._moving_since_ns or now_ns))
        home = self.embodiment.home

        def point(after: float, further: float, velocity: float) -> TrajectoryPoint:
            first = np.eye(len(home))[0]
            return TrajectoryPoint(
                to_nanoseconds(after), tuple((home + first * (way + further)).tolist()),
                tuple((first * velocity).tolist()))

        # The first point is a plan's, which lies after its stamp.
        soon = 0.01
        return TrajectoryMessage(now_ns, self.embodiment.joints, (
            point(soon, speed * soon, speed), point(AHEAD, speed * AHEAD, speed),
            point(AHEAD + BRAKING, speed * (AHEAD + BRAKING / 2), 0.0)))


class SentMessages:
    """Takes the place of a node in `Outputs`: keeps trajectories for controllers."""

    def __init__(self) -> None:
        self.messages: list[JointTrajectory] = []

    def create_publisher(self, kind: Any, topic: str, qos: Any) -> Any:
        """Return a publisher, of which only one to controllers keeps its messages."""
        return _Publisher([] if topic == 'executed' else self.messages)


class _Publisher:
    def __init__(self, messages: list[JointTrajectory]):
        self._messages = messages

    def publish(self, message: JointTrajectory) -> None:
        self._messages.append(message)
