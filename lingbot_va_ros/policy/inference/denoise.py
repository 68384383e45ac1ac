"""The forward passes of a chunk: denoising of video and actions, and writes to the KV cache."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lingbot_va_ros.model.cuda_graphs import StepGraphs
from lingbot_va_ros.model.flow_matching import euler_step, nearest_index, noise_levels
from lingbot_va_ros.model.flow_matching import timesteps as denoising_timesteps
from lingbot_va_ros.model.kv_cache import CacheSlot, SlidingKVCache
from lingbot_va_ros.model.rope import action_positions, rotary_table, video_positions
from lingbot_va_ros.model.transformer import Network, TextKV
from lingbot_va_ros.policy.inference.chunk_shape import ChunkShape
from lingbot_va_ros.policy.interrupt import Interrupt, UNINTERRUPTED
from lingbot_va_ros.specs.policy_file import Sampling

CLEAN = 0.0  # the time step of observed frames and executed actions
AHEAD_CHUNKS = 2  # maximum that a prediction writes: the running chunk and the next
ROTARY_TABLES = 16  # maximum cached tables: those of the running chunk and of the next


@dataclass(frozen=True)
class Prediction:
    """
    A predicted chunk.

    :param latents: the imagined video, [1, C, F, h, w].
    :param actions: [1, C, F, N, 1] normalized, unused channels 0.
    :param first_frame: frame counter of the first latent frame.
    :param final_timestep: time step at which the denoising of the video ended: 0, or above 0 with
        `exec_steps`.
    :param before: [1, C, 1, h, w], the latent frame before the chunk, observed or not; None unless
        the chunk was predicted ahead.
    """

    latents: Tensor
    actions: Tensor
    first_frame: int
    final_timestep: float = CLEAN
    before: Tensor | None = None


@dataclass(frozen=True)
class WrittenChunk:
    """A chunk in the KV cache: latents [1, C, F', h, w], actions [1, C, F', N, 1] normalized."""

    latents: Tensor
    actions: Tensor
    first_frame: int


@dataclass(frozen=True)
class Conditions:
    """
    The instruction, and steps and guidance of video and actions, of the forwards of a prediction.

    :param text: keys and values of the cross-attention, [prompt, negative prompt].
    """

    text: TextKV
    video: Sampling
    action: Sampling


@dataclass(frozen=True)
class DeferredWrite:
    """A write that only a prediction without a preceding observation reads."""

    write: Callable[..., None]
    content: Tensor
    timesteps: list[float]
    rotary: Tensor
    slot: CacheSlot


class Denoiser:
    """
    Runs the network on the KV cache of a session, chunk by chunk.

    A forward pass runs only the guidance halves whose results are used. With guidance of the video
    and none of the actions, the action loop runs without the negative half. Writes that only an
    open-loop continuation reads (the negative half of the imagined video, the predicted actions)
    are deferred until `run_deferred_writes`.

    :param network: see `Session`, as `shape`, `used_channels` and `graphs`.
    :param kv_cache: of the session, which alone decides what of it is kept.
    """

    def __init__(
        self, network: Network, shape: ChunkShape, kv_cache: SlidingKVCache,
        used_channels: Sequence[int], graphs: StepGraphs | None = None,
    ):
        self.network = network
        self.graphs = graphs
        self.shape = shape
        self.kv_cache = kv_cache
        config = network.config
        self.video_tokens = shape.video_tokens(config.patch)
        self._chunk_tokens = self.video_tokens + shape.action_tokens
        self.channel_mask = torch.zeros(1, config.action_channels, 1, 1, 1, device=network.device)
        self.channel_mask[:, list(used_channels)] = 1
        self._deferred: list[DeferredWrite] = []
        # By kind, first frame and number of frames.
        self._rotary_tables: OrderedDict[tuple[str, int, int], Tensor] = OrderedDict()

    @property
    def step_runner(self) -> Network | StepGraphs:
        """The object that computes the velocity of a denoising step."""
        return self.graphs or self.network

    def run_deferred_writes(self, text: TextKV | None) -> None:
        """Execute the deferred writes, which an open-loop continuation reads, with a text."""
        for deferred in self._deferred:
            deferred.write(
                deferred.content, deferred.timesteps, deferred.rotary, text, deferred.slot)
        self._deferred.clear()

    def drop_deferred_writes(self) -> None:
        """Drop the deferred writes: no open-loop continuation reads them."""
        self._deferred.clear()

    def write_chunk(
        self, chunk: WrittenChunk, text: TextKV, timesteps: list[float], cfg_batch: int,
        provisional: bool, interrupt: Interrupt = UNINTERRUPTED,
    ) -> None:
        """
        Write a chunk to the KV cache, video first.

        :param text: as in `Conditions`.
        :param timesteps: those of its latent frames.
        :param cfg_batch: number of guidance halves to write.
        :param interrupt: checked before every forward pass.
        :raises PredictionAborted: by the interrupt.
        """
        frames = chunk.latents.shape[2]
        self.kv_cache.make_room(self._chunk_tokens)
        for write, content, times, rotary in (
                (self.network.write_video, chunk.latents, timesteps,
                 self.video_rotary(chunk.first_frame, frames)),
                (self.network.write_actions, chunk.actions, chunk.actions.shape[2] * [CLEAN],
                 self.action_rotary(chunk.first_frame, chunk.actions.shape[2]))):
            interrupt.check()
            slot = self.kv_cache.reserve(len(rotary), slice(0, cfg_batch))
            write(_repeat(content, cfg_batch), times, rotary, text, slot)
            self.kv_cache.keep(slot, provisional)

    def imagine(
        self, observed: Tensor, actions: Tensor, first_frame: int, noise: Tensor,
        num_steps: int, conditions: Conditions, interrupt: Interrupt,
    ) -> Tensor:
        """
        Return a chunk's latents: the observed ones, and the others by forward dynamics.

        The actions are written before the video that they cause, and stay in the cache.

        :param observed: [1, C, n, h, w], the chunk's first n latent frames.
        :param actions: [1, C, F, N, 1] normalized, of the whole chunk.
        :param noise: [1, C, F, h, w] standard normal.
        :param interrupt: checked before every forward pass.
        :raises PredictionAborted: by the interrupt.
        :returns: [1, C, F, h, w].
        """
        sampling, text = conditions.video, conditions.text
        cfg_batch = cfg_batch_of(sampling)
        count, missing = observed.shape[2], self.shape.frames - observed.shape[2]
        self.kv_cache.make_room(self._chunk_tokens)
        interrupt.check()
        slot = self.kv_cache.reserve(self.shape.action_tokens, slice(0, cfg_batch))
        self.network.write_actions(
            _repeat(actions, cfg_batch), self.shape.frames * [CLEAN],
            self.action_rotary(first_frame, self.shape.frames), text, slot)
        self.kv_cache.keep(slot, provisional=True)
        rotary = self.video_rotary(first_frame, self.shape.frames)
        levels = noise_levels(num_steps, sampling.shift)
        latents = noise.to(self.network.device) * sampling.noise_scale
        for index, time in enumerate(denoising_timesteps(num_steps, sampling.shift)):
            latents = torch.cat((observed, latents[:, :, count:]), 2)
            interrupt.check()
            slot = self.kv_cache.reserve(self.video_tokens, slice(0, cfg_batch))
            velocity = self.step_runner.video_velocity(
                _repeat(latents, cfg_batch), count * [CLEAN] + missing * [time], rotary, text,
                slot)
            latents = euler_step(
                latents, _guided(velocity, sampling.guidance), index, levels)
        return torch.cat((observed, latents[:, :, count:]), 2)

    def denoise(
        self, video_noise: Tensor, action_noise: Tensor, first_frame: int,
        first_latent: Tensor | None, conditions: Conditions, interrupt: Interrupt,
    ) -> Prediction:
        """
        Denoise a chunk after the tokens in the cache, video first; its tokens are provisional.

        :param video_noise: [1, C, F, h, w] standard normal.
        :param action_noise: [1, C, F, N, 1] standard normal.
        :param first_latent: [1, C, 1, h, w], the observed first frame of an episode; used where
            `first_frame` is 0.
        :param interrupt: checked before every forward pass.
        :raises PredictionAborted: by the interrupt.
        """
        clamp = first_latent if first_frame == 0 else None
        device, video = self.network.device, conditions.video
        latents = self._denoise_video(
            video_noise.to(device) * video.noise_scale, first_frame, clamp, conditions, interrupt)
        actions = self._denoise_actions(
            action_noise.to(device) * conditions.action.noise_scale, first_frame, conditions,
            interrupt)
        times = [*denoising_timesteps(video.steps, video.shift), CLEAN]
        steps_run = video.exec_steps
        final_timestep = times[steps_run] if 0 < steps_run < len(times) else CLEAN
        return Prediction(latents, actions * self.channel_mask, first_frame, final_timestep)

    def _denoise_video(
        self, latents: Tensor, first_frame: int, clamp: Tensor | None, conditions: Conditions,
        interrupt: Interrupt,
    ) -> Tensor:
        sampling, text = conditions.video, conditions.text
        cfg_batch = cfg_batch_of(sampling)
        read_batch = cfg_batch_of(conditions.action)  # halves that the action loop runs
        levels = noise_levels(sampling.steps, sampling.shift)
        times = [*denoising_timesteps(sampling.steps, sampling.shift), CLEAN]
        writes_noisy = sampling.exec_steps > 0
        if writes_noisy:
            times = times[:sampling.exec_steps]
        rotary = self.video_rotary(first_frame, self.shape.frames)
        timesteps = self.shape.frames * [CLEAN]
        for index, time in enumerate(times):
            interrupt.check()
            timesteps = self.shape.frames * [time]
            if clamp is not None:
                latents = torch.cat((clamp, latents[:, :, 1:]), 2)
                timesteps = [CLEAN, *timesteps[1:]]
            last = index == len(times) - 1
            if last and not writes_noisy:
                break
            step_batch = max(cfg_batch, read_batch) if last else cfg_batch
            slot = self.kv_cache.reserve(self.video_tokens, slice(0, step_batch))
            velocity = self.step_runner.video_velocity(
                _repeat(latents, step_batch), timesteps, rotary, text, slot)
            latents = euler_step(
                latents, _guided(velocity, sampling.guidance), nearest_index(time, levels), levels)
            if last:
                self.kv_cache.keep(slot, provisional=True)
        if not writes_noisy:
            slot = self.kv_cache.reserve(self.video_tokens, slice(0, read_batch))
            self.network.write_video(_repeat(latents, read_batch), timesteps, rotary, text, slot)
            self.kv_cache.keep(slot, provisional=True)
            if read_batch < self.kv_cache.cfg_batch:
                unread = slice(read_batch, self.kv_cache.cfg_batch)
                self._deferred.append(DeferredWrite(
                    self.network.write_video, latents, timesteps, rotary,
                    slot.for_batch(unread)))
        if clamp is not None:
            latents = torch.cat((clamp, latents[:, :, 1:]), 2)
        return latents

    def _denoise_actions(
        self, actions: Tensor, first_frame: int, conditions: Conditions, interrupt: Interrupt,
    ) -> Tensor:
        sampling, text = conditions.action, conditions.text
        cfg_batch = cfg_batch_of(sampling)
        levels = noise_levels(sampling.steps, sampling.shift)
        rotary = self.action_rotary(first_frame, self.shape.frames)
        timesteps = self.shape.frames * [CLEAN]
        times = [*denoising_timesteps(sampling.steps, sampling.shift), CLEAN]
        for index, time in enumerate(times):
            timesteps = self.shape.frames * [time]
            if first_frame == 0:
                actions = torch.cat((torch.zeros_like(actions[:, :, :1]), actions[:, :, 1:]), 2)
                timesteps = [CLEAN, *timesteps[1:]]
            actions = actions * self.channel_mask
            if index == sampling.steps:
                break
            interrupt.check()
            slot = self.kv_cache.reserve(self.shape.action_tokens, slice(0, cfg_batch))
            velocity = self.step_runner.action_velocity(
                _repeat(actions, cfg_batch), timesteps, rotary, text, slot)
            actions = euler_step(actions, _guided(velocity, sampling.guidance), index, levels)
        slot = self.kv_cache.reserve(self.shape.action_tokens)
        self.kv_cache.keep(slot, provisional=True)
        self._deferred.append(DeferredWrite(
            self.network.write_actions, _repeat(actions, self.kv_cache.cfg_batch), timesteps,
            rotary, slot))
        return actions

    def video_rotary(self, first_frame: int, frames: int) -> Tensor:
        """Return the rotary table of a chunk's video tokens, [L, 1, D / 2] complex64."""
        patch = self.network.config.patch
        return self._rotary_table('video', first_frame, frames, lambda: video_positions(
            frames, self.shape.rows // patch[1], self.shape.columns // patch[2], first_frame))

    def action_rotary(self, first_frame: int, frames: int) -> Tensor:
        """Return the rotary table of a chunk's action tokens, [L, 1, D / 2] complex64."""
        return self._rotary_table('action', first_frame, frames, lambda: action_positions(
            frames, self.shape.actions, first_frame))

    def _rotary_table(
        self, kind: str, first_frame: int, frames: int, positions: Callable[[], Tensor],
    ) -> Tensor:
        key = (kind, first_frame, frames)
        if key not in self._rotary_tables:
            self._rotary_tables[key] = rotary_table(
                positions(), self.network.config.head_dim, self.network.device)
            if len(self._rotary_tables) > ROTARY_TABLES:
                self._rotary_tables.popitem(last=False)
        return self._rotary_tables[key]


def cfg_batch_of(sampling: Sampling) -> int:
    """Return the number of guidance halves that sampling runs."""
    return 2 if sampling.guidance > 1 else 1


def _repeat(content: Tensor, cfg_batch: int) -> Tensor:
    """Return a view of [1, …] as [cfg_batch, …]."""
    return content.expand(cfg_batch, *content.shape[1:])


def _guided(velocity: Tensor, scale: float) -> Tensor:
    """
    Return negative + scale * (prompt - negative), [1, …], of [prompt, negative prompt].

    Classifier-free guidance (arXiv 2207.12598) in the form of the public code.
    """
    if scale <= 1:
        return velocity[:1]
    return velocity[1:] + scale * (velocity[:1] - velocity[1:])
