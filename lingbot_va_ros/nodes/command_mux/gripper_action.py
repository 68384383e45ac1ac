"""The client of a gripper's action, of either kind that gripper controllers offer."""


from rclpy.action import ActionClient
from rclpy.node import Node

from lingbot_va_ros.mux.gripper_goals import GripperGoals
from lingbot_va_ros.specs.embodiment import Controller

# As control_msgs calls them. GripperCommand: the Franka Hand, and ros2_controllers'
# gripper_controllers (until Jazzy). ParallelGripperCommand: parallel_gripper_controller (Jazzy and
# later; from Kilted on the only one of ros2_controllers).
KINDS = ('GripperCommand', 'ParallelGripperCommand')


def missing_interfaces() -> str | None:
    """Return in one line what has to be installed before a gripper's action can be used."""
    try:
        import control_msgs.action  # noqa: F401
    except ImportError as error:
        return (f'a gripper_action controller needs the package control_msgs ({error}): '
                'apt install ros-$ROS_DISTRO-control-msgs')
    return None


class GripperAction:
    """
    Send a gripper's goals to its action server, whichever of the two kinds that one has.

    The kind is what the server publishes its feedback as; until a server is there, no client is.
    All methods but those of `goals` are for the executor's thread.
    """

    def __init__(self, node: Node, controller: Controller, goals: GripperGoals):
        self.controller = controller
        self.goals = goals
        self.joint, = controller.joints
        self._node = node
        self._name = node.resolve_topic_name(controller.topic)
        self._kind = ''
        self._action = None
        self._client: ActionClient | None = None

    def fault(self) -> str:
        """Return in one line why no goal can be sent, or an empty text."""
        if self._ready():
            return ''
        kind, strange = self._offered()
        if kind and kind != self._kind:
            self._make_client(kind)
        if strange:
            return (f'action server {self._name} is {strange}; expected control_msgs/action/'
                    f'{" or ".join(KINDS)}')
        return f'action server {self._name} (none is there)'

    def send_what_is_due(self, now_s: float) -> None:
        """Send a goal where one is due and the server is there; a new goal replaces the last."""
        if not self._ready():
            return
        position = self.goals.due(now_s)
        if position is None:
            return
        goal = self._goal(position)
        self._client.send_goal_async(goal).add_done_callback(
            lambda answer: self._answered(position, answer))

    def _ready(self) -> bool:
        return self._client is not None and self._client.server_is_ready()

    def _offered(self) -> tuple:
        strange = ''
        for end in self._node.get_publishers_info_by_topic(f'{self._name}/_action/feedback'):
            name = end.topic_type.removesuffix('_FeedbackMessage')
            for kind in KINDS:
                if name == f'control_msgs/action/{kind}':
                    return kind, ''
            strange = name
        return '', strange

    def _make_client(self, kind: str) -> None:
        import control_msgs.action

        if self._client is not None:
            self._client.destroy()
        self._kind = kind
        self._action = getattr(control_msgs.action, kind)
        self._client = ActionClient(self._node, self._action, self._name)

    def _goal(self, position: float):
        goal = self._action.Goal()
        effort = self.controller.max_effort
        if self._kind == 'GripperCommand':
            goal.command.position = position
            goal.command.max_effort = 0.0 if effort is None else effort
        else:
            goal.command.name = [self.joint]
            goal.command.position = [position]
            goal.command.effort = [] if effort is None else [effort]
        return goal

    def _answered(self, position: float, answer) -> None:
        if answer.exception() is not None or not answer.result().accepted:
            self._node.get_logger().warning(
                f'{self._name} rejected the goal {position:.4g} for {self.joint}',
                throttle_duration_sec=1.0)
