"""Recordings: reproducible by seed, complete in files, and not overwritten."""

import numpy as np
import pytest

from lingbot_va_ros.training.episode_files import load_recording, save_recording
from lingbot_va_ros.training.expert_recording import (
    record_episode,
    record_missing,
    recording_path,
    RecordingOptions,
)

SHORT = RecordingOptions(idle=(0.3, 0.5))


def same(one, other):
    for name in one.images:
        np.testing.assert_array_equal(one.images[name], other.images[name])
        np.testing.assert_array_equal(one.marked[name], other.marked[name])
    np.testing.assert_array_equal(one.commands, other.commands)
    for kind in ('counts', 'places'):
        ours, theirs = getattr(one, kind), getattr(other, kind)
        assert list(ours) == list(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    assert (one.task, one.seed, one.finished, one.success) == (
        other.task, other.seed, other.finished, other.success)


@pytest.fixture(scope='module')
def recording(wobble):
    return record_episode('table', 3, SHORT, wobble)


def test_the_same_seed_records_the_same(recording, wobble):
    same(recording, record_episode('table', 3, SHORT, wobble))


def test_another_seed_records_another_scene(recording, wobble):
    other = record_episode('table', 4, SHORT, wobble)
    assert (recording.images['head'][0] != other.images['head'][0]).any()


def test_there_is_an_image_before_the_first_command_and_one_after_each(recording):
    assert set(map(len, recording.images.values())) == {len(recording.commands) + 1}


def test_the_arm_rests_at_the_end(recording):
    idle = recording.commands[recording.finished - 1:]
    assert len(idle) >= 3
    np.testing.assert_array_equal(idle, idle[:1].repeat(len(idle), 0))


def test_things_and_fingers_are_marked_and_the_table_is_not(recording):
    for marked in recording.marked.values():
        assert 0 < marked.mean() < 0.5


def test_an_expert_of_a_task_is_recorded_with_what_had_happened():
    recording = record_episode('open_boxes', 100_000)
    assert recording.success
    assert (recording.events[0], recording.events[-1]) == (0, 3)
    assert (np.diff(recording.events) >= 0).all()
    assert {'lid_a', 'lid_b', 'left_tool'} <= set(recording.places)


def test_a_file_holds_all_of_a_recording(recording, tmp_path):
    save_recording(tmp_path / 'one.npz', recording)
    same(recording, load_recording(tmp_path / 'one.npz'))
    assert [path.name for path in tmp_path.iterdir()] == ['one.npz']


def test_a_damaged_file_is_named(recording, tmp_path):
    path = tmp_path / 'one.npz'
    save_recording(path, recording)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match='one.npz is not a readable recording'):
        load_recording(path)


def test_only_missing_episodes_are_recorded(tmp_path, wobble):
    first = list(record_missing(tmp_path, 'table', [5], SHORT, make_actor=wobble))
    again = list(record_missing(tmp_path, 'table', [5, 6], SHORT, make_actor=wobble))
    assert first == [recording_path(tmp_path, 'table', 5)]
    assert again == [recording_path(tmp_path, 'table', 6)]
