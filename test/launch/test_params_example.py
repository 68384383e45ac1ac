"""The example parameter file has declared parameters with their defaults only."""

from pathlib import Path

import pytest
import yaml

from lingbot_va_ros.nodes.command_mux import parameters as command_mux
from lingbot_va_ros.nodes.command_mux.teleop_parameters import DEADMAN_MODES, JOY_PARAMETERS
from lingbot_va_ros.nodes.policy import parameters as policy_parameters
from lingbot_va_ros.nodes.sim_robot import parameters as sim_robot

PARAMS = Path(__file__).resolve().parents[2] / 'config' / 'params'
EXAMPLE = PARAMS / 'policy.yaml'
DEVICES = sorted((PARAMS / 'teleop').glob('*.yaml'))


@pytest.fixture
def declared():
    """Return {node: {parameter: default}} as the nodes declare them."""
    return {
        name: {parameter.name: parameter.default for parameter in table}
        for name, table in (('lingbot_va_policy', policy_parameters.PARAMETERS),
                            ('command_mux', command_mux.PARAMETERS),
                            ('sim_robot', sim_robot.PARAMETERS))}


@pytest.fixture
def example():
    """Return {node: its parameters in the example, with those for all nodes}."""
    sections = yaml.safe_load(EXAMPLE.read_text())
    assert all(set(section) == {'ros__parameters'} for section in sections.values())
    return {key: section['ros__parameters'] for key, section in sections.items()}


def test_every_section_is_for_all_nodes_or_for_one_that_exists(example, declared):
    assert set(example) == {'/**', *(f'/**/{name}' for name in declared)}


@pytest.mark.parametrize('name', ['lingbot_va_policy', 'command_mux', 'sim_robot'])
def test_the_example_names_only_declared_parameters_with_their_defaults(example, declared, name):
    given = example[f'/**/{name}']
    assert given
    assert {key: declared[name].get(key) for key in given} == given
    # A node refuses an integer for a floating-point parameter.
    assert {key: type(declared[name][key]) for key in given} == {
        key: type(value) for key, value in given.items()}


def test_what_is_set_for_all_nodes_is_declared_by_policy_and_mux(example, declared):
    for name, value in example['/**'].items():
        assert declared['lingbot_va_policy'][name] == value
        assert declared['command_mux'][name] == value


@pytest.mark.parametrize('path', DEVICES, ids=[path.stem for path in DEVICES])
def test_the_files_of_devices_have_parameters_of_the_mux_with_values_that_it_takes(path):
    known = {row.name: row for row in (*command_mux.PARAMETERS, *JOY_PARAMETERS)}
    sections = yaml.safe_load(path.read_text())
    assert list(sections) == ['/**/command_mux']
    for name, value in sections['/**/command_mux']['ros__parameters'].items():
        if name == 'deadman_modes':
            assert set(value) <= set(DEADMAN_MODES)
        else:
            assert not known[name].fault(value), name
