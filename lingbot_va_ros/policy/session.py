"""One episode's computation: predict a chunk from the memory, commit what really happened."""

from dataclasses import dataclass
from typing import Callable, List, Optional, Sequence

import torch
from torch import Tensor

from lingbot_va_ros.model.memory import KVMemory, Place
from lingbot_va_ros.model.positions import action_positions, rotary_table, video_positions
from lingbot_va_ros.model.schedule import euler_step, nearest_index, noise_levels, timesteps
from lingbot_va_ros.model.transformer import TextStates, Transformer
from lingbot_va_ros.policy.errors import PredictionAborted
from lingbot_va_ros.policy.policy_file import Sampling

CLEAN = 0.0  # the time step of what has been seen or done
SPARE_CHUNKS = 2  # room in the memory's buffer beyond its capacity


@dataclass(frozen=True)
class ChunkShape:
    """
    The tensors of a chunk.

    A latent picture of `rows` x `columns` latents for each of `frames` frames, and `actions`
    actions a frame.
    """

    frames: int
    actions: int
    rows: int
    columns: int

    def video_tokens(self, patch: Sequence[int]) -> int:
        """
        Return the number of video tokens of a chunk.

        :raises ValueError: patches do not cover the picture.
        """
        if self.rows % patch[1] or self.columns % patch[2]:
            raise ValueError(
                f'{self.rows} x {self.columns} latents (one for 16 x 16 pixels, all views joined) '
                f'cannot be cut into patches of {patch[1]} x {patch[2]}')
        return self.frames * (self.rows // patch[1]) * (self.columns // patch[2])

    @property
    def action_tokens(self) -> int:
        """Number of action tokens of a chunk."""
        return self.frames * self.actions


@dataclass(frozen=True)
class Prediction:
    """
    A predicted chunk.

    `latents` [1, C, F, h, w] is the imagined video, `actions` [1, C, F, N, 1] normalised, unused
    channels 0; `first_frame` the frame counter of its first frame.
    """

    latents: Tensor
    actions: Tensor
    first_frame: int


@dataclass(frozen=True)
class _Owed:
    """A write that matters only if the next prediction comes without an observation."""

    write: Callable
    content: Tensor
    steps: List[float]
    rotary: Tensor
    place: Place


class Session:
    """
    Memory and sampling of one episode, in the synchronous order of the public server.

    Only forwards whose product is used are run. With guidance on the video and none on the actions
    the negative half takes no part in the action loop, and what only an open-loop continuation
    reads (the negative half of the imagined video, the predicted actions) is written when such a
    continuation comes.

    :param text_rows: what `set_text` must bring: 2 where either guidance is above 1.
    """

    def __init__(
        self, network: Transformer, shape: ChunkShape, video: Sampling, action: Sampling,
        used_channels: Sequence[int], memory_chunks: int,
    ):
        self.network = network
        self.shape = shape
        self.video = video
        self.action = action
        config = network.config
        self.video_tokens = shape.video_tokens(config.patch)
        self.text_rows = 2 if max(video.guidance, action.guidance) > 1 else 1
        chunk = self.video_tokens + shape.action_tokens
        self.memory = KVMemory(
            config.num_layers, self.text_rows, memory_chunks * chunk,
            SPARE_CHUNKS * chunk, config.heads, config.head_dim, network.device, network.dtype)
        self.channel_mask = torch.zeros(1, config.action_channels, 1, 1, 1, device=network.device)
        self.channel_mask[:, list(used_channels)] = 1
        self.text: Optional[TextStates] = None
        self.frame = 0  # confirmed latent frames
        self.imagined_frames = 0  # predicted ones behind them
        self.first_latent: Optional[Tensor] = None
        self._owed: List[_Owed] = []
        self._before: Optional[tuple] = None  # the memory's mark before the prediction

    def set_text(self, embeddings: Tensor) -> None:
        """
        Set the instruction for the forwards to come; the memory stays as it is.

        :param embeddings: [text_rows, 512, text_dim]: the prompt, then the negative prompt.
        :raises ValueError: another number of rows.
        """
        if embeddings.shape[0] != self.text_rows:
            raise ValueError(
                f'{embeddings.shape[0]} prompt embeddings; expected {self.text_rows}')
        self.text = self.network.text_states(embeddings)

    def reset(self) -> None:
        """Forget the episode; the text stays."""
        self.memory.clear()
        self.frame = self.imagined_frames = 0
        self.first_latent = None
        self._owed.clear()
        self._before = None

    def discard(self) -> None:
        """
        Drop what has been predicted and not confirmed, as if it had never been.

        What the prediction displaced comes back, so that the next one sees what this one saw; only
        after an open-loop continuation it stays evicted.
        """
        if self._before is not None:
            self.memory.rewind(self._before)
        self._drop_predictions()

    def _drop_predictions(self) -> None:
        self.memory.drop_provisional()
        self.imagined_frames = 0
        self._owed.clear()
        self._before = None

    @torch.inference_mode()
    def predict(
        self, video_noise: Tensor, action_noise: Tensor, first_latent: Optional[Tensor] = None,
        between_steps: Callable[[], None] = lambda: None,
    ) -> Prediction:
        """
        Denoise the next chunk, video first, then actions.

        Its tokens are provisional. A second call without `commit` in between continues in the
        imagination (open loop); `discard` first predicts the same chunk again.

        :param video_noise: [1, C, F, h, w] standard normal.
        :param action_noise: [1, C, F, N, 1] standard normal.
        :param first_latent: [1, C, 1, h, w], the observed frame that begins an episode; needed by
            the first prediction and ignored by later ones.
        :param between_steps: called before every forward; may raise PredictionAborted.
        :raises PredictionAborted: from `between_steps`; the memory is then as it was.
        """
        first_frame = self.frame + self.imagined_frames
        if first_frame == 0:
            if first_latent is None:
                raise ValueError('the first prediction of an episode needs an observed latent')
            self.first_latent = first_latent.to(self.network.device)
        for owed in self._owed:
            owed.write(owed.content, owed.steps, owed.rotary, self.text, owed.place)
        self._owed.clear()
        self.memory.make_ready(self.video_tokens + self.shape.action_tokens)
        before = self.memory.mark()
        # A continuation may have moved the window, which outdates the mark of the first one.
        self._before = before if self.imagined_frames == 0 else None
        try:
            clamp = self.first_latent if first_frame == 0 else None
            latents = self._denoise_video(
                video_noise.to(self.network.device), first_frame, clamp, between_steps)
            actions = self._denoise_actions(
                action_noise.to(self.network.device), first_frame, between_steps)
        except PredictionAborted:
            self.memory.rewind(before)
            self._owed.clear()
            raise
        self.imagined_frames += self.shape.frames
        return Prediction(latents, actions * self.channel_mask, first_frame)

    @torch.inference_mode()
    def commit(self, latents: Tensor, actions: Tensor) -> None:
        """
        Write what was seen and done; predictions are dropped first.

        :param latents: [1, C, F', h, w], the real frames (chunk 0: its first one included).
        :param actions: [1, C, F', N, 1] normalised, the executed ones (frame 0 of an episode: what
            the caller wants it to be; zero in training).
        """
        self._drop_predictions()  # what they displaced stays evicted, as in the public code
        latents = latents.to(self.network.device)
        actions = actions.to(self.network.device) * self.channel_mask
        frames = latents.shape[2]
        video_tokens = frames * self.video_tokens // self.shape.frames
        action_tokens = actions.shape[2] * actions.shape[3]
        self.memory.make_ready(video_tokens + action_tokens)
        for write, content, rotary, tokens in (
                (self.network.write_video, latents,
                 self._video_rotary(self.frame, frames), video_tokens),
                (self.network.write_actions, actions,
                 self._action_rotary(self.frame, actions.shape[2]), action_tokens)):
            place = self.memory.reserve(tokens)
            write(self._rows(content, self.text_rows), [CLEAN] * content.shape[2], rotary,
                  self.text, place)
            self.memory.keep(place, provisional=False)
        self.frame += frames

    def _denoise_video(
        self, latents: Tensor, first_frame: int, clamp: Optional[Tensor],
        between_steps: Callable[[], None],
    ) -> Tensor:
        sampling, rows = self.video, 2 if self.video.guidance > 1 else 1
        readers = 2 if self.action.guidance > 1 else 1  # halves that the action loop runs
        levels = noise_levels(sampling.steps, sampling.shift)
        times = timesteps(sampling.steps, sampling.shift) + [CLEAN]
        writes_noisy = sampling.exec_steps > 0
        if writes_noisy:
            times = times[:sampling.exec_steps]
        rotary = self._video_rotary(first_frame, self.shape.frames)
        steps = self.shape.frames * [CLEAN]
        for index, time in enumerate(times):
            between_steps()
            steps = self.shape.frames * [time]
            if clamp is not None:
                latents = torch.cat((clamp, latents[:, :, 1:]), 2)
                steps = [CLEAN] + steps[1:]
            last = index == len(times) - 1
            if last and not writes_noisy:
                break
            width = max(rows, readers) if last else rows
            place = self.memory.reserve(self.video_tokens, slice(0, width))
            velocity = self.network.video_velocity(
                self._rows(latents, width), steps, rotary, self.text, place)
            latents = euler_step(
                latents, _guided(velocity, sampling.guidance), nearest_index(time, levels), levels)
            if last:
                self.memory.keep(place, provisional=True)
        if not writes_noisy:
            place = self.memory.reserve(self.video_tokens, slice(0, readers))
            self.network.write_video(
                self._rows(latents, readers), steps, rotary, self.text, place)
            self.memory.keep(place, provisional=True)
            if readers < self.text_rows:
                rest = slice(readers, self.text_rows)
                self._owed.append(_Owed(
                    self.network.write_video, latents, steps, rotary, place.for_rows(rest)))
        if clamp is not None:
            latents = torch.cat((clamp, latents[:, :, 1:]), 2)
        return latents

    def _denoise_actions(
        self, actions: Tensor, first_frame: int, between_steps: Callable[[], None],
    ) -> Tensor:
        sampling, rows = self.action, 2 if self.action.guidance > 1 else 1
        levels = noise_levels(sampling.steps, sampling.shift)
        rotary = self._action_rotary(first_frame, self.shape.frames)
        steps = self.shape.frames * [CLEAN]
        for index, time in enumerate(timesteps(sampling.steps, sampling.shift) + [CLEAN]):
            steps = self.shape.frames * [time]
            if first_frame == 0:
                actions = torch.cat((torch.zeros_like(actions[:, :, :1]), actions[:, :, 1:]), 2)
                steps = [CLEAN] + steps[1:]
            actions = actions * self.channel_mask
            if index == sampling.steps:
                break
            between_steps()
            place = self.memory.reserve(self.shape.action_tokens, slice(0, rows))
            velocity = self.network.action_velocity(
                self._rows(actions, rows), steps, rotary, self.text, place)
            actions = euler_step(actions, _guided(velocity, sampling.guidance), index, levels)
        place = self.memory.reserve(self.shape.action_tokens)
        self.memory.keep(place, provisional=True)
        self._owed.append(_Owed(
            self.network.write_actions, self._rows(actions, self.text_rows), steps, rotary,
            place))
        return actions

    def _rows(self, content: Tensor, rows: int) -> Tensor:
        return content.expand(rows, *content.shape[1:])

    def _video_rotary(self, first_frame: int, frames: int) -> Tensor:
        patch = self.network.config.patch
        positions = video_positions(
            frames, self.shape.rows // patch[1], self.shape.columns // patch[2], first_frame)
        return rotary_table(positions, self.network.config.head_dim, self.network.device)

    def _action_rotary(self, first_frame: int, frames: int) -> Tensor:
        positions = action_positions(frames, self.shape.actions, first_frame)
        return rotary_table(positions, self.network.config.head_dim, self.network.device)


def _guided(velocity: Tensor, scale: float) -> Tensor:
    """Combine [prompt, negative prompt] to negative + scale * (prompt - negative)."""
    if scale <= 1:
        return velocity[:1]
    return velocity[1:] + scale * (velocity[:1] - velocity[1:])


def chunk_noise(
    seed: int, first_frame: int, shape: ChunkShape, latent_channels: int, action_channels: int,
) -> tuple:
    """
    Draw a chunk's starting noise from (seed, frame counter) alone.

    The same on every device, and the same again after an aborted prediction.

    :returns: video [1, C, F, h, w] and actions [1, C, F, N, 1], float32 on the CPU.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + first_frame) % 2 ** 63)
    video = torch.randn(
        (1, latent_channels, shape.frames, shape.rows, shape.columns), generator=generator)
    action = torch.randn(
        (1, action_channels, shape.frames, shape.actions, 1), generator=generator)
    return video, action
