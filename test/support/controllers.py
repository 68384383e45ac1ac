"""A simulated controller with one loop, and streams of messages for it, in virtual time."""

from lingbot_va_ros.sim.controllers.command_trace import CommandTrace, trace_commands
from lingbot_va_ros.sim.controllers.control_loop import ControlLoop
from lingbot_va_ros.sim.controllers.delivery import Delivery
from lingbot_va_ros.sim.controllers.first_order_joints import FirstOrderJoints
from lingbot_va_ros.sim.controllers.messages import Trajectory, TrajectoryPoint
from lingbot_va_ros.sim.controllers.settings import controller_settings
from lingbot_va_ros.sim.controllers.trajectory_controller import TrajectoryController

SECOND = 1_000_000_000
BEGIN = 10 * SECOND
SPEED = 0.5  # rad/s of the plan
BRAKING = 10.0  # rad/s² of the tail
SETTLING = 0.4  # s


def plan_at(time_ns: int) -> float:
    """Return the position of the plan, rad."""
    return SPEED * (time_ns - BEGIN) / SECOND


def message(now_ns: int, period_ns: int, knots: int, with_stamp: bool = True) -> Trajectory:
    """
    Return what a mux sends at a tick: points of the plan a period apart, and a braking tail.

    :param knots: points after the first.
    :param with_stamp: whether there is a point at the stamp itself.
    """
    after = [index * period_ns for index in range(0 if with_stamp else 1, knots + 1)]
    points = [TrajectoryPoint(ns, [plan_at(now_ns + ns)], [SPEED]) for ns in after]
    stop_ns = round(SPEED / BRAKING * SECOND)
    way = SPEED ** 2 / BRAKING / 2
    points.append(TrajectoryPoint(
        after[-1] + stop_ns, [plan_at(now_ns + after[-1]) + way], [0.0]))
    return Trajectory(now_ns, ('a',), tuple(points))


class Rig:
    """
    One joint behind a controller, and a mux that sends the plan.

    :param controller: one of CONTROLLERS.
    :param tau: time constant of the joint, s.
    :param phase: from a tick of the mux to the first update of the controller, s.
    :param delay, jitter: of the messages, s.
    :param changes: of ControllerSettings.
    """

    def __init__(self, controller='jazzy', rate=500.0, tau=0.0, phase=0.0007, delay=0.0003,
                 jitter=0.0008, seed=0, **changes):
        self.controller = TrajectoryController(
            ('a',), controller_settings(controller, rate=rate, **changes))
        self.rejections: list[str] = []
        self.loop = ControlLoop(
            self.controller, Delivery(delay, jitter, seed),
            lambda rejected: self.rejections.append(str(rejected)))
        self.now_ns = BEGIN + round(phase * SECOND)
        self.joint = FirstOrderJoints([plan_at(self.now_ns)], tau)
        self.loop.begin(self.now_ns, self.joint.positions)

    def run(self, seconds, mux_rate=100, knots=1, with_stamp=False, messages=True) -> CommandTrace:
        """Run for a time and return the commands."""
        period_ns = round(SECOND / mux_rate)
        tick_ns = -(-(self.now_ns - BEGIN) // period_ns) * period_ns + BEGIN
        trace = trace_commands(
            self.loop, self.joint,
            lambda now_ns: [message(now_ns, period_ns, knots, with_stamp)] if messages else [],
            tick_ns, period_ns, self.now_ns, seconds)
        self.now_ns += len(trace.commands) * self.controller.settings.period_ns
        return trace


def figures(trace: CommandTrace) -> tuple[float, float, float]:
    """Return least and greatest speed in rad/s, and the largest acceleration in rad/s²."""
    settled = trace.after(SETTLING)
    return (settled.speeds().min(), settled.speeds().max(),
            abs(settled.accelerations()).max())
