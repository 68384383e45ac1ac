"""The control mode of the arm and its timestamp, as the policy knows them."""

from lingbot_va_ros.specs.control_mode import ControlMode


class ControlOwner:
    """
    The owner of the arm and the ROS time since which it has been the owner.

    One thread updates it, any thread reads it: mode and time are always of one moment. Until a
    mode was received, the policy owns an arm whose mode nobody publishes.
    """

    def __init__(self) -> None:
        self._state: tuple[int | None, int] = (None, 0)
        self.has_publisher = False  # of the topic control_mode

    def update(self, mode: int, since_ns: int) -> None:
        """Take a control mode and the ROS time in nanoseconds at which it began."""
        self._state = (mode, since_ns)

    def restart(self, now_ns: int) -> None:
        """Let the present mode begin now, at a ROS time: the clock has stepped."""
        mode = self.mode
        if mode is not None:
            self._state = (mode, now_ns)

    def forget(self) -> None:
        """Go back to the state before the first mode."""
        self._state = (None, 0)

    @property
    def mode(self) -> int | None:
        """The newest control mode, or None before the first."""
        return self._state[0]

    @property
    def since_ns(self) -> int:
        """ROS time in nanoseconds at which the mode began; 0 before the first."""
        return self._state[1]

    @property
    def mode_name(self) -> str:
        """The mode's name; its number where it is an unknown one."""
        mode = self.mode
        known = {int(each): each.name for each in ControlMode}
        return 'not known' if mode is None else known.get(mode, str(mode))

    def not_owner_reason(self) -> str | None:
        """Return why the policy's plan does not move the arm, one line, or None where it does."""
        mode = self.mode
        if mode is None:
            return 'control_mode: no message yet' if self.has_publisher else None
        return None if mode == ControlMode.POLICY else f'control_mode is {self.mode_name}'

    def person_since(self) -> int | None:
        """Return the ROS time in nanoseconds since which a person has had the arm, or None."""
        mode, since_ns = self._state
        return since_ns if mode == ControlMode.TELEOP else None
