"""`bench --collisions`: a row for each motion, and what cannot be measured is said in one line."""

import pytest

from lingbot_va_ros.cli.bench import collisions
from lingbot_va_ros.cli.bench.collisions import measure_collisions, MOTIONS


def test_each_motion_has_a_row_and_arms_that_meet_are_kept_apart(monkeypatch):
    monkeypatch.setattr(collisions, 'SETTLING', 40)
    monkeypatch.setattr(collisions, 'MEASURED', 60)
    said = []
    rows = measure_collisions('sim_dual', said.append)
    assert [row['motion'] for row in rows] == list(MOTIONS) and len(said) == len(rows)
    for row in rows:
        assert row['pairs'] > 80
        assert row['tick_ms'] > 0.0 and row['tick_ms_without'] > 0.0
        assert row['core_share'] == pytest.approx(row['collision_ms'] * 1e-3 * 100)
        assert (row['blocked_ticks'] > 0) == (row['motion'] == 'two arms that meet')
        assert row['nearest_distance_m'] > 0.018


def test_an_embodiment_without_the_section_is_named():
    with pytest.raises(ValueError, match="'sim_left' has no section collision"):
        measure_collisions('sim_left', print)
