"""The losses: targets that suit the sampler, masks, and that they decrease."""

from dataclasses import fields, replace

import pytest
import torch

from lingbot_va_ros.model.flow_matching import euler_step, noise_levels
from lingbot_va_ros.training.batch_sampling import BatchSamplingSettings, sample_batch
from lingbot_va_ros.training.losses import (
    EventHead,
    LossWeights,
    noised,
    place_loss,
    PlaceHead,
    velocity,
)
from lingbot_va_ros.training.sequence import build_sequence, training_losses

SIZES = [(6, 2, 4), (9, 3, 2)]  # frames of an episode, frames of a chunk, actions of a frame


def drawn_of(episodes, chunk, seed=0, **settings):
    return sample_batch(episodes, BatchSamplingSettings(**{
        'chunk_frames': (chunk, chunk), 'window_chunks': (2, 8), **settings}),
        torch.Generator().manual_seed(seed))


def assert_same(one, other):
    for field in fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if left is not None:
            torch.testing.assert_close(left, right, rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize('steps, shift', [(1, 1.0), (4, 5.0), (8, 0.05)])
def test_the_sampler_follows_the_velocity_from_noise_to_the_data(steps, shift):
    clean, noise = torch.randn(2, 1, 3, 2, 4, 4)
    levels, sample = noise_levels(steps, shift), noise
    for index in range(steps):
        expected = noised(clean, noise, levels[index].expand(1, 2))
        torch.testing.assert_close(sample, expected, rtol=0, atol=1e-5)
        sample = euler_step(sample, velocity(clean, noise), index, levels)
    torch.testing.assert_close(sample, clean, rtol=0, atol=1e-5)


@pytest.mark.parametrize('frames, chunk, actions', SIZES)
def test_unpredicted_frames_do_not_count(network, make_episodes, frames, chunk, actions):
    # What would be the target of the first frame, and of unused channels, is changed.
    episodes = make_episodes(frames, actions, batch=2)
    sample = drawn_of(episodes, chunk, forward_dynamics=1, noisy_history=0)
    other = replace(sample, video_noise=sample.video_noise.clone(),
                    action_noise=sample.action_noise.clone())
    other.video_noise.movedim(2, 1)[sample.clamped] += 1
    other.action_noise.movedim(2, 1)[sample.noisy_frames == 0] += 1
    other.action_noise[:, [1, 4]] += 1
    with torch.no_grad():
        assert_same(*(training_losses(network, episodes, each) for each in (sample, other)))


def test_the_first_frame_is_given_with_no_action(make_episodes):
    episodes = make_episodes(6, 4)
    sample = drawn_of(episodes, 2, replicas=2, action_history_std=1)
    sequence = build_sequence(episodes, sample)
    first = sample.noisy_frames[0] == 0
    assert first.sum() == 2
    assert torch.equal(sequence.noisy_video[:, :, first],
                       episodes.latents[:, :, :1].expand(-1, -1, 2, -1, -1))
    assert sequence.noisy_actions[:, :, first].abs().max() == 0
    assert sequence.clean_actions[:, :, 0].abs().max() == 0
    assert sequence.video_level[0, first].max() == sequence.action_level[0, first].max() == 0


def test_noise_on_executed_actions_is_as_wide_as_asked_for_and_leaves_unused_channels(
        make_episodes):
    episodes = make_episodes(20, 4, batch=8)
    sequence = build_sequence(episodes, drawn_of(episodes, 2, action_history_std=0.02))
    noise = (sequence.clean_actions - episodes.actions)[:, :, 1:]
    assert 0.018 < noise[:, list(episodes.channels)].std() < 0.022
    assert noise[:, [1, 4]].abs().max() == 0


def test_an_episode_counts_for_dynamics_or_forward_dynamics(network, make_episodes):
    episodes = make_episodes(6, 4, batch=2)
    sample = replace(drawn_of(episodes, 2), clamped=torch.zeros(2, 6, dtype=torch.bool))
    sample = replace(sample, clamped=sample.noisy_frames == 0)
    with torch.no_grad():
        for forward in ([False, False], [True, True], [True, False]):
            losses = training_losses(
                network, episodes, replace(sample, forward_dynamics=torch.tensor(forward)),
                LossWeights(inverse=0.25))
            parts = [part for part in (losses.dynamics, losses.forward_dynamics)
                     if not part.isnan()]
            assert bool(losses.dynamics.isnan()) == all(forward)
            assert bool(losses.forward_dynamics.isnan()) == (not any(forward))
            torch.testing.assert_close(
                losses.total, sum(parts) / len(parts) + 0.25 * losses.inverse)


def test_the_event_head_does_not_change_the_network(network, make_episodes):
    episodes = replace(make_episodes(6, 4, batch=2),
                       events=torch.tensor([[0, 0, 1, 1, 2, 9]]).expand(2, -1))
    sample, head = drawn_of(episodes, 2), EventHead(network.config.dim, most=3)
    losses = training_losses(network, episodes, sample, LossWeights(events=0.3), head)
    without = training_losses(network, episodes, sample)
    torch.testing.assert_close(losses.total, without.total + 0.3 * losses.events)
    losses.total.backward()
    assert all(weight.grad is not None for weight in head.parameters())
    assert not {id(weight) for weight in head.parameters()} & {
        id(weight) for weight in network.parameters()}


def test_the_place_head_does_not_change_the_network(network, make_episodes):
    places = torch.rand(2, 6, 3, 3)
    places[:, :, 1] = torch.nan  # a body of another scene
    episodes = replace(make_episodes(6, 4, batch=2), places=places)
    sample, head = drawn_of(episodes, 2), PlaceHead(network.config.dim, 3)
    without = training_losses(network, episodes, sample)
    losses = training_losses(
        network, episodes, sample, LossWeights(places=0.3), place_head=head)
    torch.testing.assert_close(losses.total, without.total + 0.3 * losses.places)
    losses.total.backward()
    assert network.video.embed.weight.grad.isfinite().all()


def test_places_of_frames_and_bodies_that_are_not_there_do_not_count():
    places = torch.zeros(1, 3, 2, 3)
    places[0, 0, 1] = torch.nan
    found = places.nan_to_num().clone()
    found[0, 0, 1] = found[0, 2] = 9.0
    there = torch.tensor([[True, True, False]])
    assert place_loss(found, places, there) == 0
    found[0, 1, 0, 0] = 0.1  # two units: 2 - 0.1, over nine known numbers
    torch.testing.assert_close(place_loss(found, places, there), torch.tensor(1.9 / 9))


def test_a_head_without_places_is_refused(network, make_episodes):
    episodes = make_episodes(6, 4)
    with pytest.raises(ValueError, match='a place head needs episodes with places'):
        training_losses(network, episodes, drawn_of(episodes, 2),
                        place_head=PlaceHead(network.config.dim, 1))


def test_a_head_without_events_is_refused(network, make_episodes):
    episodes = make_episodes(6, 4)
    with pytest.raises(ValueError, match='an event head needs episodes with events'):
        training_losses(network, episodes, drawn_of(episodes, 2),
                        event_head=EventHead(network.config.dim, 3))


def test_every_weight_learns(network, make_episodes):
    episodes = make_episodes(6, 4, batch=4)
    training_losses(network, episodes, drawn_of(episodes, 2)).total.backward()
    without = [name for name, weight in network.named_parameters()
               if weight.grad is None or not weight.grad.abs().max() > 0]
    assert without == []


def test_the_losses_of_a_short_training_fall(network, make_episodes):
    episodes = make_episodes(6, 2, batch=2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)

    def mean_losses(seed):
        with torch.no_grad():
            losses = [training_losses(network, episodes, drawn_of(
                episodes, 2, seed=seed + step, noisy_history=0)) for step in range(8)]
        return (torch.stack([loss.dynamics.nan_to_num() + loss.forward_dynamics.nan_to_num()
                             for loss in losses]).mean(),
                torch.stack([loss.inverse for loss in losses]).mean())

    before = mean_losses(1000)
    for step in range(60):
        optimizer.zero_grad()
        training_losses(network, episodes, drawn_of(
            episodes, 2, seed=step, noisy_history=0)).total.backward()
        optimizer.step()
    for first, last in zip(before, mean_losses(1000)):
        assert last < 0.8 * first


def test_half_precision_on_the_cpu_gives_nearly_the_same_losses_and_gradients(
        network, make_episodes):
    episodes, found = make_episodes(9, 3, batch=4), []
    sample = drawn_of(episodes, 3)
    for half in (False, True):
        network.zero_grad()
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            losses = training_losses(network, episodes, sample)
        losses.total.backward()
        assert losses.total.dtype == torch.float32
        found.append((losses, torch.cat([
            weight.grad.flatten() for weight in network.parameters()])))
    (exact, gradient), (near, near_gradient) = found
    assert near.total.item() == pytest.approx(exact.total.item(), rel=0.01)
    assert torch.cosine_similarity(gradient, near_gradient, 0) > 0.999
