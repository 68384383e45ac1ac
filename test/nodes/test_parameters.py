"""A parameter of a wrong type or value is rejected in one line that names it, in every node."""

from dataclasses import replace
import re
import subprocess
import sys

import pytest
import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter

from lingbot_va_ros.nodes.command_mux import parameters as command_mux
from lingbot_va_ros.nodes.command_mux.node import CommandMux
from lingbot_va_ros.nodes.command_mux.teleop_parameters import (
    declare_deadman_modes,
    declare_joystick,
    JOY_PARAMETERS,
)
from lingbot_va_ros.nodes.parameters import declare_parameters, NodeParameter, WrongParameter
from lingbot_va_ros.nodes.policy import parameters as policy
from lingbot_va_ros.nodes.policy.node import PolicyNode
from lingbot_va_ros.nodes.run import CannotStart, run_node
from lingbot_va_ros.nodes.sim_robot import parameters as sim_robot
from lingbot_va_ros.nodes.sim_robot.node import SimRobot
from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.policy_file import load_policy_file

TABLES = {'policy': policy.PARAMETERS, 'command_mux': command_mux.PARAMETERS,
          'joy': JOY_PARAMETERS[::4], 'sim_robot': sim_robot.PARAMETERS}
ROWS = {f'{name}-{row.name}': row for name, table in TABLES.items() for row in table}
WRONG = {
    bool: [1, 0.5, 'yes', [True]],
    int: [True, 0.5, 'ten', [1, 2]],
    float: [True, 'fast', [0.5], float('nan')],
    str: [False, 5, 0.5, ['a']],
}


@pytest.fixture(scope='module')
def ros():
    context = rclpy.Context()
    rclpy.init(context=context)
    # The first node of a context makes the DDS participant, and the last one ends it: with one
    # that stays, the hundreds of the tests are made at once.
    node = Node('stays', context=context)
    yield context
    node.destroy_node()
    rclpy.shutdown(context=context)


def declared(ros, table, read_only=False, **overrides):
    """Declare a table in a node with these overrides; returns values, descriptors and the node."""
    node = Node('bare', context=ros, parameter_overrides=[
        Parameter(name, value=value) for name, value in overrides.items()])
    try:
        return declare_parameters(node, table, read_only), {
            row.name: node.describe_parameter(row.name) for row in table}
    finally:
        node.destroy_node()


@pytest.mark.parametrize('row', ROWS.values(), ids=ROWS)
def test_a_wrongly_typed_override_is_named_with_value_and_expected_type(ros, row):
    kind = type(row.default)
    expected = {bool: 'true or false', int: 'an integer', float: 'a number', str: 'a string'}
    for value in WRONG[kind]:
        if value != value and row.least is None:
            continue
        with pytest.raises(WrongParameter) as refused:
            declared(ros, [row], **{row.name: value})
        line = str(refused.value)
        assert line.startswith(f'parameter {row.name} is '), line
        assert '\n' not in line
        assert value != value or f'; expected {expected[kind]}' in line, line


@pytest.mark.parametrize('row', [
    pytest.param(row, id=name) for name, row in ROWS.items() if row.least is not None])
def test_a_number_outside_its_range_is_refused_whatever_its_type(ros, row):
    kind = type(row.default)
    for value in (row.least - 1, row.greatest + 1):
        values = {kind(value)} | ({int(value)} if value == int(value) else set())
        for each in values:
            with pytest.raises(WrongParameter, match=f'{row.name} is .*; expected .* … '):
                declared(ros, [row], **{row.name: each})


@pytest.mark.parametrize('row', ROWS.values(), ids=ROWS)
def test_a_default_is_accepted_and_described(ros, row):
    values, described = declared(ros, [row])
    assert values == {row.name: row.default} and type(values[row.name]) is type(row.default)
    descriptor = described[row.name]
    assert descriptor.description and descriptor.read_only == row.read_only
    assert not row.fault(row.default)
    ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
    assert [(limit.from_value, limit.to_value) for limit in ranges] == (
        [] if row.least is None else [(row.least, row.greatest)])


def test_an_integer_stands_for_a_number_and_comes_as_float(ros):
    rate = NodeParameter('rate', 50.0, 'Hz.', 1.0, 1000.0)
    values, _ = declared(ros, [rate], rate=20)
    assert values == {'rate': 20.0} and isinstance(values['rate'], float)


def test_choices_are_listed(ros):
    row = NodeParameter('mode', 'slow', 'How fast.', choices=('slow', 'fast'))
    with pytest.raises(WrongParameter, match="mode is 'no'; expected one of slow, fast$"):
        declared(ros, [row], mode='no')
    assert declared(ros, [row], mode='fast')[1]['mode'].additional_constraints == (
        'One of slow, fast.')


def test_one_open_end_is_a_range_too():
    row = NodeParameter('count', 1, 'How many.', least=1)
    assert row.fault(0) == 'parameter count is 0; expected at least 1'
    assert not row.fault(10**9)
    assert replace(row, least=None, greatest=5).fault(6) == (
        'parameter count is 6; expected at most 5')


def test_a_whole_table_can_be_read_only(ros):
    row = NodeParameter('count', 1, 'How many.')
    assert not declared(ros, [row])[1]['count'].read_only
    assert declared(ros, [row], read_only=True)[1]['count'].read_only


def assert_one_line(said, expected):
    """Assert that a node has said in one line why it cannot start."""
    # Kilted's Fast DDS adds a line of its own about the variable that Jazzy's reads, and rcl one
    # about arguments that it cannot parse.
    lines = [line for line in said.strip().splitlines()
             if 'PROFILES_FILE' not in line and '[rcl]' not in line]
    assert len(lines) == 1 and lines[0].startswith('cannot start: '), said
    assert re.search(expected, lines[0])


@pytest.mark.parametrize('module, parameter, expected', [
    ('policy.node', 'instruction:=no', r'parameter instruction is false \(a boolean\); expected a '
     r"""string; quote it for YAML: -p 'instruction:="..."'"""),
    ('command_mux.node', 'embodiment:=7', r'embodiment is 7 \(an integer\); expected a string'),
    ('sim_robot.node', 'task:=off', r'parameter task is false \(a boolean\); expected a string'),
])
def test_a_process_prints_one_line_and_ends_with_1(module, parameter, expected):
    done = subprocess.run(
        [sys.executable, '-m', f'lingbot_va_ros.nodes.{module}', '--ros-args', '-p', parameter],
        capture_output=True, text=True, timeout=50)
    assert done.returncode == 1, done.stderr
    assert_one_line(done.stderr, expected)
    assert not done.stdout


@pytest.mark.parametrize('node, parameter, expected', [
    (PolicyNode, 'schedule:=sometimes', "parameter schedule is 'sometimes'; expected one of s"),
    (PolicyNode, 'seed:=[1, a]', r"Couldn't parse parameter override rule: '-p seed:=\[1, a\]'"),
    *((node, 'use_sim_time:=5', "'use_sim_time' to '5' of type 'INTEGER', expecting type 'BOOL'")
      for node in (PolicyNode, CommandMux, SimRobot)),
    (CommandMux, 'embodiment:=nowhere',
     "no embodiment is called 'nowhere'; expected one of .*sim_left"),
    (CommandMux, 'command_rate:=5', 'parameter command_rate is 5; expected 10 … 1000'),
    (CommandMux, 'source_timeout:=fast', r"parameter source_timeout is 'fast' \(a string\); exp"),
    (CommandMux, 'command_rate:=.nan', 'parameter command_rate is nan; expected 10 … 1000'),
    (CommandMux, 'teleop_joint_map.left_joint_1.joint:=off',
     r'left_joint_1.joint is false \(a boolean\)'),
    (CommandMux, 'source_timeout:=0.03',
     'source_timeout is 0.03 s; expected at least 5 command periods'),
    (CommandMux, 'teleop_joint_map.left_joint_9.joint:=a',
     'teleop_joint_map.left_joint_9.joint: expected teleop_joint_map.<joint>.<key> with a joint '
     r'of embodiment .sim_left. \(left_joint_1'),
    (CommandMux, 'teleop_joint_map.left_joint_1.sign:=0', 'left_joint_1.sign is 0; expected 1 or'),
])
def test_a_node_that_cannot_start_says_why_in_one_line(
        own_signals, node, parameter, expected, capfd):
    assert run_node(node, ['--ros-args', '-p', parameter]) == 1
    said = capfd.readouterr()
    assert_one_line(said.err, expected)
    assert not said.out


@pytest.mark.parametrize('name, value, line', [
    ('max_camera_age', 1000, 'parameter max_camera_age is 1000; expected 0.001 … 60'),
    ('max_camera_skew', 'wide', "max_camera_skew is 'wide' (a string); expected a number"),
    ('padded_latency', True, 'padded_latency is true (a boolean); expected a number'),
    ('guidance_scale', float('nan'), 'guidance_scale is nan; expected -1 … 100'),
    ('max_camera_age', 10 ** 15, 'max_camera_age is 1000000000000000; expected 0.001 … 60'),
    ('max_camera_age', -5, 'max_camera_age is -5; expected 0.001 … 60'),
    ('max_joint_age', float('inf'), 'max_joint_age is inf; expected 0.001 … 60'),
    ('max_joint_age', None, 'max_joint_age is None (not set); expected a number'),
    ('padded_latency', -1, 'padded_latency is -1; expected 0 … 3600'),
    ('video_steps', -1, 'video_steps is -1; expected 0 … 1000'),
    ('video_steps', 10 ** 9, 'video_steps is 1000000000; expected 0 … 1000'),
    ('video_steps', 2.0, 'video_steps is 2 (a floating-point number); expected an integer'),
    ('video_exec_steps', -2, 'video_exec_steps is -2; expected -1 … 1001'),
    ('imagine_steps', 0, 'imagine_steps is 0; expected 1 … 1000'),
])
def test_a_running_policy_refuses_a_number_of_another_type_or_range(name, value, line):
    refusal, = policy.refusals([Parameter(name, value=value)], True)
    assert line in refusal
    assert policy.refusals([Parameter(name, value=1)], True) == []


def test_zero_steps_stand_for_the_policy_file():
    assert policy.refusals([Parameter('video_steps', value=0)], True) == []
    file = load_policy_file(shared_file('config', 'policies', 'tiny.yaml'))
    values = {row.name: row.default for row in policy.PARAMETERS}
    assert policy.sampling(file, values) == (file.video, file.action)
    video, action = policy.sampling(file, {**values, 'video_steps': 7, 'action_steps': 9})
    assert (video.steps, action.steps) == (7, 9)


def test_a_memory_has_as_many_chunks_as_a_policy_file_may_ask_for():
    file = load_policy_file(shared_file('config', 'policies', 'tiny.yaml'))
    assert policy.memory_chunks(file, 0) == file.memory_chunks
    assert policy.memory_chunks(file, 20_000) == 10_000
    with pytest.raises(ValueError, match='memory_frames is 20002, 10001 chunks; expected at most'):
        policy.memory_chunks(file, 20_002)


@pytest.mark.parametrize('value, modes', [
    (['teleop', 'policy'], ('teleop', 'policy')), ('policy', ('policy',)),
    ('TELEOP, policy', ('teleop', 'policy')), (None, ('teleop',))])
def test_the_modes_of_the_dead_man_button_are_a_list_or_a_text(ros, value, modes):
    assert with_overrides(
        ros, declare_deadman_modes, {} if value is None else {'deadman_modes': value}) == modes


@pytest.mark.parametrize('value', [['hold'], 'fast', 5, True, [1, 2], ['teleop', 'stopped']])
def test_other_modes_of_the_dead_man_button_are_refused(ros, value):
    with pytest.raises(WrongParameter, match='expected a list of teleop and policy'):
        with_overrides(ros, declare_deadman_modes, {'deadman_modes': value})


@pytest.mark.parametrize('overrides, line', [
    ({'joy_axes.linear': 1}, 'joy_axes.linear does not exist'),
    ({'joy_buttons.home': 1}, 'joy_buttons.home does not exist'),
    ({'joy_axes.linear_x': 2, 'joy_axes.linear_y': 2}, 'axis 2 of joy is bound twice'),
    ({'joy_buttons.clutch': 0, 'joy_buttons.gripper': 0}, 'button 0 of joy is bound twice')])
def test_wrong_bindings_of_a_joystick_are_refused(ros, overrides, line):
    with pytest.raises(CannotStart, match=line):
        with_overrides(ros, declare_joystick, overrides)


def with_overrides(ros, declare, overrides):
    """Return what a function declares in a node with these overrides."""
    node = Node('bare', context=ros, parameter_overrides=[
        Parameter(name, value=value) for name, value in overrides.items()])
    try:
        return declare(node)
    finally:
        node.destroy_node()
