"""The watch of controllers and of the driver's status: what is missing means HOLD by name."""

from dataclasses import replace

import pytest
import rclpy
from std_msgs.msg import Bool, Float32, Int32
from support.spinning import spinning_node
from support.waiting import wait_for
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.nodes.command_mux import controller_watch
from lingbot_va_ros.nodes.command_mux.controller_watch import (
    ControllerState,
    ControllerWatch,
    STATE_SECONDS,
    WATCH_SECONDS,
)
from lingbot_va_ros.nodes.qos import COMMAND, LATCHED, SENSOR
from lingbot_va_ros.nodes.run import CannotStart
from lingbot_va_ros.specs.embodiment import load_embodiment, StatusInput

ROBOT = load_embodiment('sim_left')
TOPIC = 'watched_controller/joint_trajectory'


class FaultsOnly:
    """Keeps what the watch tells the mux."""

    def __init__(self):
        self.faults = None

    def take_controller_faults(self, origin, faults):
        assert origin == 'controllers'
        self.faults = faults


@pytest.fixture
def world():
    with spinning_node('watched_mux') as node:
        yield node


def watch(node, *status):
    mux = FaultsOnly()
    publisher = node.create_publisher(JointTrajectory, TOPIC, COMMAND)
    ControllerWatch(
        node, replace(ROBOT, status_inputs=status), [publisher], mux)
    return mux


def test_a_controller_that_does_not_listen_is_named_until_it_does(world):
    mux = watch(world)
    assert mux.faults == (f'a controller on /{TOPIC} (none listens)',)
    controller = world.create_subscription(JointTrajectory, TOPIC, lambda _: None, COMMAND)
    wait_for(lambda: mux.faults == (), 'the controller to be seen')
    world.destroy_subscription(controller)
    wait_for(lambda: mux.faults, 'its loss')


def listening(node):
    node.create_subscription(JointTrajectory, TOPIC, lambda _: None, COMMAND)


def test_a_status_is_good_bad_or_unheard(world):
    listening(world)
    mux = watch(world, StatusInput('/program_running', 'std_msgs/msg/Bool', 'data', (True,)))
    wait_for(lambda: mux.faults == ('/program_running (never heard)',), 'the first look')
    driver = world.create_publisher(Bool, '/program_running', SENSOR)

    def say(value, expected):
        def heard():
            driver.publish(Bool(data=value))
            return mux.faults == expected
        wait_for(heard, f'{expected}')
    say(True, ())
    say(False, ('/program_running (data is False, expected True)',))
    say(True, ())


def test_a_latched_status_that_was_published_before_is_heard(world):
    listening(world)
    driver = world.create_publisher(Int32, '/safety_mode', LATCHED)
    driver.publish(Int32(data=3))
    mux = watch(
        world, StatusInput('/safety_mode', 'std_msgs/msg/Int32', 'data', (1, 2), 0.0, True))
    wait_for(lambda: mux.faults == ('/safety_mode (data is 3, expected 1 or 2)',), 'the mode')
    driver.publish(Int32(data=2))
    wait_for(lambda: mux.faults == (), 'the good mode')


def test_a_status_that_falls_silent_is_named(world):
    listening(world)
    driver = world.create_publisher(Bool, '/heartbeat', SENSOR)
    mux = watch(world, StatusInput('/heartbeat', 'std_msgs/msg/Bool', 'data', (True,), 0.4))

    def heard():
        driver.publish(Bool(data=True))
        return mux.faults == ()
    wait_for(heard, 'the heartbeat')
    wait_for(lambda: mux.faults == ('/heartbeat (silent for more than 0.4 s)',), 'its silence')


def test_a_status_of_another_type_is_named(world):
    listening(world)
    other = rclpy.Context()  # one participant has one type for a topic
    rclpy.init(context=other)
    driver = rclpy.create_node('driver', context=other)
    driver.create_publisher(Float32, '/robot_mode', SENSOR)
    mux = watch(world, StatusInput('/robot_mode', 'std_msgs/msg/Bool', 'data', (True,)))
    wait_for(lambda: mux.faults == (
        '/robot_mode (is std_msgs/msg/Float32, expected std_msgs/msg/Bool)',), 'the type')
    driver.destroy_node()
    rclpy.shutdown(context=other)


def test_a_status_whose_publisher_goes_or_comes_back_with_another_type_is_named(world):
    """A latched value of a driver that is gone says nothing about the arm."""
    listening(world)
    mux = watch(
        world, StatusInput('/ok', 'std_msgs/msg/Bool', 'data', (True,), 0.0, True))

    def driver(message_type, value):
        context = rclpy.Context()
        rclpy.init(context=context)
        node = rclpy.create_node('driver', context=context)
        node.create_publisher(message_type, '/ok', LATCHED).publish(message_type(data=value))
        return context, node

    def end(context, node):
        node.destroy_node()
        rclpy.shutdown(context=context)
    first = driver(Bool, True)
    wait_for(lambda: mux.faults == (), 'the good value')
    end(*first)
    wait_for(lambda: mux.faults == ('/ok (nobody publishes it any more)',), 'its end')
    second = driver(Float32, 1.0)
    wait_for(lambda: mux.faults == (
        '/ok (is std_msgs/msg/Float32, expected std_msgs/msg/Bool)',), 'the type')
    end(*second)
    third = driver(Bool, True)
    wait_for(lambda: mux.faults == (), 'the good value again')
    end(*third)


@pytest.mark.parametrize('message_type, field, part', [
    ('std_msgs/msg/Bool', 'value', "has no field 'value'"),
    ('std_msgs/msg/Wool', 'data', "has no message 'Wool'"),
    ('mars_msgs/msg/Mode', 'data', 'needs the package mars_msgs'),
])
def test_a_status_that_cannot_be_read_is_refused_at_start(world, message_type, field, part):
    with pytest.raises(CannotStart, match='status input /mode') as refused:
        watch(world, StatusInput('/mode', message_type, field, (True,)))
    assert part in str(refused.value) and '\n' not in str(refused.value)


@pytest.mark.parametrize('value, good, is_good', [
    (True, True, True), (1, True, False), (True, 1, False), (1, 1.0, True), (b'\x02', 2, True),
    ('ok', 'ok', True), ('OK', 'ok', False)])
def test_what_counts_as_the_same_value(value, good, is_good):
    from lingbot_va_ros.nodes.command_mux.controller_watch import _is_same
    assert _is_same(value, good) is is_good


class Subscribed:
    """Stands in for a node: keeps the callback of a subscription."""

    def create_subscription(self, kind, topic, callback, qos, raw):
        assert raw and topic == '/arm/controller_state'


def test_a_silent_controller_is_a_fault_but_not_where_the_mux_itself_stood_still(monkeypatch):
    """After a pause of the process the watch comes first, and then the states of the pause."""
    now = [100.0]
    monkeypatch.setattr(controller_watch.time, 'monotonic', lambda: now[0])
    state = ControllerState(Subscribed(), '/arm/joint_trajectory', None, None, {})
    assert state.fault() == ''  # never heard: not judged

    def hear():
        state._read = now[0]  # so that nothing is read
        state._on_state(b'')

    hear()
    now[0] += 2 * STATE_SECONDS
    assert state.fault() == ''
    hear()
    now[0] += WATCH_SECONDS
    assert state.fault() == ''
    now[0] += 2 * STATE_SECONDS
    assert state.fault() == ''
    now[0] += WATCH_SECONDS
    assert 'arm/controller_state is silent' in state.fault()
