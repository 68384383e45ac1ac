"""Two simulated arms that a leader drives into each other over ROS, with MuJoCo as judge."""

from contextlib import ExitStack

from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
import pytest
from sensor_msgs.msg import JointState
from support.dual_arms import HOME, JOINTS, Judge, plan_message, STOP, TURN
from support.node_processes import node_process
from support.services import Services
from support.spinning import spinning_node
from support.waiting import wait_for
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from visualization_msgs.msg import MarkerArray

from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.nodes.command_mux.proximity import FAR, marker_array, SLOW, STOPPED
from lingbot_va_ros.nodes.qos import COMMAND, EVENTS, EXECUTED, SENSOR
from lingbot_va_ros.robot.collision import Near
from lingbot_va_ros.specs.collision import Collision
from lingbot_va_ros.srv import SetControlMode

LEADER_SPEED, LEADER_PERIOD = 1.0, 0.02  # rad/s, s
# Servos of the simulated arms are not where their commands are, m.
SERVO_ERROR = 0.01


class Person:
    """A leader arm that goes to `goal`, and ears on what mux and robot say."""

    def __init__(self, node):
        self._node = node
        self.goal, self._leader = HOME.copy(), HOME.copy()
        self.executed, self.measured, self.markers, self.values = [], [], [], {}
        self._publisher = node.create_publisher(JointState, 'teleop/joint_states', SENSOR)
        self.plans = node.create_publisher(JointTrajectory, 'policy/joint_trajectory', COMMAND)
        node.create_subscription(JointTrajectory, 'executed', lambda message: (
            self.executed.append(np.array(message.points[0].positions))), EXECUTED)
        node.create_subscription(JointState, 'joint_states', self._on_state, SENSOR)
        node.create_subscription(
            MarkerArray, 'command_mux/collision_markers', self.markers.append, EVENTS)
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, EVENTS)
        node.create_timer(LEADER_PERIOD, self._lead)

    def _on_state(self, message):
        places = dict(zip(message.name, message.position))
        self.measured.append(np.array([places[name] for name in JOINTS]))

    def _on_diagnostics(self, message):
        status = message.status[0]
        if status.name == 'command_mux: mode':
            self.values = {item.key: item.value for item in status.values}

    def _lead(self):
        way = LEADER_SPEED * LEADER_PERIOD
        self._leader = self._leader + np.clip(self.goal - self._leader, -way, way)
        message = JointState(name=list(JOINTS), position=self._leader.tolist())
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def send_plan(self, goal):
        plan = plan_message(0, HOME, goal, 2.0)
        message = JointTrajectory(joint_names=list(JOINTS))
        message.header.stamp = self._node.get_clock().now().to_msg()
        for point in plan.points:
            after = Duration(sec=point.time_from_start_ns // 10 ** 9,
                             nanosec=point.time_from_start_ns % 10 ** 9)
            message.points.append(JointTrajectoryPoint(
                positions=point.positions, velocities=point.velocities, time_from_start=after))
        self.plans.publish(message)


def nearest(judge, rows, every=1):
    return min(judge.nearest(q)[0] for q in rows[::every])


def test_arms_that_meet_are_kept_apart_over_ros_and_part_again(tmp_path):
    judge = Judge()
    with ExitStack() as stack:
        stack.enter_context(node_process(
            'sim_robot', tmp_path / 'robot.log', '-p', 'arms:=both',
            '-p', 'camera_rate:=0.5', '-p', 'camera_width:=32', '-p', 'camera_height:=32'))
        stack.enter_context(node_process(
            'command_mux', tmp_path / 'mux.log', '-p', 'embodiment:=sim_dual',
            '-p', 'teleop_approach_speed:=1.0', '-p', 'source_timeout:=2.0',
            '-p', 'joint_state_timeout:=2.0'))
        node = stack.enter_context(spinning_node('person'))
        person, services = Person(node), Services(node)
        wait_for(lambda: person.measured and person.values, 'joint states and diagnostics')
        wait_for(lambda: person.values.get('nearest_pair'), 'the nearest pair')
        assert float(person.values['nearest_distance_m']) == pytest.approx(
            nearest(judge, person.measured[-1:]), abs=0.02)

        def refused():
            person.send_plan(HOME + TURN)
            return int(person.values.get('rejected_collision', 0)) > 0
        wait_for(refused, 'the rejection of a plan that would collide')
        assert 'left_' in person.values['last_rejection']
        assert 'right_' in person.values['last_rejection']

        def chosen():
            return services.call(SetControlMode, 'command_mux/set_mode', SetControlMode.Request(
                mode=ControlMode.TELEOP)).success
        wait_for(chosen, 'TELEOP')
        person.goal = HOME + TURN
        wait_for(lambda: person.values['collision'].startswith('kept apart'),
                 'arms that are kept apart')
        wait_for(lambda: person.markers and person.markers[-1].markers[0].points, 'markers')
        marker = person.markers[-1].markers[0]
        assert marker.header.frame_id == 'world' and len(marker.points) % 2 == 0
        assert nearest(judge, person.executed, 2) >= STOP - 0.002
        assert nearest(judge, person.measured, 2) >= STOP - SERVO_ERROR
        assert person.values['mode'] == 'TELEOP', person.values['reason']
        person.goal = HOME.copy()
        wait_for(lambda: np.abs(person.measured[-1] - HOME).max() < 0.02, 'arms at home again')
        services.close()


def test_markers_are_lines_colored_by_distance():
    spec = Collision(stop_distance=0.02, slow_distance=0.1)
    pairs = [Near(('a', 'b'), distance, np.array([[0.0, 0, 0], [distance, 0, 0]]))
             for distance in (0.01, 0.05, 0.3)]

    def colors(pairs):
        marker, = marker_array(10 ** 9, 'world', pairs, spec).markers
        assert len(marker.points) == len(marker.colors)
        return [tuple(round(part, 3) for part in (each.r, each.g, each.b))
                for each in marker.colors[::2]]
    assert colors(pairs) == [STOPPED, SLOW]
    assert colors(pairs[2:]) == [FAR]
