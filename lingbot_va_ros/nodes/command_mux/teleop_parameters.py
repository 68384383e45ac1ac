"""The parameters of teleoperation: distances and scales, the dead-man button, the joystick."""

from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

from lingbot_va_ros.mux.joystick import AXES, BUTTONS, JoyBindings
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.nodes.parameters import (
    declare_parameters,
    NodeParameter,
    parameter_overrides,
    WrongParameter,
)
from lingbot_va_ros.nodes.run import CannotStart

_DEFAULT = MuxSettings()
# Modes that may need the dead-man button.
DEADMAN_MODES = ('teleop', 'policy')
_ABSOLUTE_OR_RELATIVE = ('absolute', 'relative')

TELEOP_PARAMETERS = (
    NodeParameter(
        'teleop_max_distance', _DEFAULT.teleop_max_distance,
        'A leader or a hand that would lead a joint or the tool further than this from where it '
        'is does not move the arm, rad or m.', 0.01, 100.0),
    NodeParameter(
        'teleop_leader_mode', _DEFAULT.teleop_leader_mode,
        'absolute: the arm goes to where the leader arm is; relative: it moves as the leader does '
        'from where both are.', choices=_ABSOLUTE_OR_RELATIVE),
    NodeParameter(
        'teleop_pose_mode', _DEFAULT.teleop_pose_mode,
        'absolute: the tool goes to the pose of the hand; relative: it moves as the hand does '
        'from where both are.', choices=_ABSOLUTE_OR_RELATIVE),
    NodeParameter(
        'teleop_linear_scale', _DEFAULT.teleop_linear_scale,
        'Factor of the linear velocity of twists, and of the translations of a hand that is '
        'followed relatively.', 0.001, 100.0),
    NodeParameter(
        'teleop_angular_scale', _DEFAULT.teleop_angular_scale,
        'Factor of the angular velocity of twists, and of the rotations of a hand that is '
        'followed relatively.', 0.0, 100.0),
    NodeParameter(
        'teleop_linear_speed', _DEFAULT.teleop_linear_speed,
        'The fastest linear velocity of a twist, and that of a joystick at its end, m/s.',
        0.001, 5.0),
    NodeParameter(
        'teleop_angular_speed', _DEFAULT.teleop_angular_speed,
        'The fastest angular velocity of a twist, and that of a joystick at its end, rad/s.',
        0.001, 20.0),
    NodeParameter(
        'deadman_button', _DEFAULT.deadman_button,
        'Index of the button of joy that must be pressed in the modes of deadman_modes; -1: '
        'none.', -1, 255),
)
_AXES = {
    **{f'linear_{axis}': f'moves the tool along {axis}' for axis in 'xyz'},
    **{f'angular_{axis}': f'turns the tool about {axis}' for axis in 'xyz'},
    'gripper': 'opens (1) and closes (-1) the gripper'}
_BUTTONS = {
    'clutch': 'lets hand and arm move together while it is pressed',
    'select_arm': 'selects the next arm',
    'gripper': 'opens the gripper, or closes an open one',
    'gripper_open': 'opens the gripper',
    'gripper_close': 'closes the gripper',
    'take_over': 'gives the arm from the policy to the operator',
    'give_back': 'gives the arm from the operator back to the policy',
    'record': 'is reserved for the recorder and does nothing yet'}
JOY_PARAMETERS = (
    *(NodeParameter(
        f'joy_axes.{name}', -1, f'Index of the axis of joy that {_AXES[name]}; -1: none.',
        -1, 255) for name in AXES),
    *(NodeParameter(
        f'joy_scales.{name}', 1.0,
        f'Factor of the axis of joy that {_AXES[name]}; a negative one turns it round.',
        -10.0, 10.0) for name in AXES),
    *(NodeParameter(
        f'joy_buttons.{name}', -1,
        f'Index of the button of joy that {_BUTTONS[name]}; -1: none.', -1, 255)
      for name in BUTTONS),
    NodeParameter('joy_deadzone', 0.05, 'Smaller deflections of an axis are 0.', 0.0, 0.9),
    NodeParameter(
        'joy_frame', 'base', 'The frame along whose axes a joystick moves the tool.',
        choices=('base', 'tool')),
)


def declare_deadman_modes(node: Node) -> tuple[str, ...]:
    """
    Declare deadman_modes, a list of modes or one text with commas between them.

    :raises WrongParameter: it is something else.
    """
    value: Any = parameter_overrides(node).get('deadman_modes', list(_DEFAULT.deadman_modes))
    names = value.split(',') if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        names = ['?']
    modes = tuple(dict.fromkeys(name.strip().lower() for name in names if name.strip()))
    if not set(modes) <= set(DEADMAN_MODES):
        raise WrongParameter(
            f'parameter deadman_modes is {value!r}; expected a list of '
            f'{" and ".join(DEADMAN_MODES)}')
    node.declare_parameter(
        'deadman_modes', list(modes) or value, ParameterDescriptor(
            description='Modes in which the dead-man button must be pressed, of '
            f'{", ".join(DEADMAN_MODES)}: its release means HOLD.',
            read_only=True, dynamic_typing=True))
    return modes


def declare_joystick(node: Node) -> JoyBindings:
    """
    Declare joy_axes, joy_scales, joy_buttons, joy_deadzone and joy_frame.

    :raises CannotStart: a name does not exist, or a button does two things.
    :raises WrongParameter: a value has a wrong type or range.
    """
    known = {parameter.name for parameter in JOY_PARAMETERS}
    for given in parameter_overrides(node):
        if given.startswith(('joy_axes.', 'joy_scales.', 'joy_buttons.')) and given not in known:
            raise CannotStart(
                f'parameter {given} does not exist; there are joy_axes and joy_scales of '
                f'{", ".join(AXES)}, and joy_buttons of {", ".join(BUTTONS)}')
    values = declare_parameters(node, JOY_PARAMETERS, read_only=True)
    axes, scales, buttons = (
        {name: values[f'{group}.{name}'] for name in names}
        for group, names in (('joy_axes', AXES), ('joy_scales', AXES), ('joy_buttons', BUTTONS)))
    for what, group in (('axis', axes), ('button', buttons)):
        uses: dict[int, str] = {}
        for name, index in group.items():
            if index >= 0 and index in uses:
                raise CannotStart(
                    f'{what} {index} of joy is bound twice: {uses[index]} and {name}')
            uses[index] = name
    return JoyBindings(
        axes, buttons, scales, values['joy_deadzone'], values['joy_frame'] == 'tool')
