"""The parameters of command_mux, and the joint map of a leader arm that they describe."""

from rclpy.node import Node

from lingbot_va_ros.mux.leader_arm import LeaderJoint
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.mux.speed_scale import LEAST_SCALE
from lingbot_va_ros.nodes.command_mux.teleop_parameters import TELEOP_PARAMETERS
from lingbot_va_ros.nodes.parameters import declare_parameters, NodeParameter, parameter_overrides
from lingbot_va_ros.nodes.run import CannotStart
from lingbot_va_ros.specs.embodiment import Embodiment

_DEFAULT = MuxSettings()
# Value of the driver's speed scaling at full speed, by unit.
FULL_SPEED_SCALING = {'percent': 100.0, 'share': 1.0}
_MAP_PREFIX = 'teleop_joint_map.'
_MAP_KEYS = ('joint', 'scale', 'offset', 'sign')

PARAMETERS = (
    NodeParameter(
        'embodiment', 'sim_left',
        'The robot: a name in config/embodiments, or the path of an embodiment file.'),
    NodeParameter('command_rate', 100.0, 'Commands per second, Hz.', 10.0, 1000.0),
    NodeParameter(
        'source_timeout', _DEFAULT.source_timeout,
        'Silence of the selected source, or age of its stamps, that means HOLD, s.', 0.02, 10.0),
    NodeParameter(
        'joint_state_timeout', _DEFAULT.joint_state_timeout,
        'Age of the joint states of any joint that means HOLD, s.', 0.02, 10.0),
    NodeParameter(
        'start_tolerance', _DEFAULT.start_tolerance,
        'A motion starts at the last command where the measured joint is this near to it, '
        'else as measured, rad or m.', 0.0, 1.0),
    NodeParameter(
        'max_following_error', _DEFAULT.max_following_error,
        'Distance of a measured arm joint from its command that means HOLD, rad or m; of joints '
        'for which the embodiment file gives none.', 0.001, 10.0),
    NodeParameter(
        'max_rejections', _DEFAULT.max_rejections,
        'Rejected messages of the source in a row that mean HOLD.', 1, 100000),
    NodeParameter(
        'max_jump', _DEFAULT.max_jump,
        'A plan may begin as far from the present command as a joint goes in this time at '
        'its velocity limit, s.', 0.0, 5.0),
    NodeParameter(
        'controller_delay', _DEFAULT.controller_delay,
        "The longest time from a command's stamp until its controller has it, s. A stop begins "
        'so much later, in whole periods and at least one.', 0.0, 0.2),
    NodeParameter(
        'max_tracking_delay', _DEFAULT.max_tracking_delay,
        'Time by which the joint states of the moving arm may trail its commands; more means '
        'HOLD, s.', 0.01, 10.0),
    NodeParameter(
        'emergency_stop_timeout', _DEFAULT.emergency_stop_timeout,
        'Silence of emergency_stop that latches STOPPED, s; 0: the input is not '
        'supervised.', 0.0, 60.0),
    NodeParameter(
        'realtime_priority', 50,
        'Priority 1 … 98 under SCHED_FIFO where the system grants it, as ros2_control '
        'does; 0: the ordinary scheduler.', 0, 98),
    NodeParameter(
        'home_speed', _DEFAULT.home_speed,
        'Share of the velocity and acceleration limits that go_home uses.', 0.01, 1.0),
    NodeParameter(
        'teleop_approach_speed', _DEFAULT.teleop_approach_speed,
        'Share of the velocity and acceleration limits with which the arm closes the way '
        'to the teleoperation source before it tracks it.', 0.01, 1.0),
    NodeParameter(
        'takeover_motion', _DEFAULT.takeover_motion,
        'A teleoperation source that rested and then moves further than this takes the '
        'arm from the policy, rad or m; 0: only set_mode does.', 0.0, 3.0),
    NodeParameter(
        'takeover_rest', _DEFAULT.takeover_rest,
        'How long the teleoperation source must have rested before it takes the arm by '
        'moving, s.', 0.1, 60.0),
    NodeParameter(
        'speed_scale', _DEFAULT.speed_scale,
        "The operator's speed scale at first, above 0 and at most 1; ~/set_speed changes it.",
        LEAST_SCALE, 1.0),
    NodeParameter(
        'speed_scaling_topic', '',
        "std_msgs/Float64 with the speed scaling of the robot's driver, as UR's "
        'speed_scaling_state_broadcaster/speed_scaling; empty: none.'),
    NodeParameter(
        'speed_scaling_unit', 'percent',
        'The unit of speed_scaling_topic: percent (full speed is 100) or share (it is 1).',
        choices=tuple(FULL_SPEED_SCALING)),
    NodeParameter(
        'stop_folder', '',
        'Where a latched stop is kept for a respawned mux; empty: '
        '~/.local/state/lingbot_va_ros/stops.'),
    NodeParameter(
        'gripper_goal_rate', 5.0,
        'At most so many goals per second go to a gripper that is driven by an action, '
        'Hz.', 0.1, 50.0),
    NodeParameter(
        'gripper_threshold', 0.02,
        'A gripper that is driven by an action gets a new goal when its command has moved '
        'further from the last one, share of the way from open to closed.', 0.0, 0.5),
    *TELEOP_PARAMETERS,
)


def declare_joint_map(node: Node, embodiment: Embodiment) -> dict[str, LeaderJoint]:
    """
    Declare teleop_joint_map.<joint>.{joint, scale, offset, sign} for every joint.

    :returns: by joint of the robot.
    :raises CannotStart: a joint or a key does not exist, or a sign is 0.
    :raises WrongParameter: a value has a wrong type or range.
    """
    for given in parameter_overrides(node):
        name, _, key = given.removeprefix(_MAP_PREFIX).rpartition('.')
        if given.startswith(_MAP_PREFIX) and (
                name not in embodiment.joints or key not in _MAP_KEYS):
            raise CannotStart(
                f'parameter {given}: expected {_MAP_PREFIX}<joint>.<key> with a joint of '
                f"embodiment '{embodiment.name}' ({', '.join(embodiment.joints)}) and one of "
                f'{", ".join(_MAP_KEYS)}')
    joint_map = {}
    for name in embodiment.joints:
        rows = _joint_map_parameters(f'{_MAP_PREFIX}{name}.', name)
        declared = declare_parameters(node, rows, read_only=True)
        values = dict(zip(_MAP_KEYS, declared.values(), strict=True))
        if values['sign'] == 0:
            raise CannotStart(f'parameter {_MAP_PREFIX}{name}.sign is 0; expected 1 or -1')
        joint_map[name] = LeaderJoint(**values)
    return joint_map


def _joint_map_parameters(prefix: str, joint: str) -> tuple[NodeParameter, ...]:
    """Return the parameters that map one joint of the leader arm, in the order of _MAP_KEYS."""
    return (
        NodeParameter(
            prefix + 'joint', joint,
            'Joint of the leader arm that moves this joint; empty: none, this joint keeps its '
            'last command.'),
        NodeParameter(
            prefix + 'scale', 1.0, "Factor on the leader joint's position.", -100.0, 100.0),
        NodeParameter(
            prefix + 'offset', 0.0, 'Added after the factor, rad or m.', -100.0, 100.0),
        NodeParameter(prefix + 'sign', 1, 'Direction: 1 or -1.', -1, 1))
