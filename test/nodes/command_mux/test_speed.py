"""The speed scale over ROS: the service, the latched topic, and the driver's speed scaling."""

import subprocess
import sys

import pytest
from sensor_msgs.msg import JointState
from std_msgs.msg import Float32, Float64
from support.spinning import spinning_node
from support.waiting import wait_for

from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.nodes.qos import EVENTS, LATCHED
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.srv import SetControlMode, SetSpeed


@pytest.fixture
def node():
    with spinning_node('test_speed') as node:
        yield node


@pytest.fixture
def mux():
    processes = []

    def start(*parameters):
        arguments = [item for parameter in parameters for item in ('-p', parameter)]
        process = subprocess.Popen(
            [sys.executable, '-m', 'lingbot_va_ros.nodes.command_mux.node', '--ros-args',
             *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        processes.append(process)
        return process
    yield start
    for process in processes:
        process.terminate()
        process.wait(timeout=10)
        process.stdout.close()


def test_the_scale_in_force_is_the_least_and_is_latched(node, mux):
    mux('speed_scale:=0.5', 'speed_scaling_topic:=driver/speed_scaling')
    client = node.create_client(SetSpeed, 'command_mux/set_speed')
    driver = node.create_publisher(Float64, 'driver/speed_scaling', EVENTS)
    assert client.wait_for_service(timeout_sec=60.0)
    heard = []  # the subscriber comes late
    node.create_subscription(
        Float32, 'command_mux/speed_scale', lambda message: heard.append(message.data), LATCHED)

    def set_speed(scale):
        future = client.call_async(SetSpeed.Request(scale=scale))
        wait_for(future.done, 'an answer of set_speed')
        return future.result()

    wait_for(lambda: heard == [0.5], 'the scale of the parameter')
    assert set_speed(0.75).success
    wait_for(lambda: heard[-1] == 0.75, 'the scale of the operator')
    for wrong in (0.0, 2.0, float('nan'), -1.0):
        answer = set_speed(wrong)
        assert not answer.success and 'expected a number above 0 and at most 1' in answer.message
        assert '\n' not in answer.message
    wait_for(lambda: driver.get_subscription_count(), 'the subscription')

    def scale_of(value):
        driver.publish(Float64(data=value))
        return heard[-1]
    wait_for(lambda: scale_of(25.0) == 0.25, "the driver's scale")
    for wrong in (float('nan'), 300.0, -5.0):
        scale_of(wrong)
    assert set_speed(0.5).message == 'the speed scale is 0.25, which the driver asks for'
    wait_for(lambda: scale_of(100.0) == 0.5, "the operator's scale again")
    assert heard.count(0.25) == 1


def test_a_driver_that_sends_another_type_is_named(node, mux):
    mux('speed_scaling_topic:=driver/speed_scaling', 'embodiment:=sim_left')
    client = node.create_client(SetControlMode, 'command_mux/set_mode')
    states = node.create_publisher(JointState, 'joint_states', EVENTS)
    driver = node.create_publisher(Float32, 'driver/speed_scaling', EVENTS)
    joints = load_embodiment('sim_left')

    def publish():
        message = JointState(name=list(joints.joints), position=list(joints.home))
        message.header.stamp = node.get_clock().now().to_msg()
        states.publish(message)
        driver.publish(Float32(data=100.0))
    node.create_timer(0.02, publish)
    assert client.wait_for_service(timeout_sec=60.0)

    def answer():
        future = client.call_async(SetControlMode.Request(mode=ControlMode.POLICY))
        wait_for(future.done, 'an answer of set_mode')
        return future.result().message
    wait_for(lambda: "the driver's speed scaling (driver/speed_scaling is std_msgs/msg/Float32, "
             'expected std_msgs/msg/Float64)' in answer(), 'the type')


def test_a_wrong_scale_ends_the_start_in_one_line(mux):
    process = mux('speed_scale:=2.0')
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and 'parameter speed_scale is 2' in output
    assert 'Traceback' not in output
