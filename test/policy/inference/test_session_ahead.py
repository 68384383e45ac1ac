"""Predicting ahead: provisional tokens, observed frames, and the number of forward passes."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st
import pytest
from support.sessions import (
    Abort,
    ACTION,
    assert_same_prediction,
    make_session,
    random,
    SHAPE,
    VIDEO,
)
import torch

from lingbot_va_ros.model.checkpoint import load_transformer
from lingbot_va_ros.model.flow_matching import timesteps
from lingbot_va_ros.model.mixture_of_transformers import make_network
from lingbot_va_ros.policy.errors import PredictionAborted
from lingbot_va_ros.policy.inference.denoise import WrittenChunk
from lingbot_va_ros.policy.inference.noise import chunk_noise, imagining_noise
from lingbot_va_ros.policy.interrupt import UNINTERRUPTED
from lingbot_va_ros.specs.policy_file import Sampling

PLAIN = replace(VIDEO, guidance=1.0)
SAMPLINGS = {
    'guided video': (VIDEO, ACTION), 'no guidance': (PLAIN, ACTION),
    'guided actions': (PLAIN, replace(ACTION, guidance=2.0)),
    'video left noisy': (replace(VIDEO, exec_steps=2), ACTION)}
IMAGINE_STEPS = 2


@pytest.fixture(scope='module')
def network(untrained_checkpoint):
    return load_transformer(
        untrained_checkpoint / 'transformer', torch.device('cpu'), torch.float32)


@pytest.fixture(scope='module')
def mixture(network):
    """Return a mixture of transformers of the same depth, with random weights."""
    mixture = make_network(replace(network.config, action_hidden_dim=32))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in mixture.parameters():
            weight.normal_(0, weight.shape[-1] ** -0.5, generator=generator)
    return mixture


def noise(first_frame):
    return chunk_noise(0, first_frame, SHAPE, 48, 30)


def real_latents(first_frame, frames=2, seed=1000):
    """Return frames of which each depends on its number alone."""
    return torch.cat([random(seed + frame, 1, 48, 1, 4, 4)
                      for frame in range(first_frame, first_frame + frames)], 2)


def real_actions(first_frame, frames=2, seed=2000):
    actions = torch.cat([random(seed + frame, 1, 30, 1, 4, 1) * (frame > 0)
                         for frame in range(first_frame, first_frame + frames)], 2)
    return actions


def predict(session, interrupt=UNINTERRUPTED):
    return session.predict(*noise(session.frame), real_latents(0, 1), interrupt)


def ahead(session, seen=1, forecast=None, actions=None, interrupt=UNINTERRUPTED, steps=None):
    """Predict the chunk behind the running one, of which `seen` frames were seen."""
    frame = session.frame
    return session.predict_ahead(
        real_latents(frame, 2)[:, :, :seen],
        real_actions(frame) if actions is None else actions, forecast, steps or IMAGINE_STEPS,
        imagining_noise(0, frame, SHAPE, 48), *noise(frame + 2), interrupt)


def commit(session, frames=2):
    session.commit(real_latents(session.frame, frames), real_actions(session.frame, frames))


def remember(session, chunks):
    for _ in range(chunks):
        predict(session)
        commit(session)


def remembered(session):
    """Return the confirmed keys, values and groups, oldest first."""
    state = session.save().kv_cache
    return state.keys, state.values, state.spans


def assert_same_memory(one, other):
    assert one[2] == other[2]
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


@dataclass
class Counted:
    """A network that notes its forwards: name and sequences, and what each was given."""

    network: object
    calls: list[tuple] = field(default_factory=list)
    given: list[tuple] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)  # tokens that each attended to

    def __getattr__(self, name):
        attribute = getattr(self.network, name)
        if name not in ('video_velocity', 'action_velocity', 'write_video', 'write_actions'):
            return attribute

        def counted(content, steps, rotary, text, slot):
            self.calls.append((name, content.shape[0]))
            self.given.append((content[:1].clone(), list(steps), slot.new))
            self.seen.append(slot.new.stop - slot.oldest)
            return attribute(content, steps, rotary, text, slot)
        return counted

    @property
    def sequences(self):
        return sum(count for _, count in self.calls)


def executed_frames(chunk):
    """Return how many frames of a chunk are executed: some chunks are cut off after one."""
    return 1 if chunk in (3, 6) else 2


def run(session, schedule, chunks):
    """Run an episode in a schedule over the same frames and actions."""
    running = None
    for chunk in range(chunks):
        if running is None or running.first_frame != session.frame:
            running = predict(session)
        if schedule == 'sync':
            commit(session, executed_frames(chunk))
            continue
        forecast = running if schedule == 'async_ungrounded' else None
        following = ahead(session, chunk % 3, forecast)
        commit(session, executed_frames(chunk))
        running = following
    return session


# Far beyond the window of three chunks, with chunks that were cut off among them.
@pytest.mark.parametrize('sampling', SAMPLINGS)
@pytest.mark.parametrize('schedule', ['async', 'async_ungrounded'])
@pytest.mark.parametrize('chunks', [2, 9])
def test_the_confirmed_memory_is_the_same_in_every_schedule(network, sampling, schedule, chunks):
    sync = run(make_session(network, *SAMPLINGS[sampling], memory_chunks=3), 'sync', chunks)
    other = run(make_session(network, *SAMPLINGS[sampling], memory_chunks=3), schedule, chunks)
    assert_same_memory(remembered(other), remembered(sync))
    assert other.frame == sync.frame
    assert_same_prediction(predict(other), predict(sync))


@pytest.mark.parametrize('schedule', ['async', 'async_ungrounded'])
def test_the_confirmed_memory_is_the_same_with_a_mixture_of_transformers(mixture, schedule):
    sync = run(make_session(mixture, memory_chunks=3), 'sync', 7)
    other = run(make_session(mixture, memory_chunks=3), schedule, 7)
    assert_same_memory(remembered(other), remembered(sync))
    prediction = predict(other)
    assert prediction.actions.isfinite().all()
    assert_same_prediction(prediction, predict(sync))


@pytest.mark.parametrize('sampling', SAMPLINGS)
@pytest.mark.parametrize('chunks, memory_chunks', [(0, 8), (2, 8), (5, 3), (5, 1)])
def test_a_chunk_seen_whole_gives_the_prediction_that_comes_after_its_commit(
        network, sampling, chunks, memory_chunks):
    session = make_session(network, *SAMPLINGS[sampling], memory_chunks=memory_chunks)
    remember(session, chunks)
    predict(session)
    early = ahead(session, seen=2)
    commit(session)
    assert_same_prediction(early, predict(session))


@pytest.mark.parametrize('forecast', [False, True])
@pytest.mark.parametrize('chunks, memory_chunks', [(0, 8), (2, 8), (5, 3)])
def test_aborted_anywhere_nothing_has_changed(network, chunks, memory_chunks, forecast):
    session = make_session(network, memory_chunks=memory_chunks)
    remember(session, chunks)
    stand_in = predict(session) if forecast else None
    session.discard()
    before, looks = remembered(session), []
    counting = SimpleNamespace(check=lambda: looks.append(1))
    expected = ahead(session, 1, stand_in, interrupt=counting)
    for at in range(len(looks)):
        with pytest.raises(PredictionAborted):
            ahead(session, 1, stand_in, interrupt=Abort(at))
        assert_same_memory(remembered(session), before)
        assert session.kv_cache.valid == before[0].shape[2] and not session.kv_cache.provisional
    assert_same_prediction(ahead(session, 1, stand_in), expected)


def test_the_interrupt_is_checked_before_every_forward(network):
    session, looks = make_session(network), []
    remember(session, 1)
    counted = session.denoiser.network = Counted(network)
    ahead(session, interrupt=SimpleNamespace(check=lambda: looks.append(len(counted.calls))))
    assert looks == list(range(len(counted.calls)))


def test_earlier_predictions_have_no_effect(network):
    session, other = make_session(network), make_session(network)
    remember(session, 2)
    remember(other, 2)
    predict(session)
    assert_same_prediction(ahead(session), ahead(other))
    assert_same_prediction(predict(session), predict(other))


@pytest.mark.parametrize('seen', [0, 1])
def test_observed_frames_of_the_running_chunk_are_not_changed(network, seen):
    """Another forecast of frames that were seen changes nothing; of the rest it does."""
    session = make_session(network)
    remember(session, 1)
    forecast = predict(session)
    result = ahead(session, seen, forecast)
    for frame in range(2):
        latents = forecast.latents.clone()
        latents[:, :, frame] += 1
        other = ahead(session, seen, replace(forecast, latents=latents))
        assert torch.equal(other.actions, result.actions) == (frame < seen)


@pytest.mark.parametrize('forecast', [False, True])
def test_the_executing_actions_change_the_next_chunk(network, forecast):
    session = make_session(network)
    remember(session, 1)
    stand_in = predict(session) if forecast else None
    one = ahead(session, 1, stand_in)
    other = ahead(session, 1, stand_in, real_actions(session.frame, seed=9000))
    assert not torch.equal(one.actions, other.actions)


def test_imagined_frames_depend_on_actions_and_follow_observed_frames(network):
    """Forward dynamics: other actions lead to other frames, and the seen ones stay."""
    session = make_session(network)
    remember(session, 1)
    rest = [ahead(session, 1, actions=real_actions(2, seed=seed)).before for seed in (1, 2)]
    assert not torch.equal(*rest)
    assert torch.equal(ahead(session, 2).before, real_latents(2)[:, :, 1:])


@pytest.mark.parametrize('seen', [0, 1])
def test_imagining_clamps_observed_frames_and_writes_actions_first(network, seen):
    session = make_session(network)
    remember(session, 2)
    frame, end = session.frame, session.kv_cache.end
    counted = session.denoiser.network = Counted(network)
    ahead(session, seen)
    (actions, steps, slots), *imagining = counted.given[:1 + IMAGINE_STEPS]
    assert torch.equal(actions, real_actions(frame) * session.denoiser.channel_mask)
    assert steps == [0.0, 0.0] and slots == slice(end, end + 8)
    for (latents, steps, slots), time in zip(imagining, timesteps(IMAGINE_STEPS, 5.0)):
        assert torch.equal(latents[:, :, :seen], real_latents(frame)[:, :, :seen])
        assert steps == seen * [0.0] + (2 - seen) * [time] and slots == slice(end + 8, end + 16)
    # Then the running chunk in the confirmed order, where the actions alone had been.
    (latents, steps, slots), (actions, _, behind) = counted.given[3:5]
    assert torch.equal(latents[:, :, :seen], real_latents(frame)[:, :, :seen])
    assert steps == [0.0, 0.0] and slots == slice(end, end + 8)
    assert torch.equal(actions, counted.given[0][0]) and behind == slice(end + 8, end + 16)


@pytest.mark.parametrize('predicted', [False, True])
@pytest.mark.parametrize('frames', [1, 2])
def test_a_chunk_is_committed_with_the_cache_of_its_prediction(network, predicted, frames):
    """What a whole chunk displaces is gone before its first token is written."""
    session = make_session(network, memory_chunks=3)
    remember(session, 4)
    if predicted:
        predict(session)
    counted = session.denoiser.network = Counted(network)
    commit(session, frames)
    # Two older chunks of 16 tokens, then 4 video and 4 action tokens for each frame.
    assert counted.seen == [32 + 4 * frames, 32 + 8 * frames]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), memory_chunks=st.integers(1, 4), sampling=st.sampled_from(list(SAMPLINGS)))
def test_whatever_was_predicted_aborted_saved_and_restored_leaves_no_trace(
        network, data, memory_chunks, sampling):
    session, reference = (
        make_session(network, *SAMPLINGS[sampling], memory_chunks) for _ in range(2))
    operations = st.sampled_from(
        ['predict', 'grounded', 'ungrounded', 'abort', 'save', 'discard', 'commit', 'short'])
    saved = None
    for operation in data.draw(st.lists(operations, min_size=4, max_size=16)):
        if operation == 'predict':
            session.discard()
            predict(session)
        elif operation == 'grounded':
            ahead(session, data.draw(st.integers(0, 2)))
        elif operation == 'ungrounded':
            session.discard()
            ahead(session, data.draw(st.integers(0, 2)), predict(session))
        elif operation == 'abort':
            with pytest.raises(PredictionAborted):
                ahead(session, 1, interrupt=Abort(data.draw(st.integers(0, 8))))
        elif operation == 'save':
            saved = session.save()
        elif operation == 'discard':
            if saved is not None and saved.frame == session.frame:
                session.restore(saved)
            session.discard()
        else:
            for each in (session, reference):
                commit(each, 1 if operation == 'short' else 2)
    assert_same_memory(remembered(session), remembered(reference))
    session.discard()
    assert_same_prediction(predict(session), predict(reference))


def test_unused_channels_of_executing_actions_do_not_matter(network):
    session = make_session(network)
    remember(session, 1)
    actions = real_actions(2)
    actions[:, 0] += 1
    assert_same_prediction(ahead(session), ahead(session, actions=actions))


def test_a_noisy_forecast_is_written_with_its_time_step(network):
    session = make_session(network, replace(VIDEO, exec_steps=2))
    remember(session, 1)
    forecast = predict(session)
    assert 0 < forecast.final_timestep < 1000
    clean = replace(forecast, final_timestep=0.0)
    assert not torch.equal(
        ahead(session, 1, forecast).actions, ahead(session, 1, clean).actions)
    assert predict(make_session(network)).final_timestep == 0


# The figures of 25 video and 50 action steps with guidance 5, the commit included.
@pytest.mark.parametrize('schedule, seen, expected', [
    ('sync', 2, 105), ('async_ungrounded', 1, 109), ('async', 1, 117), ('async', 2, 109)])
def test_a_chunk_costs_the_forwards_that_its_schedule_needs(network, schedule, seen, expected):
    session = make_session(network, Sampling(25, 5.0, 5.0), Sampling(50, 1.0, 1.0))
    remember(session, 1)
    forecast = predict(session)
    session.discard()
    counted = session.denoiser.network = Counted(network)
    if schedule == 'sync':
        predict(session)
    else:
        ahead(session, seen, forecast if schedule == 'async_ungrounded' else None, steps=3)
    commit(session)
    assert counted.sequences == expected


@pytest.mark.parametrize('video_guidance, action_guidance, halves', [
    (1.0, 1.0, (1, 1)), (5.0, 1.0, (2, 2)), (1.0, 2.0, (1, 2)), (5.0, 2.0, (2, 2))])
def test_only_halves_that_are_read_are_written(network, video_guidance, action_guidance, halves):
    """Of the imagination the video's, of the running chunk what either loop reads."""
    session = make_session(
        network, Sampling(3, 5.0, video_guidance), Sampling(4, 1.0, action_guidance))
    remember(session, 1)
    counted = session.denoiser.network = Counted(network)
    ahead(session)
    imagining, running = halves
    assert counted.calls[:5] == [
        ('write_actions', imagining), ('video_velocity', imagining),
        ('video_velocity', imagining), ('write_video', running), ('write_actions', running)]


def test_guidance_that_was_taken_away_costs_nothing_ahead(network):
    session = make_session(network)
    remember(session, 1)
    session.set_sampling(PLAIN, session.action)
    counted = session.denoiser.network = Counted(network)
    ahead(session)
    assert {count for _, count in counted.calls} == {1}


@pytest.mark.parametrize('chunks', [1, 5])
def test_the_buffer_is_moved_by_commits_alone(network, chunks):
    session = make_session(network, memory_chunks=2)
    for _ in range(chunks):
        remember(session, 1)
        place = session.kv_cache.start, session.kv_cache.end
        forecast = predict(session)
        session.discard()
        ahead(session)
        ahead(session, 0, forecast)
        assert (session.kv_cache.start, session.kv_cache.end) == place


def test_after_an_open_loop_there_is_room_to_predict_ahead(network):
    session, lengths = make_session(network, memory_chunks=2), []
    remember(session, 2)
    for count in range(6):
        for frame in range(count):
            session.predict(*noise(session.frame + 2 * frame))
        before = remembered(session)
        prediction = ahead(session)
        lengths.append(session.kv_cache.end)
        assert prediction.latents.isfinite().all()
        assert_same_memory(remembered(session), before)


def test_noise_for_imagining_is_drawn_from_seed_and_frame_and_is_that_of_no_prediction():
    torch.manual_seed(1)
    first = imagining_noise(7, 4, SHAPE, 48)
    torch.manual_seed(2)
    assert torch.equal(first, imagining_noise(7, 4, SHAPE, 48))
    for seed, frame in ((8, 4), (7, 6)):
        assert not torch.equal(first, imagining_noise(seed, frame, SHAPE, 48))
    assert not torch.equal(first, chunk_noise(7, 4, SHAPE, 48, 30)[0])
    assert first.shape == (1, 48, 2, 4, 4)


@pytest.mark.parametrize('chunks, memory_chunks', [(1, 8), (3, 8), (5, 2)])
def test_keeping_the_last_chunk_leaves_no_trace_of_older_ones(network, chunks, memory_chunks):
    session, fresh = (make_session(network, memory_chunks=memory_chunks) for _ in range(2))
    remember(session, chunks)
    predict(session)
    session.rebuild_from_last_chunk()
    fresh.frame = session.frame - 2
    commit(fresh)
    assert_same_memory(remembered(session), remembered(fresh))
    assert session.frame == fresh.frame
    assert_same_prediction(predict(session), predict(fresh))
    assert_same_prediction(ahead(session), ahead(fresh))


def test_a_last_chunk_that_was_cut_off_is_kept_as_it_was(network):
    session, fresh = make_session(network), make_session(network)
    remember(session, 2)
    commit(session, 1)
    session.rebuild_from_last_chunk()
    fresh.frame = session.frame - 1
    commit(fresh, 1)
    assert_same_memory(remembered(session), remembered(fresh))


def test_keeping_the_last_chunk_of_nothing_keeps_nothing(network):
    session = make_session(network)
    session.rebuild_from_last_chunk()
    assert session.kv_cache.valid == 0 and session.frame == 0


def test_committed_latents_are_copied(network):
    session, fresh = make_session(network), make_session(network)
    latents = real_latents(0)
    session.commit(latents, real_actions(0))
    latents += 1
    session.rebuild_from_last_chunk()
    commit(fresh)
    assert_same_memory(remembered(session), remembered(fresh))


@pytest.mark.parametrize('name', ['video', 'action'])
def test_the_noise_scale_multiplies_the_starting_noise(network, name):
    scaled, plain = make_session(network), make_session(network)
    for session in (scaled, plain):
        remember(session, 1)
    sampling = {'video': scaled.video, 'action': scaled.action}
    sampling[name] = replace(sampling[name], noise_scale=0.5)
    scaled.set_sampling(**sampling)
    video, action = noise(2)
    half = (video / 2, action) if name == 'video' else (video, action / 2)
    assert_same_prediction(scaled.predict(video, action), plain.predict(*half))


def test_predicting_ahead_runs_on_the_device_of_the_network(network):
    # The meta device computes shapes only, and refuses tensors of other devices as a GPU does.
    # It is slow, and all layers are alike: one is enough, and a memory that evicts at once.
    with torch.device('meta'):
        elsewhere = type(network)(replace(network.config, num_layers=1)).to(torch.bfloat16)
    session = make_session(elsewhere, memory_chunks=1)
    remember(session, 2)
    forecast = predict(session)
    for stand_in in (None, forecast):
        assert ahead(session, 1, stand_in).actions.device.type == 'meta'
    session.rebuild_from_last_chunk()
    assert isinstance(session._last_chunk, WrittenChunk)
