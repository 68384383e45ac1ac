"""The statistics in summary.json, against known values."""

from dataclasses import replace

import numpy as np
import pytest

from lingbot_va_ros.cli.demo.episode import (
    ChunkTiming,
    counts_by_operator,
    jitter_ms,
    JointMotion,
    percentile,
    RecordedEpisode,
    summarize,
    teleop_spans,
    tracking_error,
)
from lingbot_va_ros.mux.modes import MuxMode

EPISODE = RecordedEpisode(
    joints=('a', 'b'), start=1.0, end=2.0,
    commanded=JointMotion(np.array([0.0, 4.0]), np.array([[0.0, 0.0], [4.0, 8.0]])),
    measured=JointMotion(np.array([0.5, 1.5, 1.75, 3.0]),
                    np.array([[9.0, 9.0], [1.5, 3.1], [1.45, 3.5], [9.0, 9.0]])),
    chunks=(ChunkTiming(0, 1.1, 1.5, 0.1), ChunkTiming(1, 1.6, 1.9, 0.3)),
    cameras={}, imagined=(),
    # 0.9 and 2.1 are outside; within: 20, 21 and 17 ms
    published=np.array([0.9, 1.0, 1.02, 1.041, 1.058, 2.1]), control_period=0.02,
    starved_ticks=3, task_state={'task': 'table', 'counts': {}, 'success': False})


def test_jitter_is_the_distance_of_each_interval_from_the_period():
    assert jitter_ms(np.array([0.0, 0.02, 0.05, 0.06]), 0.02) == pytest.approx(
        [0.0, 10.0, 10.0], abs=1e-9)


def test_jitter_of_fewer_than_two_stamps_is_empty():
    assert jitter_ms(np.array([1.0]), 0.02).size == 0


def test_percentiles_are_linear_between_neighbours():
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([0.0, 1.0], 95) == pytest.approx(0.95)


def test_percentile_of_nothing_is_none():
    assert percentile([], 50) is None


def test_summary_holds_the_fields_that_scripts_read():
    summary = summarize([EPISODE], '/some/checkpoint', False)
    episode, = summary['episodes']
    assert (episode['task'], episode['success'], episode['chunks']) == ('table', False, 2)
    assert episode['seconds'] == pytest.approx(1.0)
    assert 'no goal' in episode['detail']
    assert summary['inference_p50'] == pytest.approx(0.2)
    assert summary['inference_p95'] == pytest.approx(0.29)
    assert summary['publish_jitter_ms']['p50'] == pytest.approx(1.0, abs=1e-6)
    assert summary['publish_jitter_ms']['p99'] == pytest.approx(2.96, abs=1e-6)
    assert summary['starved_ticks'] == 3
    assert (summary['checkpoint'], summary['trained']) == ('/some/checkpoint', False)


def test_success_is_what_the_simulator_says():
    state = {'task': 'stack', 'counts': {'stacked': 2}, 'success': True}
    episode, = summarize([replace(EPISODE, task_state=state)], '', True)['episodes']
    assert episode['success'] is True
    assert episode['detail'] == 'stacked: 2'


def test_an_episode_that_ended_early_says_why():
    episode, = summarize([replace(EPISODE, stopped_by='the arm fell off')], '', True)['episodes']
    assert episode['detail'].startswith('ended early: the arm fell off')


def test_what_the_simulator_says_follows_the_counts():
    state = {'task': 'wipe_plate', 'counts': {'strokes': 5}, 'done': True, 'success': False,
             'detail': 'home after 5 strokes, expected 6'}
    episode, = summarize([replace(EPISODE, task_state=state, seed=3)], '', True)['episodes']
    assert episode['detail'] == 'strokes: 5; home after 5 strokes, expected 6'
    assert (episode['success'], episode['done'], episode['seed']) == (False, True, 3)
    assert episode['counts'] == {'strokes': 5}


def test_figures_of_several_episodes_are_pooled():
    later = replace(EPISODE, chunks=(ChunkTiming(0, 1.1, 1.5, 0.5),), holds=('late',))
    summary = summarize([EPISODE, later], '', True)
    assert [episode['chunks'] for episode in summary['episodes']] == [2, 1]
    assert summary['inference_p50'] == pytest.approx(0.3)
    assert summary['starved_ticks'] == 6
    assert summary['holds'] == ['late']


def test_what_is_counted_while_a_person_has_the_arm_is_the_persons():
    state = {'task': 'wipe_plate', 'counts': {'strokes': 3}, 'success': False}
    episode = replace(
        EPISODE, task_state=state,
        # The first was made before the person got the arm, the second before they gave it back.
        counted=((0.9, {'strokes': 0}), (1.4, {'strokes': 1}), (1.7, {'strokes': 2}),
                 (1.95, {'strokes': 3})),
        modes=((0.95, MuxMode.POLICY), (1.3, MuxMode.TELEOP), (1.6, MuxMode.HOLD),
               (1.65, MuxMode.POLICY)))
    assert counts_by_operator(episode) == {'strokes': 1}
    assert teleop_spans(episode) == ((1.3, 1.6),)
    figures, = summarize([episode], '', True)['episodes']
    assert figures['counts_by_policy'] == {'strokes': 2}
    assert figures['seconds_by_person'] == pytest.approx(0.3)


def test_nobody_is_told_of_a_person_who_was_not_there():
    figures, = summarize([EPISODE], '', True)['episodes']
    assert 'counts_by_person' not in figures


def test_tracking_error_compares_each_measurement_with_the_command_due_then():
    assert tracking_error(EPISODE) == pytest.approx(np.array([[0.0, 0.1], [0.3, 0.0]]))


def test_tracking_error_of_nothing_commanded_is_empty():
    nothing = JointMotion(np.empty(0), np.empty((0, 2)))
    assert tracking_error(replace(EPISODE, commanded=nothing)).size == 0
