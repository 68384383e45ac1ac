"""A joystick: its buttons and axes by their bindings, and what they ask of the mux."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import math

import numpy as np

from lingbot_va_ros.mux.clutch import Clutch
from lingbot_va_ros.mux.dead_man_switch import DeadManSwitch
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.tool_teleop import ToolTeleop
from lingbot_va_ros.mux.validation import Rejected

# The axes of a twist, in its order, and that of the gripper.
TWIST_AXES = ('linear_x', 'linear_y', 'linear_z', 'angular_x', 'angular_y', 'angular_z')
AXES = (*TWIST_AXES, 'gripper')
BUTTONS = (
    'clutch', 'select_arm', 'gripper', 'gripper_open', 'gripper_close', 'take_over', 'give_back',
    'record')
# Of them these ask for something when they are pressed, and nothing while they are held.
PRESSES = ('select_arm', 'gripper', 'take_over', 'give_back')


@dataclass(frozen=True)
class JoyBindings:
    """
    Indices in the axes and buttons of `joy`, by what they do; -1 or missing: nothing.

    :param scales: factor of each axis; -1 turns it round.
    :param deadzone: deflections below it are 0.
    :param in_tool: whether the twist is along the axes of the tool frame.
    """

    axes: Mapping[str, int] = field(default_factory=dict)
    buttons: Mapping[str, int] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    deadzone: float = 0.05
    in_tool: bool = False

    @property
    def leads(self) -> bool:
        """Whether an axis leads an arm."""
        return any(self.axes.get(name, -1) >= 0 for name in TWIST_AXES)

    @property
    def are_used(self) -> bool:
        """Whether anything is bound."""
        return any(index >= 0 for index in (*self.axes.values(), *self.buttons.values()))


@dataclass(frozen=True)
class JoyMessage:
    """A sensor_msgs/Joy as plain data, unchecked."""

    stamp_ns: int
    axes: Sequence[float]
    buttons: Sequence[int]


@dataclass(frozen=True)
class JoyRequests:
    """
    What a message asks of the mux.

    :param released: whether the dead-man button is not pressed.
    :param mode: that a button asks for, or None.
    """

    released: bool = False
    mode: MuxMode | None = None


class Joystick:
    """
    Reads joystick messages: the dead-man switch, the clutch, and what leads arms and grippers.

    :param sides: of the arms; the first one is selected at first.
    :param tool: gets the twist and the openings of grippers.
    """

    def __init__(
        self, bindings: JoyBindings, dead_man: DeadManSwitch, clutch: Clutch,
        sides: tuple[str, ...], tool: ToolTeleop,
    ) -> None:
        self.side = sides[0]
        self._bindings = bindings
        self._dead_man = dead_man
        self._clutch = clutch
        self._sides = sides
        self._tool = tool
        self._stamp_ns = -1
        # Whether each button was pressed in the message before; a button that is pressed in the
        # first one was not pressed now.
        self._was_pressed = dict.fromkeys(PRESSES, True)

    def forget(self) -> None:
        """Begin anew, after a clock jump."""
        self._stamp_ns = -1
        self._was_pressed = dict.fromkeys(PRESSES, True)
        self._dead_man.forget()
        self._clutch.forget()

    def update(self, message: JoyMessage, now_s: float) -> tuple[JoyRequests, bool]:
        """
        Take a message; returns what it asks for, and whether the clutch has opened or closed.

        One whose stamp stands still says nothing new.

        :raises Rejected: kinds lengths, not_finite: an axis or a button is missing, or no number.
            The dead-man button has been read all the same.
        """
        released = self._dead_man.update(message.buttons, message.stamp_ns, now_s)
        if message.stamp_ns and message.stamp_ns == self._stamp_ns:
            return JoyRequests(), False
        self._stamp_ns = message.stamp_ns
        if not self._bindings.are_used:
            return JoyRequests(released), False
        try:
            return self._read(message, released, now_s)
        except Rejected:
            if released:  # a joystick that lacks a button is one that is let go
                return JoyRequests(released), False
            raise

    def _read(
        self, message: JoyMessage, released: bool, now_s: float) -> tuple[JoyRequests, bool]:
        axes = {name: self._axis(message, name) for name in AXES}
        held = {name: self._button(message, name) for name in BUTTONS}
        pressed = {name: held[name] and not self._was_pressed[name] for name in PRESSES}
        self._was_pressed = {name: held[name] for name in PRESSES}
        clutch_changed = self._clutch.update(held['clutch'], now_s)
        if pressed['select_arm']:
            following = self._sides.index(self.side) + 1
            self.side = self._sides[following % len(self._sides)]
        self._move_gripper(axes, held, pressed)
        if self._bindings.leads:
            self._tool.take_joystick(
                self.side, np.array([axes[name] for name in TWIST_AXES]),
                self._bindings.in_tool, now_s)
        mode = None
        if pressed['take_over']:
            mode = MuxMode.TELEOP
        elif pressed['give_back']:
            mode = MuxMode.POLICY
        return JoyRequests(released, mode), clutch_changed

    def _move_gripper(
        self, axes: Mapping[str, float], held: Mapping[str, bool], pressed: Mapping[str, bool],
    ) -> None:
        if self._bindings.axes.get('gripper', -1) >= 0:
            self._tool.move_gripper(self.side, (axes['gripper'] + 1.0) / 2.0)
        if pressed['gripper']:
            is_open = self._tool.opening(self.side) > 0.5
            self._tool.open_gripper(self.side, 0.0 if is_open else 1.0)
        if held['gripper_open'] != held['gripper_close']:
            self._tool.open_gripper(self.side, 1.0 if held['gripper_open'] else 0.0)
        elif held['gripper_open']:
            self._tool.open_gripper(self.side, self._tool.opening(self.side))

    def _axis(self, message: JoyMessage, name: str) -> float:
        index = self._bindings.axes.get(name, -1)
        if index < 0:
            return 0.0
        if index >= len(message.axes):
            raise Rejected(
                'lengths', f'joy has {len(message.axes)} axes, none with the index {index} '
                f'({name})')
        value = float(message.axes[index])
        if not math.isfinite(value):
            raise Rejected('not_finite', f'axis {index} of joy ({name}) is not a finite number')
        value = min(max(value, -1.0), 1.0) * self._bindings.scales.get(name, 1.0)
        return 0.0 if abs(value) < self._bindings.deadzone and name != 'gripper' else value

    def _button(self, message: JoyMessage, name: str) -> bool:
        index = self._bindings.buttons.get(name, -1)
        if index < 0:
            return False
        # A joystick may tell of a button only once it was pressed, as a SpaceMouse does.
        return index < len(message.buttons) and bool(message.buttons[index])
