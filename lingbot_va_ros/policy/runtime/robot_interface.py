"""The robot as the scheduler sees it, and the settings that the policy works under."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from lingbot_va_ros.motion.plan import MotionLimits, Plan
from lingbot_va_ros.motion.timeline import Timeline
from lingbot_va_ros.policy.errors import NotExecutable
from lingbot_va_ros.policy.runtime.clock import Clock
from lingbot_va_ros.policy.runtime.control_owner import ControlOwner
from lingbot_va_ros.policy.runtime.plan_time_views import Cameras, ExecutedCommands
from lingbot_va_ros.policy.runtime.schedules import Schedule, SYNC
from lingbot_va_ros.robot.action_map import ActionMap
from lingbot_va_ros.robot.poses import PoseError

# rad or m; beyond it the arm counts as moved, and the plan starts from its measured position
START_TOLERANCE = 0.05


@dataclass(frozen=True)
class RuntimeSettings:
    """
    Settings that stay as they are while the policy is active.

    :param reaction: seconds from the swap of a plan until the mux executes what it changes.
    :param last_chunk_only: remember the last chunk alone (the ablation `last_chunk`).
    :param start_tolerance: distance in rad (m) by which a joint may be off the end of the plan.
    """

    schedule: Schedule = SYNC
    reaction: float = 0.05
    last_chunk_only: bool = False
    start_tolerance: float = START_TOLERANCE


@dataclass(frozen=True)
class LiveSettings:
    """
    Settings that may change while the policy is active.

    :param max_camera_skew: seconds that an image may be off the time it is needed for.
    :param padded_latency: seconds that a prediction takes at least (for measurements).
    :param publish_predicted_video: whether imagined frames are wanted.
    :param takeover_memory: `keep` remembers a person's motion, `forget` begins a new epoch when a
        person takes the arm.
    """

    max_camera_skew: float = 0.1
    padded_latency: float = 0.0
    publish_predicted_video: bool = False
    takeover_memory: str = 'keep'


class MeasuredJoints(Protocol):
    """The measured joint positions."""

    def positions(self) -> np.ndarray | None:
        """Return positions [J] in rad or m, or None while one is unknown."""


@dataclass(frozen=True)
class RobotInterface:
    """
    The parts through which the policy observes and moves one robot.

    All times are plan time (see `Timeline`), only the stamps of images are ROS time.

    :param cameras: the images, as they came.
    :param executed: the commands that were sent; None where the plan stands for them.
    :param joints: the measured joint positions.
    :param limits: of the joints, in the order of positions.
    :param control: the owner of the arm.
    :param to_rgb: converts an image of a camera to RGB uint8 [H, W, 3]; may raise CameraFault.
    :param not_ready_reason: returns why the policy cannot work now (one line), or None.
    :param live: returns the settings that hold now.
    :param timeline: between plan time, which `clock` gives, and ROS time.
    :param sets_pace: [J] bool, the joints that a plan waits for; None: all.
    """

    clock: Clock
    cameras: Cameras
    executed: ExecutedCommands | None
    joints: MeasuredJoints
    action_map: ActionMap
    limits: MotionLimits
    control: ControlOwner
    to_rgb: Callable[[str, Any], np.ndarray]
    not_ready_reason: Callable[[], str | None]
    live: Callable[[], LiveSettings] = LiveSettings
    timeline: Timeline = field(default_factory=lambda: Timeline(is_fixed=True))
    sets_pace: np.ndarray | None = None

    def ros_ns(self) -> int:
        """Return ROS time in nanoseconds."""
        return self.timeline.to_ros(self.clock.now_ns())

    def pace(self, plan: Plan, begin_ns: int, end_ns: int) -> float:
        """
        Return the share of its own speed, at most 1, at which a span of a plan keeps the limits.

        Grippers set no pace: their own limits slow them down, and no arm waits for them.
        """
        if self.timeline.is_fixed:
            return 1.0
        shares = plan.fastest(begin_ns, end_ns) / self.limits.velocity
        if self.sets_pace is not None:
            shares = shares[self.sets_pace]
        return 1.0 / max(1.0, float(np.max(shares, initial=0.0)))

    def to_joints(self, actions: np.ndarray, start: np.ndarray) -> np.ndarray:
        """
        Convert the actions of a chunk to joint positions inside the limits.

        They are clipped: the mux refuses a whole plan for one position outside its limits.

        :param actions: [n, used] in robot units.
        :param start: joint positions [J] before the first action.
        :returns: joint positions [n, J], float64.
        :raises NotExecutable: the arm cannot take a pose of the chunk.
        """
        try:
            joints = self.action_map.to_joints(actions, start)
        except PoseError as error:
            raise NotExecutable(str(error)) from None
        return np.clip(joints, self.limits.lower, self.limits.upper)

    def newest_executed_ns(self) -> int | None:
        """Return the stamp of the newest executed command; 0 before any, None without a log."""
        return None if self.executed is None else self.executed.newest_ns or 0
