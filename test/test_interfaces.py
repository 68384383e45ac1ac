"""The generated interfaces have the documented fields, types and constants."""

from pathlib import Path
import re

import pytest

from lingbot_va_ros import action, msg, srv

CHECKOUT = Path(__file__).resolve().parents[1]

HEADER = ('header', 'std_msgs/Header')
OUTCOME = [('success', 'boolean'), ('message', 'string')]
INTERFACES = {
    msg.ActionChunk: [
        HEADER, ('epoch', 'uint64'), ('chunk_id', 'uint64'),
        ('observation_stamp', 'builtin_interfaces/Time'),
        ('trajectory', 'trajectory_msgs/JointTrajectory'),
        ('inference_seconds', 'float'), ('grounded', 'boolean')],
    msg.PolicyStatus: [
        HEADER, ('mode', 'uint8'), ('reason', 'string'), ('instruction', 'string'),
        ('epoch', 'uint64'), ('chunk_id', 'uint64'), ('memory_frames', 'uint32'),
        ('memory_capacity', 'uint32'), ('inference_seconds', 'float'),
        ('inference_seconds_p95', 'float'), ('chunk_seconds', 'float'),
        ('starved_ticks', 'uint64')],
    msg.ControlMode: [HEADER, ('mode', 'uint8'), ('reason', 'string')],
    srv.ResetMemory.Request: [('instruction', 'string')],
    srv.ResetMemory.Response: [
        *OUTCOME, ('forgotten_frames', 'uint32'), ('epoch', 'uint64'),
        ('stamp', 'builtin_interfaces/Time')],
    srv.SetInstruction.Request: [('instruction', 'string')],
    srv.SetInstruction.Response: OUTCOME,
    srv.SetSpeed.Request: [('scale', 'float')],
    srv.SetSpeed.Response: OUTCOME,
    srv.SaveMemory.Request: [('name', 'string')],
    srv.SaveMemory.Response: [*OUTCOME, ('frames', 'uint32')],
    srv.LoadMemory.Request: [('name', 'string')],
    srv.LoadMemory.Response: [*OUTCOME, ('frames', 'uint32'), ('epoch', 'uint64')],
    srv.SetControlMode.Request: [('mode', 'uint8')],
    srv.SetControlMode.Response: OUTCOME,
    action.RunTask.Goal: [
        ('instruction', 'string'), ('keep_memory', 'boolean'), ('timeout_seconds', 'float'),
        ('max_chunks', 'uint32')],
    action.RunTask.Result: [
        ('outcome', 'uint8'), ('message', 'string'), ('chunks', 'uint64'), ('seconds', 'float')],
    action.RunTask.Feedback: [
        ('chunks', 'uint64'), ('seconds', 'float'), ('memory_frames', 'uint32')],
}
CONTROL_MODES = ['HOLD', 'TELEOP', 'POLICY', 'STOPPED']
CONSTANTS = {
    msg.PolicyStatus: ['IDLE', 'LOADING', 'WAITING', 'RUNNING', 'HOLDING', 'FAULT'],
    msg.ControlMode: CONTROL_MODES,
    srv.SetControlMode.Request: CONTROL_MODES,
    action.RunTask.Result: [
        'TIMEOUT', 'CHUNK_LIMIT', 'CANCELED', 'STOPPED', 'FAULT', 'PREEMPTED'],
}


def name_of(interface):
    """Return the name that pytest shows for a case."""
    return interface.__name__


@pytest.mark.parametrize('interface', INTERFACES, ids=name_of)
def test_fields_and_types(interface):
    assert list(interface.get_fields_and_field_types().items()) == INTERFACES[interface]


@pytest.mark.parametrize('interface', CONSTANTS, ids=name_of)
def test_constants_are_numbered_from_zero(interface):
    numbers = {name: getattr(interface, name) for name in CONSTANTS[interface]}
    assert numbers == {name: number for number, name in enumerate(CONSTANTS[interface])}


@pytest.mark.parametrize(
    'file', sorted(path for folder in ('msg', 'srv', 'action')
                   for path in (CHECKOUT / folder).iterdir()), ids=lambda path: path.name)
def test_every_field_and_constant_is_explained(file):
    lines = file.read_text().splitlines()
    declarations = [number for number, line in enumerate(lines) if re.match(r'[a-z]', line)]
    assert declarations
    unexplained = [lines[number] for number in declarations
                   if number == 0 or not lines[number - 1].startswith('#')]
    assert unexplained == []


def test_no_interface_file_is_left_out_of_the_table():
    generated = {interface.__name__.split('_')[0] for interface in INTERFACES}
    written = {path.stem for folder in ('msg', 'srv', 'action')
               for path in (CHECKOUT / folder).iterdir()}
    assert generated == written
