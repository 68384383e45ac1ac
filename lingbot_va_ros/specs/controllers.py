"""The controllers of an embodiment file: what takes the commands, and in which form."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lingbot_va_ros.specs.yaml_lines import KeyPath, Mistake

# Kinds that get whole motions, each of which ends in a braking tail.
WITH_TAIL = ('trajectory', 'trajectory_action')
# Kinds that get one row each tick: a position or a velocity for each joint. Whoever drives them
# has to stream the stop too.
POSITION_ROWS = ('forward_position', 'joint_state', 'joint_group', 'plugin')
VELOCITY_ROWS = ('forward_velocity', 'joint_jog')
KINDS = (*WITH_TAIL, 'gripper_action', *POSITION_ROWS, *VELOCITY_ROWS)

# Message types of command topics. An action and a plugin have none.
_MESSAGE_TYPES = {
    'trajectory': 'trajectory_msgs/msg/JointTrajectory',
    'forward_position': 'std_msgs/msg/Float64MultiArray',
    'forward_velocity': 'std_msgs/msg/Float64MultiArray',
    'joint_state': 'sensor_msgs/msg/JointState',
    'joint_group': 'interbotix_xs_msgs/msg/JointGroupCommand',
    'joint_jog': 'control_msgs/msg/JointJog',
}
_SINGLE_JOINT = 'interbotix_xs_msgs/msg/JointSingleCommand'

# Topics of the mux itself that have the message type of a kind: a command there would come back as
# a plan, as a leader arm, or among what was executed.
_OF_THE_MUX = {
    'trajectory': ('policy/joint_trajectory', 'teleop/joint_trajectory', 'executed'),
    'joint_state': ('teleop/joint_states',),
}

# Keys that only some kinds have.
_KEYS_OF_KINDS = {
    'max_effort': ('gripper_action',),
    'gain': VELOCITY_ROWS,
    'group': ('joint_group',),
    'goal_rate': ('trajectory_action',),
    'velocities': ('joint_state',),
    'plugin': ('plugin',),
    'options': ('plugin',),
}
DEFAULT_GAIN = 2.0  # 1/s
DEFAULT_GOAL_RATE = 20.0  # Hz


@dataclass(frozen=True)
class Controller:
    """
    One controller that executes commands.

    :param topic: of the messages, or the action's name; may be empty for a plugin.
    :param kind: one of KINDS.
    :param max_effort: of each goal of a gripper_action, N or Nm; None: the controller's default.
    :param names: the driver's names of joints, by ours; the others have the same.
    :param gain: of kinds with velocities: rad/s (m/s) for each rad (m) that the measured joint is
        behind its command, 1/s.
    :param group: of a joint_group; None: a single joint.
    :param goal_rate: most goals of a trajectory_action per second, Hz.
    :param velocities: whether a joint_state has velocities beside its positions.
    :param plugin: of a plugin: `package.module:Class`.
    :param options: of a plugin.
    """

    topic: str
    joints: tuple[str, ...]
    kind: str
    max_effort: float | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    gain: float = DEFAULT_GAIN
    group: str | None = None
    goal_rate: float = DEFAULT_GOAL_RATE
    velocities: bool = True
    plugin: str = ''
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def driver_names(self) -> list[str]:
        """The driver's names of the joints, in their order."""
        return [self.names.get(joint, joint) for joint in self.joints]

    @property
    def message_type(self) -> str:
        """The message type of the topic; empty: the controller is an action or a plugin."""
        if self.kind == 'joint_group' and self.group is None:
            return _SINGLE_JOINT
        return _MESSAGE_TYPES.get(self.kind, '')


def longest_goal_period(controllers: Sequence[Controller]) -> float:
    """Return the seconds between two goals of the slowest trajectory_action; 0: there is none."""
    return max((1.0 / each.goal_rate for each in controllers if each.kind == 'trajectory_action'),
               default=0.0)


def read_controllers(
    entries: list[dict[str, Any]], joints: Collection[str], held: Collection[str],
    mistakes: list[Mistake],
) -> tuple[Controller, ...]:
    """
    Return the controllers; every joint must be in exactly one of them.

    :param joints: of arms and grippers.
    :param held: further joints, which are held.
    :param mistakes: gets what the schema cannot find.
    """
    topics: set[tuple[str, ...]] = set()
    taken: set[str] = set()
    for index, entry in enumerate(entries):
        at: KeyPath = ('controllers', index)
        # A driver of groups has one topic for all of them.
        part = entry.get('group', entry['joints'][0]) if entry['kind'] == 'joint_group' else ''
        # Without a namespace an absolute topic is the relative one of the same name.
        topic = entry.get('topic', '').lstrip('/')
        if topic and (topic, part) in topics:
            mistakes.append(((*at, 'topic'), f"topic '{entry['topic']}' appears twice"))
        topics.add((topic, part))
        for number, name in enumerate(entry['joints']):
            place = (*at, 'joints', number)
            if name not in joints and name not in held:
                mistakes.append((place, f"'{name}' is not a joint of an arm or gripper, nor held"))
            elif name in taken:
                mistakes.append((place, f"joint '{name}' is in a controller already"))
            taken.add(name)
            if name in held and entry['kind'] == 'gripper_action':
                mistakes.append((place, 'a gripper_action cannot hold a joint'))
        mistakes += _mistakes_of_kind(entry, at)
    mistakes += [(('controllers',), f"no controller takes joint '{name}'")
                 for name in (*joints, *held) if name not in taken]
    return tuple(_controller(entry) for entry in entries)


def loops(
    controllers: Sequence[Controller], measured: Collection[str]) -> list[Mistake]:
    """
    Return a mistake for each controller whose commands would come back to the mux.

    :param measured: topics of joint states.
    """
    states = {topic.lstrip('/') for topic in measured}
    mistakes: list[Mistake] = []
    for index, controller in enumerate(controllers):
        topic, kind = controller.topic.lstrip('/'), controller.kind
        whose = ''
        if kind == 'joint_state' and topic in states:
            whose = 'joint_states'
        elif topic in _OF_THE_MUX.get(kind, ()):
            whose = 'the mux itself'
        if whose:
            mistakes.append((
                ('controllers', index, 'topic'),
                f"'{controller.topic}' is a topic of {whose}; commands need another"))
    return mistakes


def _controller(entry: dict[str, Any]) -> Controller:
    return Controller(
        topic=entry.get('topic', ''), joints=tuple(entry['joints']), kind=entry['kind'],
        max_effort=entry.get('max_effort'), names=dict(entry.get('names', {})),
        gain=float(entry.get('gain', DEFAULT_GAIN)), group=entry.get('group'),
        goal_rate=float(entry.get('goal_rate', DEFAULT_GOAL_RATE)),
        velocities=entry.get('velocities', True), plugin=entry.get('plugin', ''),
        options=dict(entry.get('options', {})))


def _mistakes_of_kind(entry: dict[str, Any], at: KeyPath) -> list[Mistake]:
    """Return the mistakes in the keys that depend on a controller's kind, and in its names."""
    kind, joints = entry['kind'], entry['joints']
    mistakes: list[Mistake] = [
        ((*at, key), f'only a {" or ".join(kinds)} has {key}')
        for key, kinds in _KEYS_OF_KINDS.items() if key in entry and kind not in kinds]
    if kind != 'plugin' and 'topic' not in entry:
        mistakes.append((at, f'a {kind} needs a topic'))
    if kind == 'plugin' and 'plugin' not in entry:
        mistakes.append((at, 'a plugin needs plugin: package.module:Class'))
    if kind == 'gripper_action' and len(joints) != 1:
        mistakes.append(((*at, 'joints'), 'a gripper_action moves one joint'))
    if kind == 'joint_group' and 'group' not in entry and len(joints) != 1:
        mistakes.append((at, 'a joint_group of several joints needs group'))
    names = entry.get('names', {})
    mistakes += [((*at, 'names', name), f"'{name}' is not a joint of this controller")
                 for name in names if name not in joints]
    given = [names.get(name, name) for name in joints]
    mistakes += [((*at, 'names'), f"the driver's name '{name}' stands for two joints")
                 for name in sorted({name for name in given if given.count(name) > 1})]
    return mistakes
