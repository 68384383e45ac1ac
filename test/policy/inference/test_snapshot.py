"""Snapshots: a restored episode continues as if it had not been interrupted."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lingbot_va_ros.policy.errors import PredictionAborted

N, USED = 8, 7  # actions a frame and used channels of the untrained policy


@pytest.fixture
def make_engine(make_short_engine):
    return make_short_engine


@pytest.fixture
def engine(make_engine):
    engine = make_engine(guidance=5.0)  # two halves of memory
    engine.set_instruction('wipe the plate')
    return engine


def pictures(policy, count, seed):
    random = np.random.default_rng(seed)
    return {name: [random.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(count)]
            for name in policy.cameras}


def begin_episode(engine):
    engine.begin_episode({
        name: images[0] for name, images in pictures(engine.policy, 1, 0).items()})


def see(engine, seed):
    engine.observe(pictures(engine.policy, 4, seed))


def executed(engine, frames):
    return np.random.default_rng(engine.session.frame).normal(0, 0.1, (frames * N, USED))


def frames_of(engine):
    return 2 - (engine.session.frame == 0)


def live(engine, chunks, ahead=True):
    """Live through some chunks and predict the next."""
    if not engine.began:
        begin_episode(engine)
        engine.predict()
    for _ in range(chunks):
        actions = executed(engine, frames_of(engine))
        for frame in range(frames_of(engine) - len(engine._uncommitted_latents)):
            if ahead:
                engine.predict_ahead(actions, True)
            see(engine, engine.session.frame + frame)
        engine.commit(actions)
    return engine.predict()


def future(engine):
    """Return what an engine goes on to predict: ahead, at once, and after two more chunks."""
    actions = executed(engine, frames_of(engine))
    return [
        engine.predict_ahead(actions, False), engine.predict_ahead(actions, True),
        engine.predict(), live(engine, 2)]


def assert_same_future(one, other):
    for left, right in zip(one, other):
        np.testing.assert_array_equal(left.actions, right.actions)
        assert torch.equal(left.latents, right.latents)
        assert left.grounded == right.grounded


def tensors(value):
    """Return every tensor in nested dataclasses, lists, tuples and dicts."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    elif hasattr(value, '__dataclass_fields__'):
        value = [getattr(value, name) for name in value.__dataclass_fields__]
    return [found for each in value for found in tensors(each)] if (
        isinstance(value, (list, tuple))) else []


# Chunk 0 runs; chunk 1 runs; long after the first tokens have gone.
@pytest.mark.parametrize('chunks', [0, 1, 5])
@pytest.mark.parametrize('pending', [0, 1])
def test_a_restored_episode_continues_bit_for_bit(engine, chunks, pending):
    live(engine, chunks)
    for seed in range(pending):
        see(engine, seed)
    snapshot = engine.snapshot()
    expected = future(engine)
    engine.set_instruction('open the box')
    live(engine, 4)
    engine.restore(snapshot)
    assert engine.instruction == 'wipe the plate'
    assert_same_future(future(engine), expected)


def test_another_engine_of_the_same_checkpoint_goes_on_bit_for_bit(make_engine):
    engine, other = make_engine(), make_engine()
    engine.set_instruction('wipe the plate')
    live(engine, 4)
    other.restore(engine.snapshot())
    assert_same_future(future(other), future(engine))


def test_a_snapshot_from_before_the_first_image_begins_anew(engine):
    snapshot = engine.snapshot()
    expected = live(engine, 1)
    live(engine, 2)
    engine.restore(snapshot)
    assert not engine.began and snapshot.frames == engine.memory_frames == 0
    with pytest.raises(ValueError):
        engine.predict()
    assert_same_future([live(engine, 1)], [expected])


def test_a_snapshot_from_before_the_first_instruction_has_none(make_engine):
    engine = make_engine()
    snapshot = engine.snapshot()
    engine.set_instruction('wipe the plate')
    engine.restore(snapshot)
    assert engine.instruction is None and engine.session.text is None
    engine.set_instruction('wipe the plate')
    live(engine, 1)


def test_a_snapshot_after_the_first_image_keeps_that_image(engine):
    begin_episode(engine)
    snapshot = engine.snapshot()
    expected = engine.predict()
    engine.reset()
    engine.restore(snapshot)
    assert_same_future([engine.predict()], [expected])


def test_nothing_that_comes_later_changes_a_snapshot(engine):
    live(engine, 4)
    see(engine, 3)
    snapshot = engine.snapshot()
    before = [tensor.clone() for tensor in tensors(snapshot)]
    assert len(before) > 10
    live(engine, 2)
    engine.reset()
    engine.restore(snapshot)
    live(engine, 3)
    for tensor, was in zip(tensors(snapshot), before):
        assert torch.equal(tensor, was)


def test_a_snapshot_lives_in_host_memory_of_its_own(engine):
    live(engine, 2)
    see(engine, 3)
    owned = {tensor.untyped_storage().data_ptr() for tensor in tensors(
        [engine.session.kv_cache.keys, engine.session.kv_cache.values, engine._first_latent,
         engine._last_latent, engine._uncommitted_latents, engine._forecasts,
         engine.stream.caches, engine.session.first_latent,
         engine.session._last_chunk, engine.session._embeddings])}
    for tensor in tensors(engine.snapshot()):
        assert tensor.device.type == 'cpu'
        assert tensor.untyped_storage().data_ptr() not in owned


@pytest.mark.parametrize('chunks', [1, 5])
def test_a_snapshot_between_two_steps_knows_nothing_of_the_prediction(engine, chunks):
    live(engine, chunks)
    actions = executed(engine, 2)
    reference, taken = engine.snapshot(), []
    expected = future(engine)
    engine.restore(reference)
    for predict in (engine.predict, lambda check: engine.predict_ahead(actions, True, check),
                    lambda check: engine.predict_ahead(actions, False, check)):
        begun = len(taken)
        chunk = predict(SimpleNamespace(check=lambda: taken.append(engine.snapshot())))
        assert len(taken) > begun + 4 and np.isfinite(chunk.actions).all()
    for snapshot in taken:
        assert torch.equal(snapshot.session.kv_cache.keys, reference.session.kv_cache.keys)
        assert torch.equal(snapshot.session.kv_cache.values, reference.session.kv_cache.values)
        assert snapshot.session.kv_cache.spans == reference.session.kv_cache.spans
        assert snapshot.frames == reference.frames
    assert_same_future(future(engine), expected)  # it went on as if nothing had been taken
    for snapshot in (taken[3], taken[-2]):
        engine.restore(snapshot)
        assert_same_future(future(engine)[2:], expected[2:])


def test_a_snapshot_can_be_restored_after_an_abort(engine):
    live(engine, 3)
    snapshot, looks = engine.snapshot(), []
    expected = future(engine)

    def abort():
        looks.append(1)
        if len(looks) == 6:
            raise PredictionAborted
    with pytest.raises(PredictionAborted):
        engine.predict_ahead(executed(engine, 2), True, SimpleNamespace(check=abort))
    engine.restore(snapshot)
    assert_same_future(future(engine), expected)


def test_the_last_chunk_can_be_kept_after_a_restore(engine):
    engine.keep_images(True)
    live(engine, 3)
    snapshot = engine.snapshot()
    engine.rebuild_from_last_chunk()
    expected = engine.predict()
    live(engine, 1)
    engine.restore(snapshot)
    engine.rebuild_from_last_chunk()
    assert_same_future([engine.predict()], [expected])


def test_steps_and_guidance_are_not_part_of_a_snapshot(engine):
    live(engine, 1)
    snapshot = engine.snapshot()
    engine.set_sampling(replace(engine.session.video, steps=2), engine.session.action)
    expected = engine.predict()
    live(engine, 2)
    engine.restore(snapshot)
    assert engine.session.video.steps == 2
    assert_same_future([engine.predict()], [expected])


def refusal(engine, snapshot):
    """Return the line with which a snapshot is refused; nothing may have changed."""
    live(engine, 2)
    before = engine.snapshot()
    with pytest.raises(ValueError) as refused:
        engine.restore(snapshot)
    after = engine.snapshot()
    for left, right in zip(tensors(before), tensors(after)):
        assert torch.equal(left, right)
    line = str(refused.value)
    assert '\n' not in line
    return line


@pytest.mark.parametrize('change, named', [
    ({'memory_chunks': 4}, 'tokens'), ({'guidance': 5.0}, '2 guidance halves'),
    ({}, 'bfloat16')])
def test_a_snapshot_of_another_size_is_rejected_with_both_sizes(make_engine, change, named):
    engine = make_engine()
    other = make_engine(**change) if change else make_engine(
        network=copy.deepcopy(engine.session.network).to(torch.bfloat16))
    for each in (engine, other):
        each.set_instruction('wipe the plate')
    live(other, 1)
    line = refusal(engine, other.snapshot())
    assert named in line and '1 guidance halves' in line and 'float32' in line


def test_other_weights_are_refused(make_engine):
    engine = make_engine()
    network = copy.deepcopy(engine.session.network)
    with torch.no_grad():
        network.blocks[1].ffn_in.weight += 1e-3
    other = make_engine(network=network)
    for each in (engine, other):
        each.set_instruction('wipe the plate')
    live(other, 1)
    assert 'other weights' in refusal(engine, other.snapshot())


@pytest.mark.parametrize('change', [
    {'mirror_images': True}, {'name': 'other', 'action_rate': 20.0},
    {'cameras': ('left_wrist', 'head')}])
def test_another_meaning_of_images_or_actions_is_refused(make_engine, untrained_policy, change):
    policy = replace(untrained_policy, **change)
    engine, other = make_engine(), make_engine(policy=policy)
    for each in (engine, other):
        each.set_instruction('wipe the plate')
    line = refusal(engine, other.snapshot())
    assert f'its policy is {policy.name}' in line
