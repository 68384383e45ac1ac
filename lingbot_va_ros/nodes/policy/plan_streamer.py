"""The control thread, which publishes the remainder of the plan at the control rate."""

from collections.abc import Callable, Sequence
import threading
import traceback

from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.motion.timeline import Timeline
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.policy.messages import trajectory_message
from lingbot_va_ros.nodes.priority import raise_priority
from lingbot_va_ros.nodes.ticks import ticks


class PlanStreamer:
    """
    Publishes `~/joint_trajectory` from the plan slot, in a thread of its own.

    :param timeline: between the time of plans and ROS time.
    :param is_continuous: returns whether the arm moves from chunk to chunk without a stop.
    :param on_tick: called in the thread, before each plan is read.
    :param on_fault: called in the thread with the traceback of an exception that ends it.
    """

    def __init__(
        self, node: Node, slot: PlanSlot, timeline: Timeline, is_continuous: Callable[[], bool],
        on_tick: Callable[[], object], on_fault: Callable[[str], None],
    ):
        self._starved_ticks = 0
        self._node = node
        self._slot = slot
        self._timeline = timeline
        self._is_continuous = is_continuous
        self._on_tick = on_tick
        self._on_fault = on_fault
        self._publisher = node.create_publisher(
            JointTrajectory, '~/joint_trajectory', qos.COMMAND)
        self._joints: Sequence[str] = ()
        self._period = 0.0
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()

    @property
    def starved_ticks(self) -> int:
        """Number of ticks after the end of the plan in continuous motion."""
        return self._starved_ticks

    def forget_starved_ticks(self) -> None:
        """Count starved ticks from 0 (another configuration)."""
        self._starved_ticks = 0

    def start(self, joints: Sequence[str], rate: float) -> None:
        """Start publishing for `joints`, in the order of positions, at a rate in Hz."""
        self._joints, self._period = joints, 1.0 / rate
        self._ending = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(rate, self._ending), name='control', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the last published plan is a stop."""
        if self._thread is None:
            return
        self._ending.set()
        self._thread.join(timeout=1.0)
        self._thread = None
        plan, now = self._slot.stop()  # not a plan that the inference thread sets afterwards
        if plan is not None:
            self._publish(plan, now)

    def _run(self, rate: float, ending: threading.Event) -> None:
        raise_priority(
            self._node, [0], self._node.get_parameter('realtime_priority').value, False, 'plans')
        try:
            for _tick in ticks(self._node.get_clock(), round(NANOSECONDS / rate), ending):
                self._on_tick()
                plan, now = self._slot.current()
                if plan is not None:
                    if now > plan.end_ns and self._is_continuous():
                        self._starved_ticks += 1
                    self._publish(plan, now)
        except Exception:  # without plans the status must not stay RUNNING
            if not ending.is_set():
                self._on_fault(traceback.format_exc())

    def _publish(self, plan: Plan, now_ns: int) -> None:
        """Publish what remains of a plan at a plan time."""
        ros_ns = self._timeline.to_ros(now_ns)
        self._publisher.publish(trajectory_message(
            ros_ns, self._joints,
            *self._timeline.in_ros(plan).remainder(ros_ns, self._period)))
