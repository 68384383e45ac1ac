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

NAMES_OF_A_ROW = {'controller', 'rate', 'delay', 'speed_min', 'speed_max', 'acceleration_max'}


def test_every_combination_is_a_condition_once():
    conditions = all_conditions()
    assert len(set(conditions)) == len(conditions) == (
        len(CONTROLLERS) * len(RATES) * len(DELAYS) * len(MUX_RATES))
    assert {condition.controller for condition in conditions} == set(CONTROLLERS)


@pytest.mark.parametrize('controller, rate, mux_rate', [
    ('humble', 100, 100), ('jazzy', 500, 100), ('kilted', 250, 50), ('rolling', 500, 100),
    ('ur_scaled', 500, 100)])
def test_the_mux_moves_the_arm_evenly_through_a_controller(controller, rate, mux_rate):
    row, = measure_controllers([Condition(controller, rate, 0.005, 0.0008, mux_rate)])
    assert NAMES_OF_A_ROW <= row.keys()
    assert (row['controller'], row['rate'], row['delay']) == (controller, rate, 0.005)
    assert row['mode'] == 'POLICY' and row['rejected'] == 0
    assert row['speed_min'] == pytest.approx(0.5, abs=0.01)
    assert row['speed_max'] == pytest.approx(0.5, abs=0.01)
    assert row['acceleration_max'] < 1.0


def test_the_file_has_the_names_and_the_table_the_rows(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        all_conditions, '__defaults__', (CONTROLLERS, (250,), ((0.005, 0.0),), (50, 100)))
    path = tmp_path / 'controllers.json'
    assert main(['bench', '--controllers', 'kilted', 'ur_scaled', '--json', str(path)]) == 0
    rows = json.loads(path.read_text())['controllers']
    assert [(row['controller'], row['mux_rate']) for row in rows] == [
        ('kilted', 50), ('kilted', 100), ('ur_scaled', 50), ('ur_scaled', 100)]
    assert all(NAMES_OF_A_ROW <= row.keys() for row in rows)
    shown = capsys.readouterr().out
    assert 'plan of 0.5 rad/s' in shown and shown.count('ur_scaled') == 2


def test_unknown_controllers_and_a_comparison_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(['bench', '--controllers', 'foxy'])
    assert 'foxy' in capsys.readouterr().err
    assert main(['bench', '--controllers', '--compare', str(tmp_path / 'old.json')]) == 1
    assert '--compare is for the engine' in capsys.readouterr().err
