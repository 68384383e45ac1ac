"""The parameters of a joint_trajectory_controller: what each of them means to command_mux."""

import pytest

from lingbot_va_ros.cli.check.controllers import judge_parameters, MuxFigures, tolerance_findings
from lingbot_va_ros.specs.controllers import Controller

JOINTS = ('rail', 'elbow', 'grip')
CONTROLLER = Controller('arm_controller/joint_trajectory', JOINTS, 'trajectory')
GOOD = {
    'joints': list(JOINTS), 'interpolate_from_desired_state': True, 'open_loop_control': False,
    'command_interfaces': ['position'], 'state_interfaces': ['position', 'velocity'],
    'allow_nonzero_velocity_at_trajectory_end': False, 'update_rate': 500}
MUX = MuxFigures({'rail': 0.02, 'elbow': 0.35, 'grip': float('inf')}, 100.0)


@pytest.mark.parametrize('changes, severity, piece', [
    ({}, None, ''),
    ({'interpolate_from_desired_state': False}, 'warning', 'with a jerk; expected true'),
    ({'interpolate_from_desired_state': None}, 'warning', 'open_loop_control is not true'),
    ({'interpolate_from_desired_state': None, 'open_loop_control': True}, None, ''),
    ({'open_loop_control': True}, 'warning', 'deprecated'),
    ({'command_interfaces': ['effort']}, 'warning', 'without position'),
    ({'state_interfaces': ['velocity']}, 'error', 'expected position among them'),
    ({'allow_nonzero_velocity_at_trajectory_end': True}, 'warning', 'expected false'),
    ({'allow_trajectory_replacement': True}, 'error', 'instead of at its stamp'),
    ({'allow_trajectory_replacement': False}, None, ''),
    ({'joints': None}, None, ''),
    ({'joints': ['rail', 'elbow']}, 'error', 'lack grip'),
    ({'update_rate': 100}, None, ''),
    ({'update_rate': 99}, 'warning', 'its update_rate is 99 Hz'),
    ({'update_rate': None}, None, ''),
    ({'constraints.rail.trajectory': 0.021, 'constraints.elbow.goal': 0.36}, None, ''),
    ({'constraints.elbow.goal': 0.35}, 'error', 'constraints.elbow.goal is 0.35, but')])
def test_parameters_of_a_controller_are_judged(changes, severity, piece):
    values = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    found = judge_parameters('/controller', values, CONTROLLER, MUX)
    assert [each.severity for each in found] == ([severity] if severity else [])
    assert all(piece in each.message for each in found)


@pytest.mark.parametrize('given, lines', [
    ({'rail.trajectory': 0.0, 'elbow.trajectory': 0.0, 'elbow.goal': 0.0}, []),
    ({'rail.trajectory': 0.1, 'elbow.trajectory': 0.36, 'elbow.goal': 0.0}, []),
    ({'rail.trajectory': 0.02}, ['constraints.rail.trajectory is 0.02']),
    ({'elbow.trajectory': 0.2, 'elbow.goal': 0.1, 'rail.goal': 0.01},
     ['constraints.elbow.goal is 0.1', 'constraints.rail.goal is 0.01']),
    ({'grip.trajectory': 0.005}, ['constraints.grip.trajectory is 0.005: a gripper']),
    ({'grip.goal': 0.005}, []),
    ({'elbow.trajectory': 'wide', 'rail.goal': float('nan'), 'elbow.goal': -1.0}, [])])
def test_the_smallest_tolerance_that_is_not_zero_counts(given, lines):
    values = {f'constraints.{name}': value for name, value in given.items()}
    found = tolerance_findings('/controller', values, MUX.following_errors)
    assert len(found) == len(lines)
    for line in lines:
        assert any(each.message.startswith(line) for each in found), found


def test_joints_with_the_same_figures_are_one_line():
    ours = {f'joint_{number}': 0.35 for number in range(1, 7)}
    values = {f'constraints.{joint}.trajectory': 0.2 for joint in ours}
    line, = tolerance_findings('/controller', values, ours)
    assert line.severity == 'error'
    assert 'constraints.<joint>.trajectory is 0.2' in line.message
    assert ', '.join(ours) in line.message
    assert 'max_following_error below 0.2' in line.message
