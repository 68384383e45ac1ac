"""The shared-backbone network: one transformer for video tokens and action tokens."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
import math

import torch
from torch import nn, Tensor
from torch.nn import functional

from lingbot_va_ros.model.attention import Attention, sdpa
from lingbot_va_ros.model.kv_cache import Place
from lingbot_va_ros.model.onednn import Linear
from lingbot_va_ros.model.rope import rotate
from lingbot_va_ros.specs.checkpoint_config import TransformerConfig

LOG_LONGEST_PERIOD = math.log(10000.0)  # of the time sinusoids
# Time steps of whole chunks that are kept: those of 25 video and 50 action steps, of chunk 0,
# which is partly clamped, and of imagining; some 60 MB at the public sizes.
KEPT_STEPS = 256


@dataclass(frozen=True)
class TextStates:
    """Cross-attention keys and values of one instruction, a pair [rows, T, H, D] per layer."""

    keys: list[Tensor]
    values: list[Tensor]

    def copy_(self, other: 'TextStates') -> None:
        """Take another instruction's numbers; the tensors stay where they are on the device."""
        for ours, theirs in ((self.keys, other.keys), (self.values, other.values)):
            for mine, its in zip(ours, theirs):
                mine.copy_(its)


class Block(nn.Module):
    """
    Self-attention, cross-attention to the text, and a feed-forward part.

    The residual sums and norms are in float32 whatever the dtype, as in the public code.

    :param narrow: width of the tokens of an action stream. Its queries, keys and values are
        projected to the joint width of the self-attention, so that both streams attend to each
        other, and what was attended to is projected back; it does not read the text. None: tokens
        are as wide as the self-attention.
    """

    def __init__(
        self, config: TransformerConfig, attention: Attention, narrow: int | None = None,
    ):
        super().__init__()
        joint, dim = config.dim, narrow or config.dim
        ffn_dim = config.ffn_dim if narrow is None else config.action_ffn_dim
        self.attend = attention
        self.heads = config.heads
        self.eps = config.eps
        self.reads_text = narrow is None
        self.modulation = nn.Parameter(torch.empty(6, dim))
        self.qkv = Linear(dim, 3 * dim)
        self.widen = None if narrow is None else Linear(dim, joint, bias=False)
        self.query_norm = nn.Parameter(torch.empty(joint))
        self.key_norm = nn.Parameter(torch.empty(joint))
        self.out = Linear(joint, dim)
        if self.reads_text:
            self.text_norm = (
                nn.LayerNorm(dim, eps=config.eps) if config.text_norm else None)
            self.text_query = Linear(dim, dim)
            self.text_key = Linear(dim, dim)
            self.text_value = Linear(dim, dim)
            self.text_query_norm = nn.Parameter(torch.empty(dim))
            self.text_key_norm = nn.Parameter(torch.empty(dim))
            self.text_out = Linear(dim, dim)
        self.ffn_in = Linear(dim, ffn_dim)
        self.ffn_out = Linear(ffn_dim, dim)

    def text_states(self, text: Tensor) -> tuple:
        """Return keys and values, each [B, T, H, D], of text features [B, T, dim]."""
        key = rms_norm(self.text_key(text), self.text_key_norm, self.eps)
        return self._split(key), self._split(self.text_value(text))

    def queries_keys_values(self, x: Tensor, time: Tensor, rotary: Tensor) -> tuple:
        """
        Return the self-attention inputs, each [B, L, H, D], queries and keys rotated.

        :param x: tokens by frame, [B, F, T, dim]; L is F T.
        :param time: the six time vectors of each frame, [F, 6, dim] or [B, F, 6, dim], float32.
        """
        shift, scale = self._modulation(time, 0), self._modulation(time, 1)
        qkv = self.qkv(modulated_norm(x, shift, scale, self.eps).flatten(1, 2))
        if self.widen is not None:
            qkv = self.widen(qkv.unflatten(-1, (3, -1))).flatten(2)
        query, key, value = qkv.chunk(3, -1)
        query = self._split(rms_norm(query, self.query_norm, self.eps))
        key = self._split(rms_norm(key, self.key_norm, self.eps))
        return rotate(query, rotary), rotate(key, rotary), self._split(value)

    def forward(
        self, x: Tensor, time: Tensor, rotary: Tensor,
        remember: Callable[[Tensor, Tensor], tuple], text_key: Tensor, text_value: Tensor,
    ) -> Tensor:
        """
        Run the block on tokens [B, F, T, dim].

        :param remember: takes this layer's new keys and values, returns all to attend to.
        :returns: [B, F, T, dim].
        """
        query, key, value = self.queries_keys_values(x, time, rotary)
        attended = self.attend(query, *remember(key, value))
        return self.think(x, attended, time, lambda queries: self.attend(
            queries, text_key, text_value))

    def think(
        self, x: Tensor, attended: Tensor, time: Tensor, read: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """
        Run what comes behind the self-attention.

        :param attended: what it returned, [B, L, H D].
        :param read: attends to the text: queries [B, L, H, D] to [B, L, H D].
        :returns: [B, F, T, dim].
        """
        seen = self.out(attended).unflatten(1, (x.shape[1], -1))
        x = (x.float() + seen * self._modulation(time, 2)).to(x.dtype)
        if self.reads_text:
            x = x + self._told(x, read)
        normed = modulated_norm(
            x, self._modulation(time, 3), self._modulation(time, 4), self.eps)
        thought = self.ffn_out(functional.gelu(self.ffn_in(normed), approximate='tanh'))
        return (x.float() + thought.float() * self._modulation(time, 5)).to(x.dtype)

    def _told(self, x: Tensor, read: Callable[[Tensor], Tensor]) -> Tensor:
        normed = x
        if self.text_norm is not None:
            normed = functional.layer_norm(
                x.float(), self.text_norm.normalized_shape, self.text_norm.weight.float(),
                self.text_norm.bias.float(), self.eps).to(x.dtype)
        query = rms_norm(self.text_query(normed.flatten(1, 2)), self.text_query_norm, self.eps)
        return self.text_out(read(self._split(query))).unflatten(1, (x.shape[1], -1))

    def _split(self, features: Tensor) -> Tensor:
        return features.unflatten(-1, (self.heads, -1))

    def _modulation(self, time: Tensor, index: int) -> Tensor:
        return (self.modulation[index].float() + time[..., index, :])[..., None, :]


class TimeEmbedder(nn.Module):
    """A time step's sinusoids through two layers, and the six vectors that modulate the blocks."""

    def __init__(self, config: TransformerConfig, dim: int):
        super().__init__()
        self.frequencies = config.time_frequencies
        self.hidden = Linear(config.time_frequencies, dim)
        self.out = Linear(dim, dim)
        self.vectors = Linear(dim, 6 * dim)
        self._kept: OrderedDict = OrderedDict()  # what `at` returned, by steps, newest last
        self._kept_of: tuple = ()  # the weights that it was computed with

    def at(self, steps: Sequence[float]) -> tuple:
        """
        Return what `forward` does of steps [F] on the host.

        In inference mode it is computed once for the same steps and weights, so that a denoising
        loop waits for no copy from the host.
        """
        if not torch.is_inference_mode_enabled():
            return self(self._on_device(steps))
        weights = tuple(
            (id(weight), None if weight.is_inference() else weight._version)
            for weight in self.parameters())
        if weights != self._kept_of:
            self._kept.clear()
            self._kept_of = weights
        key = tuple(steps)
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            self._kept[key] = self(self._on_device(steps))
            if len(self._kept) > KEPT_STEPS:
                self._kept.popitem(last=False)
        return self._kept[key]

    def _apply(self, *args, **kwargs) -> 'TimeEmbedder':
        self._kept.clear()  # moved or cast: the parameters stay the same objects
        return super()._apply(*args, **kwargs)

    def _on_device(self, steps: Sequence[float]) -> Tensor:
        return torch.tensor(steps, dtype=torch.float32, device=self.hidden.weight.device)

    def forward(self, timesteps: Tensor) -> tuple:
        """
        Embed the timesteps.

        :param timesteps: [...].
        :returns: the embedding [..., dim] and the block vectors [..., 6, dim], float32.
        """
        wave = sinusoids(timesteps, self.frequencies).to(self.hidden.weight.dtype)
        embedding = self.out(functional.silu(self.hidden(wave)))
        vectors = self.vectors(functional.silu(embedding)).unflatten(-1, (6, -1))
        return embedding.float(), vectors.float()


def sinusoids(timesteps: Tensor, features: int) -> Tensor:
    """
    Return cosines, then sines, of time steps [...], [..., features] float32.

    The frequencies are those of diffusers' `Timesteps`, 10000 ** (-i / half). They are computed
    in float64 and rounded once: float32 exponentials of two CPUs differ in the last place, which
    at step 1000 is 3e-5 of an angle.
    """
    half = features // 2
    exponent = torch.arange(half, dtype=torch.float64, device=timesteps.device) / half
    frequency = torch.exp(exponent * -LOG_LONGEST_PERIOD).float()
    angle = timesteps.float()[..., None] * frequency
    return torch.cat((angle.cos(), angle.sin()), -1)


class Modality(nn.Module):
    """What video and actions have each for themselves: input, time embedder and output."""

    def __init__(self, config: TransformerConfig, features: int, dim: int):
        super().__init__()
        self.embed = Linear(features, dim)
        self.time = TimeEmbedder(config, dim)
        self.out = Linear(dim, features)


@dataclass(frozen=True)
class Stream:
    """What the tokens of a modality run through, from their input to their output."""

    modality: Modality
    blocks: Sequence[Block]
    final_modulation: Tensor  # [2, dim]

    def enter(self, tokens: Tensor, steps: Tensor) -> tuple:
        """
        Return what the blocks take of tokens [B, F, T, features] at time steps [F] or [B, F].

        :returns: tokens [B, F, T, dim], and of the steps the embedding [..., dim] and the block
            vectors [..., 6, dim].
        """
        return self.modality.embed(tokens), *self.modality.time(steps)

    def leave(self, x: Tensor, embedding: Tensor, eps: float) -> Tensor:
        """Return the output [B, F, T, features] of tokens that went through the blocks."""
        modulation = self.final_modulation.float() + embedding[..., None, :]  # [..., 2, dim]
        shift, scale = modulation[..., None, :].unbind(-3)  # each [..., 1, dim]
        return self.modality.out(modulated_norm(x, shift, scale, eps))


@dataclass(frozen=True)
class StreamTokens:
    """
    A modality's tokens of whole sequences: clean frames, then those of which the rest is wanted.

    :param tokens: [B, F, T, features].
    :param steps: the time step of each frame, [B, F] float.
    :param rotary: [B or 1, F T, 1, D / 2], see `rotary_table`.
    :param wanted: so many of the last frames are to have an output.
    """

    tokens: Tensor
    steps: Tensor
    rotary: Tensor
    wanted: int


# Takes (query, key, value) of the video tokens and of the action tokens, each [B, L, H, D], and
# whether all outputs are wanted or only those of the wanted frames; returns [B, L', H D] of each.
JointAttention = Callable[[tuple, tuple, bool], tuple]


class Network(nn.Module, ABC):
    """
    What both networks have: a video stream that reads the text, and a stream for actions.

    Holds no memory itself: every forward is handed the KV memory that it reads and writes. Called
    as a module it runs whole sequences of both modalities, as in training; what sees what is then
    up to the attention that it is handed.
    """

    def __init__(self, config: TransformerConfig, attention: Attention):
        super().__init__()
        self.config = config
        self.video = Modality(config, config.patch_features, config.dim)
        self.text_hidden = Linear(config.text_dim, config.dim)
        self.text_out = Linear(config.dim, config.dim)
        self.blocks = nn.ModuleList(Block(config, attention) for _ in range(config.num_layers))
        self.final_modulation = nn.Parameter(torch.empty(2, config.dim))

    @property
    def video_stream(self) -> Stream:
        """What video tokens run through."""
        return Stream(self.video, self.blocks, self.final_modulation)

    @property
    @abstractmethod
    def action_stream(self) -> Stream:
        """What action tokens run through."""

    def text_states(self, embeddings: Tensor) -> TextStates:
        """
        Return the cross-attention states of instructions, to be computed once for each.

        :param embeddings: [rows, 512, text_dim]; rows after the text are zero and still count.
        """
        text = embeddings.to(self.device, self.dtype)
        text = self.text_out(functional.gelu(self.text_hidden(text), approximate='tanh'))
        pairs = [block.text_states(text) for block in self.blocks]
        return TextStates([key for key, _ in pairs], [value for _, value in pairs])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.final_modulation.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the matrix weights."""
        return self.text_out.weight.dtype

    def video_velocity(
        self, latents: Tensor, steps: Sequence[float], rotary: Tensor, text: TextStates,
        place: Place | None = None,
    ) -> Tensor:
        """
        Return the velocity of noisy latents, [B, C, F, h, w].

        :param latents: [B, C, F, h, w].
        :param steps: the time step of each frame (0 … 1000), F floats.
        :param rotary: the table of `video_positions`.
        :param place: where keys and values go and what is attended to; without one the tokens see
            only each other. Its rows are the guidance halves that the batch stands for.
        """
        return self.velocity(
            'video', latents, self.times_at('video', steps), rotary, text, place)

    def action_velocity(
        self, actions: Tensor, steps: Sequence[float], rotary: Tensor, text: TextStates,
        place: Place | None = None,
    ) -> Tensor:
        """Return the velocity of noisy actions [B, C, F, N, 1]; one token each; as above."""
        return self.velocity(
            'action', actions, self.times_at('action', steps), rotary, text, place)

    def velocity(
        self, kind: str, content: Tensor, times: tuple, rotary: Tensor, text: TextStates,
        place: Place | None = None,
    ) -> Tensor:
        """
        Return the velocity of noisy latents (`video`) or actions (`action`), as above.

        Does nothing on the host but start kernels, so that a CUDA graph can hold it.

        :param times: what `times_at` returned.
        """
        if kind == 'action':
            out = self._run(
                self.action_stream, action_tokens(content), times, rotary, text, place)
            return out.permute(0, 3, 1, 2).unsqueeze(-1)
        patch = self.config.patch
        out = self._run(
            self.video_stream, cut_patches(content, patch), times, rotary, text, place)
        return join_patches(out, content.shape, patch)

    def times_at(self, kind: str, steps: Sequence[float]) -> tuple:
        """Return embedding [F, dim] and block vectors [F, 6, dim], float32, of time steps [F]."""
        stream = self.video_stream if kind == 'video' else self.action_stream
        return stream.modality.time.at(steps)

    def write_video(
        self, latents: Tensor, steps: Sequence[float], rotary: Tensor, text: TextStates,
        place: Place,
    ) -> None:
        """Write latents into the memory without computing an output."""
        self._run(self.video_stream, cut_patches(latents, self.config.patch),
                  self.times_at('video', steps), rotary, text, place, output=False)

    def write_actions(
        self, actions: Tensor, steps: Sequence[float], rotary: Tensor, text: TextStates,
        place: Place,
    ) -> None:
        """Write actions into the memory without computing an output."""
        self._run(self.action_stream, action_tokens(actions), self.times_at('action', steps),
                  rotary, text, place, output=False)

    def forward(
        self, video: StreamTokens, action: StreamTokens, embeddings: Tensor,
        attend: JointAttention, read: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> tuple:
        """
        Run whole sequences, layer by layer in both streams.

        :param embeddings: text, [B, T, text_dim].
        :param read: the cross-attention: queries [B, L, H, D], keys and values [B, T, H, D].
        :returns: outputs of the wanted frames, video and actions, each [B, wanted, T, features],
            and the video tokens before the last block, [B, F, T, dim].
        """
        text, inputs = self.text_states(embeddings), (video, action)
        streams = (self.video_stream, self.action_stream)
        (x, x_embedding, x_time), (y, y_embedding, y_time) = (
            stream.enter(given.tokens.to(self.dtype), given.steps)
            for stream, given in zip(streams, inputs))
        x, y = x.to(self.dtype), y.to(self.dtype)  # under autocast the residual stream is not half
        for index, (video_block, action_block) in enumerate(zip(*(s.blocks for s in streams))):
            last = index == len(self.blocks) - 1
            seen = attend(
                video_block.queries_keys_values(x, x_time, video.rotary),
                action_block.queries_keys_values(y, y_time, action.rotary), not last)
            if last:
                before = x
                x, x_time, x_embedding = (
                    part[:, -video.wanted:] for part in (x, x_time, x_embedding))
                y, y_time, y_embedding = (
                    part[:, -action.wanted:] for part in (y, y_time, y_embedding))
            told = partial(_read, read, text.keys[index], text.values[index])
            x = video_block.think(x, seen[0], x_time, told)
            y = action_block.think(y, seen[1], y_time, told)
        return (streams[0].leave(x, x_embedding, self.config.eps),
                streams[1].leave(y, y_embedding, self.config.eps), before)

    def _run(
        self, stream: Stream, tokens: Tensor, times: tuple, rotary: Tensor,
        text: TextStates, place: Place | None, output: bool = True,
    ) -> Tensor | None:
        x = stream.modality.embed(tokens.to(self.dtype))  # [B, F, T, dim]
        embedding, vectors = times
        rows = slice(None) if place is None else place.rows
        last = len(stream.blocks) - 1
        for index, block in enumerate(stream.blocks):
            if index == last and not output:
                _, key, value = block.queries_keys_values(x, vectors, rotary)
                place.write_and_read(index, key, value)
                return None
            remember = _alone if place is None else partial(place.write_and_read, index)
            x = block(
                x, vectors, rotary, remember, text.keys[index][rows], text.values[index][rows])
        return stream.leave(x, embedding, self.config.eps)


class Transformer(Network):
    """The network of the public checkpoints: both modalities share their blocks."""

    def __init__(self, config: TransformerConfig, attention: Attention = sdpa):
        super().__init__(config, attention)
        self.action = Modality(config, config.action_channels, config.dim)

    @property
    def action_stream(self) -> Stream:
        """What action tokens run through."""
        return Stream(self.action, self.blocks, self.final_modulation)


def _read(
    read: Callable[[Tensor, Tensor, Tensor], Tensor], key: Tensor, value: Tensor, query: Tensor,
) -> Tensor:
    return read(query, key, value)


def _alone(key: Tensor, value: Tensor) -> tuple:
    return key, value


def action_tokens(actions: Tensor) -> Tensor:
    """Return actions [B, C, F, N, 1] as tokens [B, F, N, C]."""
    return actions.squeeze(-1).permute(0, 2, 3, 1)


def rms_norm(features: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise the last axis (all heads together) to unit mean square, times a weight."""
    return functional.rms_norm(features, weight.shape, weight.to(features.dtype), eps)


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Layer norm without weights in float32, then * (1 + scale) + shift, in the dtype of x."""
    normed = functional.layer_norm(x.float(), x.shape[-1:], eps=eps)
    return (normed * (1 + scale) + shift).to(x.dtype)


def cut_patches(latents: Tensor, patch: Sequence[int]) -> Tensor:
    """Cut [B, C, F, h, w] into tokens [B, F, T, C * rows * columns] (channel first)."""
    batch, channels, frames, height, width = latents.shape
    rows, columns = patch[1], patch[2]
    cut = latents.reshape(
        batch, channels, frames, height // rows, rows, width // columns, columns)
    return cut.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(2, 3)


def join_patches(tokens: Tensor, shape: Sequence[int], patch: Sequence[int]) -> Tensor:
    """
    Put output tokens [B, F, T, rows * columns * C] (channel last) together to `shape`.

    The order of a token's features is not that of the input: the public network puts the place in
    the patch first and the channel last on its way out.
    """
    batch, channels, frames, height, width = shape
    rows, columns = patch[1], patch[2]
    grid = tokens.reshape(
        batch, frames, height // rows, width // columns, rows, columns, channels)
    return grid.permute(0, 6, 1, 2, 4, 3, 5).reshape(batch, *shape[1:])
