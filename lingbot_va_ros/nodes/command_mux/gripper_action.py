"""Grippers that are driven by an action, of either kind that gripper controllers offer."""

from typing import Any

from rclpy.action import ActionClient
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future

from lingbot_va_ros.mux.gripper_goals import GripperGoals
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.report import Tick
from lingbot_va_ros.nodes.command_mux.clocks import Clocks
from lingbot_va_ros.nodes.run import CannotStart
from lingbot_va_ros.specs.controllers import Controller
from lingbot_va_ros.specs.embodiment import Embodiment

# The names of control_msgs. GripperCommand: the Franka Hand, and ros2_controllers'
# gripper_controllers (until Jazzy). ParallelGripperCommand: parallel_gripper_controller (Jazzy and
# later; from Kilted on the only one of ros2_controllers).
KINDS = ('GripperCommand', 'ParallelGripperCommand')
# How often goals are sent and the action servers are looked for, s.
WATCH_SECONDS = 0.02


class GripperActions:
    """
    All grippers of an embodiment that are driven by an action, and a watch of their servers.

    :param threshold: a goal is sent when the command has moved further than this from the last
        one, as a share of the way from open to closed.
    :param goal_period: least seconds between two goals of one gripper.
    :raises CannotStart: the package control_msgs is missing.
    """

    def __init__(
        self, node: Node, embodiment: Embodiment, threshold: float, goal_period: float,
    ) -> None:
        self._grippers: list[tuple[int, GripperAction]] = []  # with columns of the joints
        self._was_moving = False
        controllers = [c for c in embodiment.controllers if c.kind == 'gripper_action']
        missing = missing_interfaces() if controllers else None
        if missing:
            raise CannotStart(f"embodiment '{embodiment.name}': {missing}")
        strokes = {
            arm.gripper.joint: abs(arm.gripper.open - arm.gripper.closed)
            for arm in embodiment.arms if arm.gripper}
        limits = embodiment.limits
        for controller in controllers:
            joint, = controller.joints
            column = embodiment.joints.index(joint)
            stroke = strokes.get(joint, float(limits.upper[column] - limits.lower[column]))
            self._grippers.append((column, GripperAction(
                node, controller, GripperGoals(threshold * stroke, goal_period))))

    def watch(self, node: Node, mux: Mux, clocks: Clocks) -> None:
        """Tell the mux at once and from now on which servers are missing, and send due goals."""
        def update() -> None:
            faults = (gripper.fault() for _, gripper in self._grippers)
            mux.take_controller_faults('grippers', tuple(filter(None, faults)))
            for _, gripper in self._grippers:
                gripper.send_due_goal(clocks.now_s())

        update()
        if self._grippers:
            node.create_timer(
                WATCH_SECONDS, update, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def command(self, tick: Tick) -> None:
        """Take the command of a tick; a stop sends no goal. For the thread of the ticks."""
        for column, gripper in self._grippers:
            if tick.command is None or not tick.moves:
                gripper.goals.rest()
                continue
            if not self._was_moving:
                gripper.goals.begin(float(tick.command.positions[0][column]))
            gripper.goals.want(float(tick.command.positions[1][column]))
        self._was_moving = tick.moves


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
    Sends one gripper's goals to its action server, of either kind.

    The type of the server's feedback tells the kind; the client is made when the server is there.
    All methods but those of `goals` are for the executor's thread.
    """

    def __init__(self, node: Node, controller: Controller, goals: GripperGoals) -> None:
        self.goals = goals
        self._controller = controller
        self._joint, = controller.joints
        self._node = node
        self._name = node.resolve_topic_name(controller.topic)
        self._kind = ''
        self._client: ActionClient | None = None

    def fault(self) -> str:
        """Return in one line why no goal can be sent, or an empty text."""
        if self._ready_client() is not None:
            return ''
        kind, unknown = self._offered_kind()
        if kind and kind != self._kind:
            self._make_client(kind)
        if unknown:
            return (f'action server {self._name} is {unknown}; expected control_msgs/action/'
                    f'{" or ".join(KINDS)}')
        return f'action server {self._name} (none is there)'

    def send_due_goal(self, now_s: float) -> None:
        """Send a goal where one is due and the server is there; it replaces the last one."""
        client = self._ready_client()
        position = None if client is None else self.goals.due(now_s)
        if client is None or position is None:
            return
        sent = client.send_goal_async(self._goal(position))
        sent.add_done_callback(lambda answer: self._on_answer(position, answer))

    def _ready_client(self) -> ActionClient | None:
        if self._client is not None and self._client.server_is_ready():
            return self._client
        return None

    def _offered_kind(self) -> tuple[str, str]:
        """Return the kind that a server offers, or else the name of an unknown one."""
        unknown = ''
        for end in self._node.get_publishers_info_by_topic(f'{self._name}/_action/feedback'):
            name = end.topic_type.removesuffix('_FeedbackMessage')
            for kind in KINDS:
                if name == f'control_msgs/action/{kind}':
                    return kind, ''
            unknown = name
        return '', unknown

    def _make_client(self, kind: str) -> None:
        if self._client is not None:
            self._client.destroy()
        self._kind = kind
        self._client = ActionClient(self._node, _action(kind), self._name)

    def _goal(self, position: float) -> Any:
        goal = _action(self._kind).Goal()
        effort = self._controller.max_effort
        if self._kind == 'GripperCommand':
            goal.command.position = position
            goal.command.max_effort = 0.0 if effort is None else effort
        else:
            goal.command.name = [self._joint]
            goal.command.position = [position]
            goal.command.effort = [] if effort is None else [effort]
        return goal

    def _on_answer(self, position: float, answer: Future) -> None:
        if answer.exception() is not None or not answer.result().accepted:
            self._node.get_logger().warning(
                f'{self._name} rejected the goal {position:.4g} for {self._joint}',
                throttle_duration_sec=1.0)


def _action(kind: str) -> Any:
    # Imported where an embodiment asks for it: control_msgs is not always installed.
    import control_msgs.action

    return getattr(control_msgs.action, kind)
