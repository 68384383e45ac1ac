"""`check --live` for controllers without trajectories and joint states on several topics."""

from cli.check.test_graph_probe import check, errors, expect, graph, quick, ros  # noqa: F401
from nodes.command_mux.test_controller_kinds import mixed_file
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.nodes.qos import COMMAND, EVENTS


def test_rows_need_a_subscriber_of_their_type_and_joints_may_come_on_two_topics(
        graph, check, tmp_path):  # noqa: F811
    file = mixed_file(tmp_path)
    text = file.read_text().replace('/bus/', 'bus/').replace('/servo/states', 'servo/states')
    file.write_text(text)
    graph.camera('head')
    graph.camera('left_wrist')
    names = [*(f'left_joint_{index}' for index in (1, 2, 4, 5, 6)), 'left_gripper_joint']
    graph.joints(names=names)
    servo = graph.robot.create_publisher(JointState, 'servo/states', EVENTS)

    def publish():
        message = JointState(name=['servo_3', 'servo_9'], position=[1.8, 0.0])
        message.header.stamp = graph.stamp()
        servo.publish(message)

    graph.robot.create_timer(0.02, publish)
    mux = graph.mux()
    mux.create_publisher(Float64MultiArray, 'bus/positions', COMMAND)
    for kind, topic in (
            (Float64MultiArray, 'bus/positions'), (Float64MultiArray, 'servo/command'),
            (JointTrajectory, 'hand/joint_trajectory')):
        graph.robot.create_subscription(kind, topic, lambda message: None, EVENTS)
    code, found = check(graph.start().namespace, '--embodiment', str(file))
    assert code == 1
    expect(found, 'error', 'servo/command', 'robot subscribes to std_msgs/msg/Float64MultiArray',
           'expected sensor_msgs/msg/JointState')
    expect(found, 'error', 'velocities/commands', 'no controller subscribes')
    expect(found, 'warning', 'bus/positions', 'forward_position', 'holds the last position')
    expect(found, 'warning', 'velocities/commands', 'the last velocity goes on')
    assert {where for where, _ in errors(found)} <= {
        'servo/command', 'velocities/commands', 'command_mux'}, found
