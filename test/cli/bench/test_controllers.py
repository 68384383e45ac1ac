"""lingbot_va bench --controllers: rows, names that scripts rely on, and the real mux behind it."""

import json

import pytest

from lingbot_va_ros.cli.bench.controllers import (
    all_conditions,
    Condition,
    DELAYS,
    measure_controllers,
    MUX_RATES,
    RATES,
)
from lingbot_va_ros.cli.main import main
from lingbot_va_ros.sim.controllers.settings import CONTROLLERS

NAMES_OF_A_ROW = {
    'controller', 'rate', 'delay', 'speed_min', 'speed_max', 'acceleration_max', 'mux_rate',
    'from_desired', 'sine_error', 'sine_acceleration_max', 'limit_share', 'stop_limit_share'}


def test_every_combination_is_a_condition_once():
    conditions = all_conditions()
    assert len(set(conditions)) == len(conditions) == (
        len(CONTROLLERS) * len(RATES) * len(DELAYS) * len(MUX_RATES) * 2)
    assert {condition.controller for condition in conditions} == set(CONTROLLERS)


@pytest.mark.parametrize('controller, rate, mux_rate, from_desired', [
    ('humble', 100, 100, False), ('humble', 500, 50, True), ('jazzy', 500, 100, False),
    ('kilted', 250, 50, True), ('rolling', 1000, 100, True), ('ur_scaled', 500, 100, False)])
def test_the_mux_moves_the_arm_evenly_through_a_controller(
        controller, rate, mux_rate, from_desired):
    """0.5 rad/s within 1 %, a sine within 2 %, no acceleration beyond 1.2 times the limit."""
    row, = measure_controllers([
        Condition(controller, rate, 0.005, 0.0008, mux_rate, from_desired)])
    assert NAMES_OF_A_ROW <= row.keys()
    assert (row['controller'], row['rate'], row['delay']) == (controller, rate, 0.005)
    assert row['mode'] == 'POLICY' and row['rejected'] == 0
    assert row['speed_min'] == pytest.approx(0.5, abs=0.005)
    assert row['speed_max'] == pytest.approx(0.5, abs=0.005)
    assert row['acceleration_max'] < 1.0
    assert row['sine_error'] < 0.02
    assert row['limit_share'] < 1.2 and row['stop_limit_share'] < 1.2


def test_late_commands_make_a_stop_hard_unless_the_mux_knows_of_it():
    late = Condition('jazzy', 500, 0.025, 0.005, 100)
    row, = measure_controllers([late])
    assert row['limit_share'] < 1.2 and row['stop_limit_share'] > 5.0
    row, = measure_controllers([late], controller_delay=0.04)
    assert row['limit_share'] < 1.2 and row['stop_limit_share'] < 1.2


def test_the_file_has_the_names_and_the_table_the_rows(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        all_conditions, '__defaults__', (
            CONTROLLERS, (250,), ((0.005, 0.0),), (50, 100), (True,)))
    path = tmp_path / 'controllers.json'
    assert main(['bench', '--controllers', 'kilted', 'ur_scaled', '--json', str(path)]) == 0
    rows = json.loads(path.read_text())['controllers']
    assert [(row['controller'], row['mux_rate']) for row in rows] == [
        ('kilted', 50), ('kilted', 100), ('ur_scaled', 50), ('ur_scaled', 100)]
    assert all(NAMES_OF_A_ROW <= row.keys() for row in rows)
    shown = capsys.readouterr().out
    assert 'plan of 0.5 rad/s and a sine' in shown and shown.count('ur_scaled') == 2


def test_unknown_controllers_and_a_comparison_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(['bench', '--controllers', 'foxy'])
    assert 'foxy' in capsys.readouterr().err
    assert main(['bench', '--controllers', '--compare', str(tmp_path / 'old.json')]) == 1
    assert '--compare is for the engine' in capsys.readouterr().err
