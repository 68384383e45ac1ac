"""The watch of the arm: its controllers, its joint states, and whether it does as commanded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.mux.command_history import CommandHistory
from lingbot_va_ros.mux.contact import ContactWatch
from lingbot_va_ros.mux.following_error import following_error, following_error_limits
from lingbot_va_ros.mux.reference_watch import ReferenceWatch
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.mux.standstill import LONGEST, StandstillWatch
from lingbot_va_ros.mux.start_state import STANDING_SPEED
from lingbot_va_ros.mux.tracking_delay import TrackingDelay
from lingbot_va_ros.robot.joint_state_filter import JointStateFilter
from lingbot_va_ros.specs.embodiment import Embodiment


@dataclass(frozen=True)
class ArmFault:
    """
    Why the arm must not move on.

    :param reason: one line for people.
    :param can_retreat: whether the command is to be led back to where the arm is measured.
    :param is_away: whether the controller may have left the command: the next motion begins where
        the arm is measured.
    """

    reason: str
    can_retreat: bool = False
    is_away: bool = False


class ArmWatch:
    """
    Tells what the arm lacks before it may move, and why it must not move on.

    :param joints: the measured state.
    :param is_gripper: [J] bool.
    :param period_ns: of the ticks.
    """

    def __init__(
        self, joints: JointStateFilter, embodiment: Embodiment, settings: MuxSettings,
        is_gripper: np.ndarray, period_ns: int,
    ) -> None:
        self._joints = joints
        self._embodiment = embodiment
        self._is_gripper = is_gripper
        self._settings = settings
        self._commands = CommandHistory(
            len(embodiment.joints), period_ns, joints.longest_timeout)
        self._following_limits = following_error_limits(embodiment, settings.max_following_error)
        self._standstill = StandstillWatch(~is_gripper)
        self._tracking = TrackingDelay(
            embodiment.limits.velocity, ~is_gripper, period_ns, settings.max_tracking_delay)
        self._references = ReferenceWatch(embodiment.joints)
        self.references_off = 0.0  # share of the controllers' last references
        self.contact = ContactWatch(embodiment, settings.joint_state_timeout)
        self._faults: dict[str, tuple[str, ...]] = {}

    def take_faults(self, origin: str, faults: tuple[str, ...]) -> None:
        """Take the present faults of controllers and driver that one watch sees, a line each."""
        self._faults[origin] = faults

    @property
    def has_controller_fault(self) -> bool:
        """Whether a watch sees a fault of a controller or of the driver now."""
        return any(self._faults.values())

    def missing(self, now_s: float, is_commanded: bool) -> list[str]:
        """
        Return what the arm lacks before it may move, a line each.

        :param is_commanded: whether a command of the mux still moves it.
        """
        missing = [
            *self._joints.missing(now_s), *self._controller_faults(),
            *self.contact.unknown(now_s)]
        if not missing and not is_commanded:
            missing += self._moved_by_others()
        return missing

    def begin(self, time_ns: int, commanded: np.ndarray) -> None:
        """Take note that commands begin anew, at rest at these positions [J] before `time_ns`."""
        self._standstill.reset()
        self._tracking.restart()
        self._references.restart()
        self._commands.restart(time_ns, commanded)

    def add_command(self, time_ns: int, commanded: np.ndarray) -> None:
        """Take the commanded positions [J] of a tick."""
        self._commands.add(time_ns, commanded)
        self._references.judge(time_ns, self._commands)
        self.references_off = self._references.share_off(time_ns)

    def add_reference(
        self, names: Sequence[str], positions: Sequence[float], stamp_ns: int) -> None:
        """Take the reference that a controller's state has; see `ReferenceWatch.add`."""
        self._references.add(names, positions, stamp_ns)

    def lag(self, now_s: float) -> np.ndarray:
        """Return how far [J] the joints are behind their commands; 0 where that is not known."""
        if not self._commands.has_begun or not self._joints.is_fresh(now_s):
            return np.zeros(len(self._embodiment.joints))
        return self._commands.at(self._joints.times_ns) - self._joints.positions

    def lost(self, now_s: float, margin: float) -> ArmFault | None:
        """
        Return which controller or joint state was lost, or None.

        :param margin: seconds before the timeout at which a joint counts as lost already.
        """
        faults = self._controller_faults()
        if faults:
            return ArmFault(f'lost {"; ".join(faults)}', is_away=True)
        lost = self._joints.lost(now_s, margin)
        unknown = self.contact.unknown(now_s, margin)
        if not lost and unknown:
            lost = f'lost {"; ".join(unknown)}'
        return ArmFault(lost) if lost else None

    def disobedience(self, now_s: float) -> ArmFault | None:
        """Return how the arm does not do as commanded, or None."""
        contact = self.contact.excess()
        if contact:
            return ArmFault(contact, can_retreat=not self._joints.is_disputed(now_s))
        measured, times_ns = self._joints.positions, self._joints.times_ns
        commanded = self._commands.at(times_ns)
        error = following_error(
            measured, commanded, self._following_limits, self._joints.joints)
        if error is not None:
            return ArmFault(
                error.reason, error.can_retreat and not self._joints.is_disputed(now_s))
        # Of one time, that of the oldest measurement: until then the arm is known to have stood.
        measured_s = float(times_ns[~self._is_gripper].min()) / NANOSECONDS
        if self._standstill.stands(measured, commanded, measured_s):
            return ArmFault(
                f'the arm stands still: no joint has moved for {LONGEST:g} s while its command '
                'did', can_retreat=not self._joints.is_disputed(now_s), is_away=True)
        tracking = self._tracking
        tracking.update(measured, times_ns, self._commands)
        if tracking.is_beyond_limit:
            return ArmFault(
                f'the arm trails its commands by {tracking.seconds:.3f} s, more than '
                f'max_tracking_delay {self._settings.max_tracking_delay:g}: the commands come '
                'late to the controller, or the arm is slow to follow')
        return None

    @property
    def tracking_delay(self) -> float:
        """The time by which the arm trails its commands, s; nan: unknown."""
        return self._tracking.seconds

    def _controller_faults(self) -> list[str]:
        return [fault for faults in self._faults.values() for fault in faults]

    def _moved_by_others(self) -> list[str]:
        speed = np.where(self._is_gripper, 0.0, np.abs(self._joints.velocities))
        share = speed / self._embodiment.limits.velocity
        worst = int(np.argmax(share))
        if share[worst] <= STANDING_SPEED:
            return []
        return [f"an arm at rest ('{self._embodiment.joints[worst]}' moves at {speed[worst]:.3f}, "
                'and no command of the mux moves it)']
