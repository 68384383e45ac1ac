"""One episode's computation: predict a chunk from the memory, commit what really happened."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lingbot_va_ros.model.cuda_graphs import StepGraphs
from lingbot_va_ros.model.flow_matching import euler_step, nearest_index, noise_levels, timesteps
from lingbot_va_ros.model.kv_cache import KVMemory, MemoryState, Place
from lingbot_va_ros.model.rope import action_positions, rotary_table, video_positions
from lingbot_va_ros.model.transformer import Network, TextStates
from lingbot_va_ros.policy.errors import PredictionAborted
from lingbot_va_ros.policy.interrupt import Interrupt, UNINTERRUPTED
from lingbot_va_ros.specs.policy_file import Sampling

CLEAN = 0.0  # the time step of what has been seen or done
AHEAD_CHUNKS = 2  # that a prediction writes at most: the running chunk, then the one behind it
SPARE_CHUNKS = AHEAD_CHUNKS + 1  # room in the buffer beyond the capacity: moved every other chunk
ROTARY_TABLES = 16  # that are kept: those of the running chunk and of the next
IMAGINING = 1  # what a chunk's noise is for: to be denoised by forward dynamics


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
    channels 0; `first_frame` the frame counter of its first frame; `left_at` the time step at
    which the denoising of the video was left (0 but with `exec_steps`). A chunk that was predicted
    ahead was predicted behind the latent frame `before` [1, C, 1, h, w], seen or not.
    """

    latents: Tensor
    actions: Tensor
    first_frame: int
    left_at: float = CLEAN
    before: Tensor | None = None


@dataclass(frozen=True)
class WrittenChunk:
    """A chunk as it was committed: latents [1, C, F', h, w], actions [1, C, F', N, 1]."""

    latents: Tensor
    actions: Tensor
    first_frame: int


@dataclass(frozen=True)
class SessionState:
    """
    A copy of a session's confirmed state, all tensors in host memory.

    `embeddings` are what `set_text` was given.
    """

    memory: MemoryState
    frame: int
    embeddings: Tensor | None
    first_latent: Tensor | None
    last_chunk: WrittenChunk | None


@dataclass(frozen=True)
class _Owed:
    """A write that matters only if the next prediction comes without an observation."""

    write: Callable
    content: Tensor
    steps: list[float]
    rotary: Tensor
    place: Place


class Session:
    """
    Memory and sampling of one episode.

    `predict` and `commit` in turn are the synchronous order of the public server. `predict_ahead`
    predicts behind a chunk that is not complete yet and leaves nothing behind. What `commit`
    writes depends on what was committed before it and on nothing that was predicted, unless an
    open-loop continuation displaced it: tokens are the same in whichever order chunks were
    predicted. The buffer is moved by `commit` and by a continuation only.

    Only forwards whose product is used are run. With guidance on the video and none on the actions
    the negative half takes no part in the action loop, and what only an open-loop continuation
    reads (the negative half of the imagined video, the predicted actions) is written when such a
    continuation comes.

    :param text_rows: what `set_text` must bring: 2 where either guidance is above 1.
    :param graphs: what runs the denoising steps in the network's place; None lets it run them.
    """

    def __init__(
        self, network: Network, shape: ChunkShape, video: Sampling, action: Sampling,
        used_channels: Sequence[int], memory_chunks: int, graphs: StepGraphs | None = None,
    ):
        self.network = network
        self._graphs = graphs
        self.shape = shape
        self.video = video
        self.action = action
        config = network.config
        self.video_tokens = shape.video_tokens(config.patch)
        self.text_rows = 2 if max(video.guidance, action.guidance) > 1 else 1
        self.chunk_tokens = self.video_tokens + shape.action_tokens
        self.memory = KVMemory(
            config.num_layers, self.text_rows, memory_chunks * self.chunk_tokens,
            SPARE_CHUNKS * self.chunk_tokens, config.heads, config.head_dim, network.device,
            network.dtype)
        self.channel_mask = torch.zeros(1, config.action_channels, 1, 1, 1, device=network.device)
        self.channel_mask[:, list(used_channels)] = 1
        self.text: TextStates | None = None
        self._embeddings: Tensor | None = None
        self.frame = 0  # confirmed latent frames
        self.imagined_frames = 0  # predicted ones behind them
        self.first_latent: Tensor | None = None
        self._owed: list[_Owed] = []
        self._before: tuple | None = None  # the memory's mark before the prediction
        self._last_chunk: WrittenChunk | None = None
        self._tables: OrderedDict = OrderedDict()  # rotary tables by kind, first frame and frames

    @property
    def steps(self) -> Network | StepGraphs:
        """What runs denoising steps."""
        return self._graphs or self.network

    @property
    def confirmed_tokens(self) -> int:
        """Number of confirmed tokens, those included that a prediction has displaced for now."""
        start, end, _ = self._confirmed()
        return end - start

    @torch.inference_mode()
    def set_text(self, embeddings: Tensor) -> None:
        """
        Set the instruction for the forwards to come; the memory stays as it is.

        :param embeddings: [text_rows, 512, text_dim]: the prompt, then the negative prompt.
        :raises ValueError: another number of rows.
        """
        if embeddings.shape[0] != self.text_rows:
            raise ValueError(
                f'{embeddings.shape[0]} prompt embeddings; expected {self.text_rows}')
        text = self.network.text_states(embeddings)
        if self.text is None or self.text.keys[0].shape != text.keys[0].shape:
            self.text = text
        else:
            self.text.copy_(text)  # graphs of steps know it by its address
        self._embeddings = embeddings

    def reset(self) -> None:
        """Forget the episode; the text stays."""
        self.memory.clear()
        self.frame = self.imagined_frames = 0
        self.first_latent = None
        self._last_chunk = None
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
        self.memory.drop_provisional()
        self.imagined_frames = 0
        self._owed.clear()
        self._before = None

    @torch.inference_mode()
    def predict(
        self, video_noise: Tensor, action_noise: Tensor, first_latent: Tensor | None = None,
        interrupt: Interrupt = UNINTERRUPTED,
    ) -> Prediction:
        """
        Denoise the next chunk, video first, then actions.

        Its tokens are provisional. A second call without `commit` in between continues in the
        imagination (open loop); `discard` first predicts the same chunk again.

        :param video_noise: [1, C, F, h, w] standard normal.
        :param action_noise: [1, C, F, N, 1] standard normal.
        :param first_latent: [1, C, 1, h, w], the observed frame that begins an episode; needed by
            the first prediction and ignored by later ones.
        :param interrupt: checked before every forward.
        :raises PredictionAborted: the interrupt asked for it; the memory is then as it was.
        """
        first_frame = self.frame + self.imagined_frames
        if first_frame == 0:
            if first_latent is None:
                raise ValueError('the first prediction of an episode needs an observed latent')
            self.first_latent = first_latent.to(self.network.device)
        for owed in self._owed:
            owed.write(owed.content, owed.steps, owed.rotary, self.text, owed.place)
        self._owed.clear()
        self.memory.make_ready(self.chunk_tokens)
        before = self.memory.mark()
        # A continuation may have moved the window, which outdates the mark of the first one.
        self._before = before if self.imagined_frames == 0 else None
        try:
            prediction = self._denoise(video_noise, action_noise, first_frame, interrupt)
        except PredictionAborted:
            self.memory.rewind(before)
            self._owed.clear()
            raise
        self.imagined_frames += self.shape.frames
        return prediction

    @torch.inference_mode()
    def predict_ahead(
        self, seen: Tensor, actions: Tensor, forecast: Prediction | None, imagine_steps: int,
        imagining_noise: Tensor, video_noise: Tensor, action_noise: Tensor,
        interrupt: Interrupt = UNINTERRUPTED,
    ) -> Prediction:
        """
        Denoise the chunk behind the running one, which need not be complete.

        The running chunk is written provisionally as `commit` would write it, with what is not
        seen yet taken from a forecast or imagined: denoised by forward dynamics, that is with the
        running chunk's actions in the memory and the frames that were seen held at time step 0.
        The memory is left as before `predict`: also what that wrote is dropped.

        :param seen: [1, C, n, h, w], the real frames so far (chunk 0: its first one included);
            with all of them nothing is imagined.
        :param actions: [1, C, F, N, 1] normalised, of the whole running chunk (first frame of an
            episode: zero).
        :param forecast: what was predicted as the running chunk; None imagines.
        :param imagine_steps: denoising steps of the imagination.
        :param imagining_noise: [1, C, F, h, w] standard normal; others as for `predict`.
        :param interrupt: checked before every forward.
        :raises PredictionAborted: the interrupt asked for it; the memory is as if it had ended.
        """
        self.discard()
        device, unseen = self.network.device, self.shape.frames - seen.shape[2]
        seen, actions = seen.to(device), actions.to(device) * self.channel_mask
        self.memory.make_ready(AHEAD_CHUNKS * self.chunk_tokens)  # an open loop may have used it
        self._before = before = self.memory.mark()
        try:
            steps, latents = self.shape.frames * [CLEAN], seen
            if unseen and forecast is None:
                latents = self._imagine(
                    seen, actions, imagining_noise, imagine_steps, interrupt)
                self.memory.rewind(before)
            elif unseen:
                latents = torch.cat((seen, forecast.latents.to(device)[:, :, -unseen:]), 2)
                steps[-unseen:] = unseen * [forecast.left_at]
            self._write_chunk(
                WrittenChunk(latents, actions, self.frame), steps, self._halves, True,
                interrupt)
            prediction = self._denoise(
                video_noise, action_noise, self.frame + self.shape.frames, interrupt)
        finally:
            self.memory.rewind(before)
            self._before = None
            self._owed.clear()
        return replace(prediction, before=latents[:, :, -1:])

    @torch.inference_mode()
    def commit(self, latents: Tensor, actions: Tensor) -> None:
        """
        Write what was seen and done; predictions are dropped first.

        A chunk's room is made before the first token is written, as if it had been predicted.

        :param latents: [1, C, F', h, w], the real frames (chunk 0: its first one included).
        :param actions: [1, C, F', N, 1] normalised, the executed ones (frame 0 of an episode: what
            the caller wants it to be; zero in training).
        """
        self.discard()
        device, frames = self.network.device, latents.shape[2]
        self._last_chunk = WrittenChunk(
            latents.to(device, copy=True), actions.to(device) * self.channel_mask, self.frame)
        self._write_chunk(self._last_chunk, frames * [CLEAN], self.text_rows, False)
        self.frame += frames
        self.memory.make_ready(AHEAD_CHUNKS * self.chunk_tokens)

    @torch.inference_mode()
    def keep_last_chunk(self, latents: Tensor | None = None) -> None:
        """
        Rebuild the memory from the chunk that was committed last, alone, at its own positions.

        Its tokens are computed anew, so that nothing of what they have seen is left in them.

        :param latents: [1, C, F', h, w], take the place of those that were committed.
        """
        self.discard()
        self.memory.clear()
        if self._last_chunk is not None:
            if latents is not None:
                self._last_chunk = replace(
                    self._last_chunk, latents=latents.to(self.network.device, copy=True))
            frames = self._last_chunk.latents.shape[2]
            self._write_chunk(self._last_chunk, frames * [CLEAN], self.text_rows, False)

    def save(self) -> SessionState:
        """Copy the confirmed state; may be called between the steps of a prediction."""
        last = self._last_chunk
        return SessionState(
            self.memory.save(self._confirmed()), self.frame, host_copy(self._embeddings),
            host_copy(self.first_latent), last and replace(
                last, latents=host_copy(last.latents), actions=host_copy(last.actions)))

    def restore(self, state: SessionState) -> None:
        """
        Take a saved state's place, its text included.

        :raises ValueError: it is of a memory of other sizes; nothing has changed then.
        """
        self.memory.restore(state.memory)
        self.frame, self.imagined_frames = state.frame, 0
        self._owed.clear()
        self._before = None
        device, last = self.network.device, state.last_chunk
        self.first_latent = _device_copy(state.first_latent, device)
        self._last_chunk = last and replace(
            last, latents=_device_copy(last.latents, device),
            actions=_device_copy(last.actions, device))
        if state.embeddings is None:
            self.text = self._embeddings = None
        else:
            self.set_text(_device_copy(state.embeddings, device))
        self.memory.make_ready(AHEAD_CHUNKS * self.chunk_tokens)

    def _confirmed(self) -> tuple:
        """Return the mark of the confirmed tokens, also while something is predicted."""
        return self.memory.confirmed() if self._before is None else self._before

    @property
    def _halves(self) -> int:
        """Guidance halves that the next prediction reads."""
        return 2 if max(self.video.guidance, self.action.guidance) > 1 else 1

    def _write_chunk(
        self, chunk: WrittenChunk, steps: list[float], rows: int, provisional: bool,
        interrupt: Interrupt = UNINTERRUPTED,
    ) -> None:
        """Write a chunk, video first; `steps` are the time steps of its latents."""
        frames = chunk.latents.shape[2]
        self.memory.make_room(self.chunk_tokens)
        for write, content, times, rotary in (
                (self.network.write_video, chunk.latents, steps,
                 self._video_rotary(chunk.first_frame, frames)),
                (self.network.write_actions, chunk.actions, chunk.actions.shape[2] * [CLEAN],
                 self._action_rotary(chunk.first_frame, chunk.actions.shape[2]))):
            interrupt.check()
            place = self.memory.reserve(len(rotary), slice(0, rows))
            write(self._rows(content, rows), times, rotary, self.text, place)
            self.memory.keep(place, provisional)

    def _imagine(
        self, seen: Tensor, actions: Tensor, noise: Tensor, denoising_steps: int,
        interrupt: Interrupt,
    ) -> Tensor:
        """
        Return the running chunk's latents: those seen, and the rest by forward dynamics.

        The actions are written before the video that they lead to, and stay in the memory.
        """
        rows = 2 if self.video.guidance > 1 else 1
        count, unseen = seen.shape[2], self.shape.frames - seen.shape[2]
        self.memory.make_room(self.chunk_tokens)
        interrupt.check()
        place = self.memory.reserve(self.shape.action_tokens, slice(0, rows))
        self.network.write_actions(
            self._rows(actions, rows), self.shape.frames * [CLEAN],
            self._action_rotary(self.frame, self.shape.frames), self.text, place)
        self.memory.keep(place, provisional=True)
        rotary = self._video_rotary(self.frame, self.shape.frames)
        levels = noise_levels(denoising_steps, self.video.shift)
        latents = noise.to(self.network.device) * self.video.noise_scale
        for index, time in enumerate(timesteps(denoising_steps, self.video.shift)):
            latents = torch.cat((seen, latents[:, :, count:]), 2)
            interrupt.check()
            place = self.memory.reserve(self.video_tokens, slice(0, rows))
            velocity = self.steps.video_velocity(
                self._rows(latents, rows), count * [CLEAN] + unseen * [time], rotary, self.text,
                place)
            latents = euler_step(
                latents, _guided(velocity, self.video.guidance), index, levels)
        return torch.cat((seen, latents[:, :, count:]), 2)

    def _denoise(
        self, video_noise: Tensor, action_noise: Tensor, first_frame: int,
        interrupt: Interrupt,
    ) -> Prediction:
        """Denoise a chunk behind what the memory holds; its tokens stay as provisional ones."""
        clamp = self.first_latent if first_frame == 0 else None
        device = self.network.device
        latents = self._denoise_video(
            video_noise.to(device) * self.video.noise_scale, first_frame, clamp, interrupt)
        actions = self._denoise_actions(
            action_noise.to(device) * self.action.noise_scale, first_frame, interrupt)
        times = timesteps(self.video.steps, self.video.shift) + [CLEAN]
        run = self.video.exec_steps
        left_at = times[run] if 0 < run < len(times) else CLEAN
        return Prediction(latents, actions * self.channel_mask, first_frame, left_at)

    def _denoise_video(
        self, latents: Tensor, first_frame: int, clamp: Tensor | None,
        interrupt: Interrupt,
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
            interrupt.check()
            steps = self.shape.frames * [time]
            if clamp is not None:
                latents = torch.cat((clamp, latents[:, :, 1:]), 2)
                steps = [CLEAN] + steps[1:]
            last = index == len(times) - 1
            if last and not writes_noisy:
                break
            width = max(rows, readers) if last else rows
            place = self.memory.reserve(self.video_tokens, slice(0, width))
            velocity = self.steps.video_velocity(
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
        self, actions: Tensor, first_frame: int, interrupt: Interrupt,
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
            interrupt.check()
            place = self.memory.reserve(self.shape.action_tokens, slice(0, rows))
            velocity = self.steps.action_velocity(
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
        return self._rotary('video', first_frame, frames, lambda: video_positions(
            frames, self.shape.rows // patch[1], self.shape.columns // patch[2], first_frame))

    def _action_rotary(self, first_frame: int, frames: int) -> Tensor:
        return self._rotary('action', first_frame, frames, lambda: action_positions(
            frames, self.shape.actions, first_frame))

    def _rotary(
        self, kind: str, first_frame: int, frames: int, positions: Callable[[], Tensor],
    ) -> Tensor:
        key = (kind, first_frame, frames)
        if key not in self._tables:
            self._tables[key] = rotary_table(
                positions(), self.network.config.head_dim, self.network.device)
            if len(self._tables) > ROTARY_TABLES:
                self._tables.popitem(last=False)
        return self._tables[key]


def _guided(velocity: Tensor, scale: float) -> Tensor:
    """Combine [prompt, negative prompt] to negative + scale * (prompt - negative)."""
    if scale <= 1:
        return velocity[:1]
    return velocity[1:] + scale * (velocity[:1] - velocity[1:])


def host_copy(tensor: Tensor | None) -> Tensor | None:
    """Return a tensor of its own in host memory, or None for None."""
    return None if tensor is None else tensor.detach().to('cpu', copy=True)


def _device_copy(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device, copy=True)


def chunk_noise(
    seed: int, first_frame: int, shape: ChunkShape, latent_channels: int, action_channels: int,
) -> tuple:
    """
    Draw a chunk's starting noise from (seed, frame counter) alone.

    The same on every device, and the same again after an aborted prediction.

    :returns: video [1, C, F, h, w] and actions [1, C, F, N, 1], float32 on the CPU.
    """
    generator = _generator(seed, first_frame, 0)
    video = torch.randn(
        (1, latent_channels, shape.frames, shape.rows, shape.columns), generator=generator)
    action = torch.randn(
        (1, action_channels, shape.frames, shape.actions, 1), generator=generator)
    return video, action


def imagining_noise(
    seed: int, first_frame: int, shape: ChunkShape, latent_channels: int,
) -> Tensor:
    """
    Draw the noise from which a running chunk is imagined, [1, C, F, h, w] float32 on the CPU.

    Drawn as `chunk_noise`, but another one: what was forecast from that stays independent of it.
    """
    return torch.randn(
        (1, latent_channels, shape.frames, shape.rows, shape.columns),
        generator=_generator(seed, first_frame, IMAGINING))


def _generator(seed: int, first_frame: int, purpose: int) -> torch.Generator:
    # On the CPU only the low 32 bits of a seed count.
    return torch.Generator().manual_seed(
        (seed * 1_000_003 + first_frame + purpose * 0x9E3779B1) % 2 ** 63)
