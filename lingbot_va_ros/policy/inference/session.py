"""The state of an episode: predicts chunks from the KV cache, commits observations and actions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lingbot_va_ros.model.cuda_graphs import StepGraphs
from lingbot_va_ros.model.kv_cache import CacheMark, KVCacheState, SlidingKVCache
from lingbot_va_ros.model.transformer import Network, TextKV
from lingbot_va_ros.policy.errors import PredictionAborted
from lingbot_va_ros.policy.inference.chunk_shape import ChunkShape
from lingbot_va_ros.policy.inference.denoise import (
    AHEAD_CHUNKS,
    cfg_batch_of,
    CLEAN,
    Conditions,
    Denoiser,
    Prediction,
    WrittenChunk,
)
from lingbot_va_ros.policy.interrupt import Interrupt, UNINTERRUPTED
from lingbot_va_ros.specs.policy_file import Sampling

SPARE_CHUNKS = AHEAD_CHUNKS + 1  # buffer beyond the capacity: the window moves every other chunk


@dataclass(frozen=True)
class SessionState:
    """
    A copy of a session's confirmed state, all tensors in host memory.

    `embeddings` are those of `set_text`; `frame` is the number of confirmed latent frames.
    """

    kv_cache: KVCacheState
    frame: int
    embeddings: Tensor | None
    first_latent: Tensor | None
    last_chunk: WrittenChunk | None


class Session:
    """
    One episode of the network: KV cache, frame counters, instruction, steps and guidance.

    `Denoiser` computes the forwards; this class decides what of the cache is kept.

    Alternating calls of `predict` and `commit` are the synchronous order of the public server.
    `predict_ahead` predicts the chunk after an incomplete one and does not change the cache; it is
    Algorithm 2 of the paper (arXiv 2601.21998). The tokens of a commit depend on earlier commits
    only, not on predictions, unless an open-loop continuation evicted tokens. The window of the
    cache moves in `commit` and in a continuation only.

    :param network: on the device and in the dtype of the cache.
    :param shape: frames, actions and latent picture of a chunk.
    :param video: steps and guidance of the video, as `action` of the actions; guidance above 1 of
        either makes a cache of two halves.
    :param used_channels: action channels of the policy; the others are held at 0.
    :param memory_chunks: chunks that the cache holds.
    :param graphs: runs the denoising steps in place of the network; None where the network does.
    :raises ValueError: patches do not cover the latent picture.
    """

    def __init__(
        self, network: Network, shape: ChunkShape, video: Sampling, action: Sampling,
        used_channels: Sequence[int], memory_chunks: int, graphs: StepGraphs | None = None,
    ):
        config = network.config
        self.network = network
        self.shape = shape
        self.video = video
        self.action = action
        self.chunk_tokens = shape.video_tokens(config.patch) + shape.action_tokens
        self.kv_cache = SlidingKVCache(
            config.num_layers, self._prediction_cfg_batch, memory_chunks * self.chunk_tokens,
            SPARE_CHUNKS * self.chunk_tokens, config.heads, config.head_dim, network.device,
            network.dtype)
        self.text: TextKV | None = None
        self.denoiser = Denoiser(network, shape, self.kv_cache, used_channels, graphs)
        self._embeddings: Tensor | None = None
        self.frame = 0  # confirmed latent frames
        self.imagined_frames = 0  # predicted latent frames after them
        self.first_latent: Tensor | None = None
        self._before: CacheMark | None = None  # the cache's mark before the prediction
        self._last_chunk: WrittenChunk | None = None

    @property
    def cfg_batch(self) -> int:
        """Rows that `set_text` expects: 2 if a guidance was above 1 at construction, else 1."""
        return self.kv_cache.cfg_batch

    @property
    def _prediction_cfg_batch(self) -> int:
        """Number of guidance halves that a prediction reads from the cache."""
        return max(cfg_batch_of(self.video), cfg_batch_of(self.action))

    @property
    def confirmed_tokens(self) -> int:
        """Number of confirmed tokens, including those that a prediction has evicted."""
        mark = self._confirmed()
        return mark.end - mark.start

    def set_sampling(self, video: Sampling, action: Sampling) -> None:
        """
        Change steps and guidance of later predictions.

        :raises ValueError: guidance above 1, but the cache has no negative half.
        """
        if max(video.guidance, action.guidance) > 1 and self.cfg_batch == 1:
            raise ValueError(
                'guidance above 1 needs a memory with a negative half: set it before configure')
        self.video, self.action = video, action

    @torch.inference_mode()
    def set_text(self, embeddings: Tensor) -> None:
        """
        Set the instruction of later forward passes; the cache is unchanged.

        :param embeddings: [cfg_batch, 512, text_dim]: the prompt, then the negative prompt.
        :raises ValueError: the number of rows is wrong.
        """
        if embeddings.shape[0] != self.cfg_batch:
            raise ValueError(
                f'{embeddings.shape[0]} prompt embeddings; expected {self.cfg_batch}')
        text = self.network.text_kv(embeddings)
        if self.text is None or self.text.keys[0].shape != text.keys[0].shape:
            self.text = text
        else:
            self.text.copy_(text)  # CUDA graphs hold the addresses
        self._embeddings = embeddings

    def reset(self) -> None:
        """Clear the episode; the text stays."""
        self.kv_cache.clear()
        self.frame = 0
        self.first_latent = None
        self._last_chunk = None
        self._clear_prediction()

    def discard(self) -> None:
        """
        Drop the predicted tokens.

        Tokens that the prediction evicted are restored, so that the next prediction has the same
        cache; after an open-loop continuation they stay evicted.
        """
        if self._before is not None:
            self.kv_cache.rewind(self._before)
        self.kv_cache.drop_provisional()
        self._clear_prediction()

    @torch.inference_mode()
    def predict(
        self, video_noise: Tensor, action_noise: Tensor, first_latent: Tensor | None = None,
        interrupt: Interrupt = UNINTERRUPTED,
    ) -> Prediction:
        """
        Denoise the next chunk, video first, then actions.

        Its tokens are provisional. A second call without a `commit` in between is an open-loop
        continuation; after `discard` it predicts the same chunk again.

        :param video_noise: [1, C, F, h, w] standard normal.
        :param action_noise: [1, C, F, N, 1] standard normal.
        :param first_latent: [1, C, 1, h, w], the observed frame that begins an episode; needed by
            the first prediction and ignored by later ones.
        :param interrupt: checked before every forward pass.
        :raises ValueError: the first prediction has no `first_latent`, or no instruction is set.
        :raises PredictionAborted: by the interrupt; the cache is then unchanged.
        """
        first_frame = self.frame + self.imagined_frames
        if first_frame == 0:
            if first_latent is None:
                raise ValueError('the first prediction of an episode needs an observed latent')
            self.first_latent = first_latent.to(self.network.device)
        conditions = self._conditions()
        self.denoiser.run_deferred_writes(conditions.text)
        self.kv_cache.make_ready(self.chunk_tokens)
        before = self.kv_cache.mark()
        # A continuation may have moved the window, which invalidates the mark of the first one.
        self._before = before if self.imagined_frames == 0 else None
        try:
            prediction = self.denoiser.denoise(
                video_noise, action_noise, first_frame, self.first_latent, conditions,
                interrupt)
        except PredictionAborted:
            self.kv_cache.rewind(before)
            self.denoiser.drop_deferred_writes()
            raise
        self.imagined_frames += self.shape.frames
        return prediction

    @torch.inference_mode()
    def predict_ahead(
        self, observed: Tensor, actions: Tensor, forecast: Prediction | None, imagine_steps: int,
        imagining_noise: Tensor, video_noise: Tensor, action_noise: Tensor,
        interrupt: Interrupt = UNINTERRUPTED,
    ) -> Prediction:
        """
        Denoise the chunk after the running one, which may be incomplete.

        The running chunk is written provisionally, as by `commit`. Its unobserved frames are taken
        from a forecast or imagined by forward dynamics: denoised with the running chunk's actions
        in the cache and the observed frames at time step 0. The cache is restored to its state
        before `predict`; the tokens of that are dropped too.

        :param observed: [1, C, n, h, w], the frames observed so far (in chunk 0 with its first
            one); if all are observed, nothing is imagined.
        :param actions: [1, C, F, N, 1] normalized, of the whole running chunk (first frame of an
            episode: zero).
        :param forecast: the prediction of the running chunk; None imagines.
        :param imagine_steps: denoising steps of imagined frames.
        :param imagining_noise: [1, C, F, h, w] standard normal; others as for `predict`.
        :param interrupt: checked before every forward pass.
        :raises PredictionAborted: by the interrupt; the cache is as after a return.
        """
        self.discard()
        conditions = self._conditions()
        device, missing = self.network.device, self.shape.frames - observed.shape[2]
        observed = observed.to(device)
        actions = actions.to(device) * self.denoiser.channel_mask
        # An open-loop continuation may have used the free slots.
        self.kv_cache.make_ready(AHEAD_CHUNKS * self.chunk_tokens)
        self._before = before = self.kv_cache.mark()
        try:
            timesteps, latents = self.shape.frames * [CLEAN], observed
            if missing and forecast is None:
                latents = self.denoiser.imagine(
                    observed, actions, self.frame, imagining_noise, imagine_steps, conditions,
                    interrupt)
                self.kv_cache.rewind(before)
            elif missing and forecast is not None:
                latents = torch.cat((observed, forecast.latents.to(device)[:, :, -missing:]), 2)
                timesteps[-missing:] = missing * [forecast.final_timestep]
            self.denoiser.write_chunk(
                WrittenChunk(latents, actions, self.frame), conditions.text, timesteps,
                self._prediction_cfg_batch, True, interrupt)
            prediction = self.denoiser.denoise(
                video_noise, action_noise, self.frame + self.shape.frames, None, conditions,
                interrupt)
        finally:
            self.kv_cache.rewind(before)
            self._before = None
            self.denoiser.drop_deferred_writes()
        return replace(prediction, before=latents[:, :, -1:])

    @torch.inference_mode()
    def commit(self, latents: Tensor, actions: Tensor) -> None:
        """
        Write observed frames and executed actions; predictions are dropped first.

        Tokens are evicted for a whole chunk before the first token is written, as in a prediction.

        :param latents: [1, C, F', h, w], the observed frames (in chunk 0 with its first one).
        :param actions: [1, C, F', N, 1] normalized, executed. Those of frame 0 of an episode are
            the caller's choice; training uses zero.
        """
        self.discard()
        device, frames = self.network.device, latents.shape[2]
        self._last_chunk = WrittenChunk(
            latents.to(device, copy=True), actions.to(device) * self.denoiser.channel_mask,
            self.frame)
        self._write_last_chunk(self._last_chunk)
        self.frame += frames
        self.kv_cache.make_ready(AHEAD_CHUNKS * self.chunk_tokens)

    @torch.inference_mode()
    def rebuild_from_last_chunk(self, latents: Tensor | None = None) -> None:
        """
        Rebuild the cache from the newest committed chunk only, at its positions.

        Its tokens are computed again, so that they depend on no older token.

        :param latents: [1, C, F', h, w], replacing the committed ones.
        """
        self.discard()
        self.kv_cache.clear()
        if self._last_chunk is not None:
            if latents is not None:
                self._last_chunk = replace(
                    self._last_chunk, latents=latents.to(self.network.device, copy=True))
            self._write_last_chunk(self._last_chunk)

    def save(self) -> SessionState:
        """Copy the confirmed state; may be called between the steps of a prediction."""
        last = self._last_chunk
        return SessionState(
            self.kv_cache.save(self._confirmed()), self.frame, host_copy(self._embeddings),
            host_copy(self.first_latent), last and replace(
                last, latents=last.latents.to('cpu', copy=True),
                actions=last.actions.to('cpu', copy=True)))

    def restore(self, state: SessionState) -> None:
        """
        Replace the session's state, its text included, by a saved one.

        :raises ValueError: the cache of the state has other sizes; the session is then unchanged.
        """
        self.kv_cache.restore(state.kv_cache)
        self.frame = state.frame
        self._clear_prediction()
        device, last = self.network.device, state.last_chunk
        self.first_latent = _device_copy(state.first_latent, device)
        self._last_chunk = last and replace(
            last, latents=last.latents.to(device, copy=True),
            actions=last.actions.to(device, copy=True))
        embeddings = _device_copy(state.embeddings, device)
        if embeddings is None:
            self.text = self._embeddings = None
        else:
            self.set_text(embeddings)
        self.kv_cache.make_ready(AHEAD_CHUNKS * self.chunk_tokens)

    def _conditions(self) -> Conditions:
        if self.text is None:
            raise ValueError('no instruction: call set_text before a forward pass')
        return Conditions(self.text, self.video, self.action)

    def _write_last_chunk(self, chunk: WrittenChunk) -> None:
        self.denoiser.write_chunk(
            chunk, self._conditions().text, chunk.latents.shape[2] * [CLEAN], self.cfg_batch,
            False)

    def _confirmed(self) -> CacheMark:
        """Return the mark of the confirmed tokens, also during a prediction."""
        return self.kv_cache.confirmed() if self._before is None else self._before

    def _clear_prediction(self) -> None:
        self.imagined_frames = 0
        self.denoiser.drop_deferred_writes()
        self._before = None


def host_copy(tensor: Tensor | None) -> Tensor | None:
    """Return a copy of a tensor in host memory, or None for None."""
    return None if tensor is None else tensor.detach().to('cpu', copy=True)


def _device_copy(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device, copy=True)
