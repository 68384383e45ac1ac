"""
Measure what joint_trajectory_controllers make of the mux's commands, in virtual time.

The mux and the conversion to messages are those of command_mux; the controllers are simulated
(docs/reference/simulated_controller.md). One joint is to move at constant speed, another along a
sine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS, to_nanoseconds, to_seconds
from lingbot_va_ros.motion.trajectory import TrajectoryMessage, TrajectoryPoint
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.report import Report
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.nodes.command_mux.outputs import command_message
from lingbot_va_ros.nodes.sim_robot.messages import trajectory_of
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
# The sine of the fifth joint: rad, and periods a second.
AMPLITUDE, FREQUENCY = 0.2, 0.8
EVEN, SINE = 0, 4  # the columns of these joints
RATES = (100, 250, 500, 1000)  # Hz of the controller
# Delay of messages and how much longer they may take, s. What DDS and Python take at least is a
# jitter below a millisecond.
DELAYS = ((0.0, 0.0008), (0.005, 0.0008), (0.015, 0.005))
MUX_RATES = (50, 100)  # Hz
# Share of a controller's period from a tick of the mux to an update.
PHASES = (0.15, 0.65)
TIME_CONSTANT = 0.03  # s, of the joints
BEGIN_NS = 100 * NANOSECONDS
# Until the motion is even, one period of the sine, and from the emergency stop to rest.
SETTLING, MEASURED, STOPPING = 0.8, 1.25, 0.4  # s
POLICY_PERIOD_NS = 20_000_000
AHEAD, BRAKING = 0.5, 0.2  # s of the plan in motion, and until it is at rest
POINT_SECONDS = 0.04  # from point to point of a plan


@dataclass(frozen=True)
class Condition:
    """
    A controller, and what it is sent.

    :param rate: of the controller, Hz.
    :param delay, jitter: of the messages, s.
    :param mux_rate: of the mux, Hz.
    :param from_desired: the controller's `interpolate_from_desired_state` (Humble:
        `open_loop_control`).
    """

    controller: str
    rate: int
    delay: float
    jitter: float
    mux_rate: int
    from_desired: bool = True


def all_conditions(
    controllers: Sequence[str] = CONTROLLERS, rates: Sequence[int] = RATES,
    delays: Sequence[tuple[float, float]] = DELAYS, mux_rates: Sequence[int] = MUX_RATES,
    from_desired: Sequence[bool] = (True, False),
) -> list[Condition]:
    """Return every combination of controllers, their settings, delays and rates of the mux."""
    return [
        Condition(controller, rate, delay, jitter, mux_rate, is_from_desired)
        for controller in controllers for is_from_desired in from_desired
        for mux_rate in mux_rates for rate in rates for delay, jitter in delays]


def measure_controllers(
    conditions: Sequence[Condition], controller_delay: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """
    Return a row for each condition.

    Speeds are rad/s and accelerations rad/s² of the controller's commands, the least and the
    greatest over PHASES. `sine_error` is the largest distance from the sine, as a share of its
    amplitude. `limit_share` is the largest acceleration of any joint, from its first motion on, as
    a share of the joint's limit, and `stop_limit_share` the same in an emergency stop at the end.
    `rejected` counts messages that the controller rejected, and `mode` is the mux's before that
    stop: below POLICY it has stopped the arm by itself.

    :param controller_delay: the mux's parameter, s; None: its default.
    """
    embodiment = load_embodiment(EMBODIMENT)
    settings = MuxSettings()
    if controller_delay is not None:
        settings = replace(settings, controller_delay=controller_delay)
    rows, controller = [], ''
    for condition in conditions:
        if condition.controller != controller:
            controller = condition.controller
            say(f'controller {controller}')
        rows.append(_measure(embodiment, settings, condition))
    return rows


def _measure(
    embodiment: Embodiment, settings: MuxSettings, condition: Condition) -> dict[str, Any]:
    speeds, accelerations, errors, shares, stop_shares = [], [], [], [], []
    moving = SETTLING + MEASURED
    rejected, mode = 0, MuxMode.POLICY
    for seed, phase in enumerate(PHASES):
        # Rolling as command_mux asks for it: allow_trajectory_replacement is false.
        controller = TrajectoryController(embodiment.joints, controller_settings(
            condition.controller, rate=condition.rate, replacement=Replacement.IMMEDIATE,
            joins_last_command=condition.from_desired))
        loop = ControlLoop(
            controller, Delivery(condition.delay, condition.jitter, seed), lambda rejection: None)
        mux = MuxInVirtualTime(
            embodiment, round(NANOSECONDS / condition.mux_rate), settings,
            BEGIN_NS + to_nanoseconds(moving))
        begin_ns = BEGIN_NS + round(phase * controller.settings.period_ns)
        trace = drive(mux, loop, begin_ns, moving + STOPPING)
        settled = trace.until(moving).after(SETTLING)
        speeds.append(settled.speeds()[:, EVEN])
        accelerations.append(settled.accelerations())
        errors.append(np.abs(_sine_errors(mux, settled, controller.settings.looks_ahead)))
        share = np.abs(trace.accelerations()) / embodiment.limits.acceleration
        stop_index = round(moving / trace.period) - 2
        shares.append(share[:stop_index].max())
        stop_shares.append(share[stop_index:].max())
        rejected += controller.rejected
        mode = min(mode, mux.mode_before_stop)
    accelerations = np.abs(np.concatenate(accelerations))
    return {
        'controller': condition.controller, 'rate': condition.rate, 'delay': condition.delay,
        'jitter': condition.jitter, 'mux_rate': condition.mux_rate,
        'from_desired': condition.from_desired,
        'speed_min': float(np.concatenate(speeds).min()),
        'speed_max': float(np.concatenate(speeds).max()),
        'acceleration_max': float(accelerations[:, EVEN].max()),
        'sine_error': float(np.concatenate(errors).max() / AMPLITUDE),
        'sine_acceleration_max': float(accelerations[:, SINE].max()),
        'limit_share': float(max(shares)), 'stop_limit_share': float(max(stop_shares)),
        'rejected': rejected, 'mode': mode.name}


def _sine_errors(
    mux: 'MuxInVirtualTime', trace: CommandTrace, looks_ahead: bool) -> np.ndarray:
    """Return how far the commands [n] are from the sine at the time that they are for, rad."""
    period_ns = round(trace.period * NANOSECONDS)
    first_ns = trace.begin_ns + looks_ahead * period_ns
    wanted = [
        mux.planned(first_ns + index * period_ns)[0][SINE]
        for index in range(len(trace.commands))]
    return np.asarray(trace.commands[:, SINE] - wanted)


def drive(
    mux: 'MuxInVirtualTime', loop: ControlLoop, begin_ns: int, seconds: float,
    time_constant: float = TIME_CONSTANT,
) -> CommandTrace:
    """
    Let a mux drive a controller, and return the commands of the controller.

    :param begin_ns: time of the controller's first update.
    :param time_constant: of the joints, s.
    """
    joints = FirstOrderJoints(mux.embodiment.home, time_constant)
    loop.begin(begin_ns, joints.positions, joints.velocities)

    def tick(now_ns: int) -> list[Trajectory]:
        return mux.tick(now_ns, joints.positions, joints.velocities)

    return trace_commands(
        loop, joints, tick, BEGIN_NS, mux.period_ns, begin_ns, seconds)


class MuxInVirtualTime:
    """
    The mux of command_mux with a policy that moves the joints as `planned` says.

    :param period_ns: of its ticks.
    :param stop_ns: when the emergency stop is pressed; None: never.
    """

    def __init__(
        self, embodiment: Embodiment, period_ns: int, settings: MuxSettings,
        stop_ns: int | None = None,
    ):
        self.embodiment = embodiment
        self.settings = settings
        self.period_ns = period_ns
        self.mode_before_stop = MuxMode.HOLD
        self._stop_ns = stop_ns
        self.mux = Mux(embodiment, settings, period_ns)
        self._controllers = [
            (each.driver_names, [embodiment.joints.index(name) for name in each.joints])
            for each in embodiment.controllers]
        self._moving_since_ns: int | None = None
        self._next_plan_ns = 0

    def report(self, now_ns: int) -> Report:
        """Return the figures of the mux."""
        return self.mux.report(to_seconds(now_ns))

    def planned(self, time_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions and velocities [J] that the policy wants at a time."""
        positions, velocities = self.embodiment.home.copy(), np.zeros(len(self.embodiment.home))
        if self._moving_since_ns is not None:
            after = to_seconds(time_ns - self._moving_since_ns)
            angle = 2 * np.pi * FREQUENCY * after
            positions[EVEN] += SPEED * after
            velocities[EVEN] = SPEED
            positions[SINE] += AMPLITUDE * (1 - np.cos(angle))
            velocities[SINE] = 2 * np.pi * FREQUENCY * AMPLITUDE * np.sin(angle)
        return positions, velocities

    def tick(
        self, now_ns: int, positions: np.ndarray, velocities: np.ndarray) -> list[Trajectory]:
        """
        Take measured joints [J] and a plan, and return the messages of one tick.

        The policy is given the arm as soon as the mux allows it.
        """
        now_s, mux = to_seconds(now_ns), self.mux
        mux.take_joint_state(
            self.embodiment.joints, positions.tolist(), velocities.tolist(), now_ns, now_ns, now_s)
        if now_ns >= self._next_plan_ns:
            self._next_plan_ns = now_ns + POLICY_PERIOD_NS
            mux.take_policy_plan(self._plan(now_ns), now_ns, now_s)
        if self._moving_since_ns is None and mux.set_mode(MuxMode.POLICY, now_ns, now_s)[0]:
            self._moving_since_ns = now_ns
        if self._stop_ns is not None and now_ns >= self._stop_ns:
            mux.take_emergency_stop(True, now_s)
        else:
            self.mode_before_stop = mux.machine.mode
        command = mux.tick(now_ns, now_s).command
        if command is None:
            return []
        return [trajectory_of(command_message(command, *controller), int(command.times_ns[0]))
                for controller in self._controllers]

    def _plan(self, now_ns: int) -> TrajectoryMessage:
        # The first point is a plan's, which lies after its stamp.
        times = [to_nanoseconds(after) for after in np.arange(
            POINT_SECONDS / 2, AHEAD, POINT_SECONDS).tolist()]
        states = [self.planned(now_ns + after_ns) for after_ns in times]
        positions, velocities = states[-1]
        times.append(times[-1] + to_nanoseconds(BRAKING))
        states.append((positions + velocities * BRAKING / 2, np.zeros_like(velocities)))
        return TrajectoryMessage(now_ns, self.embodiment.joints, tuple(
            TrajectoryPoint(after_ns, tuple(q.tolist()), tuple(v.tolist()))
            for after_ns, (q, v) in zip(times, states, strict=True)))
