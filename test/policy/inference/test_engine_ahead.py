"""An engine in the three schedules: chunks ahead, forecasts in place of frames, errors."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lingbot_va_ros.policy.errors import PredictionAborted

N, USED = 8, 7  # actions a frame and used channels of the untrained policy
GUIDANCE = 5.0


@pytest.fixture
def make_engine(make_short_engine):
    def make(guidance=1.0):
        engine = make_short_engine(guidance)
        engine.set_instruction('put the cup on the plate')
        return engine
    return make


@pytest.fixture
def engine(make_engine):
    return make_engine()


def pictures(policy, count, seed=0):
    random = np.random.default_rng(seed)
    return {name: [random.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(count)]
            for name in policy.cameras}


def begin(engine):
    engine.begin_episode({name: images[0] for name, images in pictures(engine.policy, 1).items()})
    return engine.predict()


def see(engine, frames, first=0):
    """See frames of the running chunk, of which each depends on its number alone."""
    for frame in range(first, first + frames):
        engine.observe(pictures(engine.policy, 4, 100 + engine.session.frame + frame))


def executed(engine, rows):
    """Return what was executed since the last commit; not quite what was predicted."""
    return np.random.default_rng(engine.session.frame).normal(0, 0.1, (rows, USED))


def frames_of(engine):
    return 2 - (engine.session.frame == 0)


def run(engine, schedule, chunks, seen=1):
    """Run an episode; in the asynchronous schedules predict when `seen` frames were seen."""
    begin(engine)
    for _ in range(chunks):
        frames = frames_of(engine)
        actions = executed(engine, frames * N)
        early = min(seen, frames)
        see(engine, early)
        if schedule != 'sync':
            engine.predict_ahead(actions, schedule == 'async')
        see(engine, frames - early, early)
        engine.commit(actions)
        if schedule == 'sync':
            engine.predict()
    return engine


def assert_same(one, two):
    np.testing.assert_array_equal(one.actions, two.actions)
    assert torch.equal(one.latents, two.latents)


def assert_same_memory(one, other):
    one, other = one.snapshot().session, other.snapshot().session
    assert torch.equal(one.kv_cache.keys, other.kv_cache.keys)
    assert torch.equal(one.kv_cache.values, other.kv_cache.values)
    assert (one.kv_cache.spans, one.frame) == (other.kv_cache.spans, other.frame)


@pytest.mark.parametrize('guidance', [1.0, GUIDANCE])
@pytest.mark.parametrize('schedule', ['async', 'async_ungrounded'])
@pytest.mark.parametrize('seen', [0, 1])
def test_memory_and_next_chunk_are_those_of_the_synchronous_schedule(
        make_engine, guidance, schedule, seen):
    sync = run(make_engine(guidance), 'sync', 6)
    other = run(make_engine(guidance), schedule, 6, seen)
    assert_same_memory(other, sync)
    assert other.memory_frames == sync.memory_frames == other.memory_capacity
    assert_same(other.predict(), sync.predict())


@pytest.mark.parametrize('chunks', [0, 1, 4])
@pytest.mark.parametrize('grounded', [True, False])
def test_with_a_fully_observed_chunk_predict_ahead_equals_predict(engine, chunks, grounded):
    run(engine, 'async', chunks)
    if chunks == 0:
        assert engine.memory_frames == 0
    frames = frames_of(engine)
    actions = executed(engine, frames * N)
    see(engine, frames)
    looks = []
    counting = SimpleNamespace(check=lambda: looks.append(1))
    chunk = engine.predict_ahead(actions, grounded, counting)
    assert chunk.grounded
    # Nothing is imagined: two writes of the running chunk, then video and actions of the next.
    video, action = engine.session.video, engine.session.action
    assert len(looks) == 2 + video.steps + 1 + action.steps
    engine.commit(actions)
    assert_same(engine.predict(), chunk)


@pytest.mark.parametrize('chunks', [0, 2])
def test_a_forecast_in_place_of_frames_is_marked_ungrounded(engine, chunks):
    run(engine, 'async', chunks)
    actions = executed(engine, frames_of(engine) * N)
    assert engine.predict_ahead(actions, True).grounded
    assert not engine.predict_ahead(actions, False).grounded
    assert engine.predict().grounded


def test_the_chunk_ahead_has_the_actions_of_a_whole_chunk(engine):
    begin(engine)
    assert engine.predict_ahead(executed(engine, N), True).actions.shape == (2 * N, USED)


@pytest.mark.parametrize('grounded', [True, False])
@pytest.mark.parametrize('chunks', [0, 2])
def test_predicting_ahead_again_gives_the_same_chunk(engine, grounded, chunks):
    run(engine, 'async', chunks)
    actions = executed(engine, frames_of(engine) * N)
    chunk = engine.predict_ahead(actions, grounded)
    assert_same(engine.predict_ahead(actions, grounded), chunk)


def test_newly_observed_frames_change_the_chunk_ahead(engine):
    run(engine, 'async', 1)
    actions = executed(engine, 2 * N)
    blind = engine.predict_ahead(actions, True)
    see(engine, 1)
    assert not np.array_equal(engine.predict_ahead(actions, True).actions, blind.actions)


def test_more_imagining_steps_can_be_asked_for_at_any_time(engine):
    run(engine, 'async', 1)
    actions, counts, chunks = executed(engine, 2 * N), [], []
    for steps in (3, 5):
        looks = []
        engine.set_sampling(engine.session.video, engine.session.action, steps)
        counting = SimpleNamespace(check=lambda: looks.append(1))
        chunks.append(engine.predict_ahead(actions, True, counting))
        counts.append(len(looks))
    assert counts[1] == counts[0] + 2
    assert not np.array_equal(chunks[0].actions, chunks[1].actions)


@pytest.mark.parametrize('grounded', [True, False])
@pytest.mark.parametrize('at', [0, 1, 4, 6])
def test_an_aborted_prediction_ahead_changes_nothing(make_engine, grounded, at):
    engine, other = (run(make_engine(), 'async', 4) for _ in range(2))
    left = [at]

    def abort():
        left[0] -= 1
        if left[0] < 0:
            raise PredictionAborted
    actions = executed(engine, 2 * N)
    with pytest.raises(PredictionAborted):
        engine.predict_ahead(actions, grounded, SimpleNamespace(check=abort))
    assert_same_memory(engine, other)
    assert_same(engine.predict_ahead(actions, grounded), other.predict_ahead(actions, grounded))


def test_the_chunk_predicted_ahead_is_the_forecast_once_its_turn_has_come(engine):
    """With nothing seen, the ungrounded chunk comes behind the running chunk's own video."""
    begin(engine)
    running = engine.predict_ahead(executed(engine, N), False)
    see(engine, 1)
    engine.commit(executed(engine, N))
    ahead = engine.predict_ahead(executed(engine, 2 * N), False)
    assert torch.equal(ahead.before, running.latents[:, :, -1:])


def test_after_a_chunk_that_was_cut_off_nothing_stands_in_until_a_new_prediction(engine):
    run(engine, 'async', 1)
    engine.predict_ahead(executed(engine, 2 * N), False)
    see(engine, 1)
    engine.commit(executed(engine, N))
    with pytest.raises(ValueError, match='no prediction of frames 3 to 4'):
        engine.predict_ahead(executed(engine, 2 * N), False)
    assert engine.predict_ahead(executed(engine, 2 * N), True).grounded
    engine.predict()
    assert not engine.predict_ahead(executed(engine, 2 * N), False).grounded


def test_images_of_a_chunk_ahead_begin_after_its_last_context_frame(engine):
    run(engine, 'async', 1)
    see(engine, 2)
    ahead = engine.predict_ahead(executed(engine, 2 * N), True)
    video = engine.imagined_video(ahead)
    assert torch.equal(ahead.before, engine._uncommitted_latents[-1])
    assert video.shape == (8, 64, 128, 3)
    engine.commit(executed(engine, 2 * N))
    np.testing.assert_array_equal(engine.imagined_video(ahead), video)


@pytest.mark.parametrize('frames, kept', [(2, {4}), (1, set())])
def test_only_the_forecast_of_the_running_chunk_is_kept(engine, frames, kept):
    run(engine, 'async', 1)
    engine.predict()
    engine.predict_ahead(executed(engine, 2 * N), True)
    assert set(engine.snapshot().forecasts) == {2, 4}
    see(engine, frames)
    engine.commit(executed(engine, frames * N))
    assert set(engine.snapshot().forecasts) == kept


@pytest.mark.parametrize('shape', [(2 * N - 1, USED), (N, USED), (2 * N, USED - 1), (0, USED)])
def test_a_wrong_number_of_executing_actions_is_refused(engine, shape):
    run(engine, 'async', 1)
    with pytest.raises(ValueError, match='actions of shape .* for 2 frames of 8 actions'):
        engine.predict_ahead(np.zeros(shape), True)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_actions_that_are_not_finite_are_not_committed(engine, value):
    begin(engine)
    actions = executed(engine, N)
    see(engine, 1)
    wrong = actions.copy()
    wrong[3, 2] = value
    for call in (lambda: engine.predict_ahead(wrong, True), lambda: engine.commit(wrong)):
        with pytest.raises(ValueError, match='not finite'):
            call()
    assert engine.memory_frames == 0
    engine.commit(actions)
    assert engine.memory_frames == 2


def test_more_frames_than_the_running_chunk_has_are_refused(engine):
    run(engine, 'async', 1)
    see(engine, 3)
    with pytest.raises(ValueError, match='3 observed frames of a chunk of 2'):
        engine.predict_ahead(executed(engine, 2 * N), True)


def test_nothing_can_be_predicted_ahead_of_an_episode_that_has_not_begun(engine):
    with pytest.raises(ValueError, match='has not begun'):
        engine.predict_ahead(np.zeros((N, USED)), True)


def test_memory_frames_do_not_count_predictions(engine):
    run(engine, 'async', 4)
    counts = []
    counting = SimpleNamespace(check=lambda: counts.append(engine.memory_frames))
    engine.predict(counting)
    engine.predict_ahead(executed(engine, 2 * N), True, counting)
    assert set(counts) == {6}


@pytest.mark.parametrize('schedule', ['sync', 'async'])
def test_the_last_chunk_alone_is_kept_in_any_schedule(engine, schedule):
    engine.keep_images(True)
    run(engine, schedule, 4)
    engine.rebuild_from_last_chunk()
    assert engine.memory_frames == 2 and engine.session.frame == 8
    assert engine.predict().actions.shape == (2 * N, USED)


def test_nothing_seen_before_the_last_chunk_leaves_a_trace(make_engine):
    one, other = make_engine(), make_engine()
    for number, engine in enumerate((one, other)):
        engine.keep_images(True)
        run(engine, 'sync', 1)
        actions = executed(engine, 2 * N)
        for frame in range(2):  # another past, up to the image before the chunk that is kept
            images = pictures(engine.policy, 4, 1000 * (number + 1) + frame)
            for name, last in pictures(engine.policy, 1, 77).items():
                images[name][-1] = last[0]
            engine.observe(images)
        engine.commit(actions)
        see(engine, 2)
        engine.commit(executed(engine, 2 * N))
        engine.rebuild_from_last_chunk()
        see(engine, 1)
    assert_same_memory(one, other)
    assert torch.equal(one._uncommitted_latents[0], other._uncommitted_latents[0])
    assert_same(one.predict(), other.predict())


def test_the_last_chunk_cannot_be_kept_without_its_images(engine):
    engine.rebuild_from_last_chunk()  # there is nothing to forget yet
    run(engine, 'sync', 1)
    frames = engine.memory_frames
    with pytest.raises(ValueError, match='images of the last chunk were not kept'):
        engine.rebuild_from_last_chunk()
    assert engine.memory_frames == frames


def test_the_first_chunk_is_kept_with_the_image_that_began_the_episode(make_engine):
    kept, whole = make_engine(), make_engine()
    kept.keep_images(True)
    for engine in (kept, whole):
        run(engine, 'sync', 1)
    kept.rebuild_from_last_chunk()
    assert_same_memory(kept, whole)
