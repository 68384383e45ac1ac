"""A loaded checkpoint with its one episode: images and executed actions in, chunks out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lingbot_va_ros.model.camera_layout import latent_size
from lingbot_va_ros.model.cuda_graphs import step_graphs
from lingbot_va_ros.model.prompt_embeddings import PromptEmbeddings
from lingbot_va_ros.model.transformer import Network
from lingbot_va_ros.model.video_vae import VaeStream, VideoVae
from lingbot_va_ros.policy.inference.chunk_images import ChunkImages, reencode
from lingbot_va_ros.policy.inference.chunk_shape import ChunkShape
from lingbot_va_ros.policy.inference.denoise import Prediction
from lingbot_va_ros.policy.inference.noise import chunk_noise, ChunkNoise, imagining_noise
from lingbot_va_ros.policy.inference.normalization import denormalize, normalize
from lingbot_va_ros.policy.inference.session import host_copy, Session
from lingbot_va_ros.policy.inference.snapshot import identity_of, Snapshot
from lingbot_va_ros.policy.interrupt import Interrupt, UNINTERRUPTED
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME
from lingbot_va_ros.specs.policy_file import PolicyFile, Sampling

IMAGINE_STEPS = 3  # the video steps of the paper's real robot


@dataclass(frozen=True)
class Chunk:
    """
    A predicted chunk in robot units.

    :param actions: [n, used] float32, those to be executed (the first frame of an episode is not).
    :param latents: [1, C, F, h, w], the imagined video.
    :param grounded: False where an earlier forecast stood in for frames that were not seen yet.
    :param before: [1, C, 1, h, w], the latent frame before the first; None for the first chunk.
    """

    actions: np.ndarray
    latents: Tensor
    grounded: bool = True
    before: Tensor | None = None


class Engine:
    """
    One policy on one device.

    Not thread-safe: the thread that made it owns it.

    A chunk is in one of three states: predicted, running (its first frame is the frame counter) or
    committed. In the synchronous schedule `predict`, `observe` and `commit` take turns; in the
    asynchronous ones `predict_ahead` comes while a chunk runs, before `commit`.

    `imagine_steps` are the denoising steps with which `predict_ahead` imagines what has not been
    seen yet; it may be set at any time. `keeps_images` is to be set before an episode begins in
    which `rebuild_from_last_chunk` is called: then the images of the newest chunk are kept.

    :param text_encoder: anything whose `encode(instruction)` returns [1, 512, text_dim].
    """

    def __init__(
        self, network: Network, vae: VideoVae, text_encoder: PromptEmbeddings,
        policy: PolicyFile, video: Sampling, action: Sampling, memory_chunks: int, seed: int,
    ):
        self.policy = policy
        self.vae = vae
        self.text_encoder = text_encoder
        self.seed = seed
        self.imagine_steps = IMAGINE_STEPS
        self.keeps_images = False
        rows, columns = latent_size(
            policy.layout, len(policy.cameras), policy.height, policy.width)
        self.shape = ChunkShape(policy.frames_per_chunk, policy.actions_per_frame, rows, columns)
        self.session = Session(
            network, self.shape, video, action, policy.used_channels, memory_chunks,
            step_graphs(network))
        self.stream = VaeStream(
            vae, policy.layout, policy.cameras, policy.height, policy.width,
            policy.mirror_images)
        self.instruction: str | None = None
        self._negative: Tensor | None = None
        self._first: Tensor | None = None
        self._last: Tensor | None = None  # newest confirmed latent frame
        self._seen: list[Tensor] = []
        self._shown = ChunkImages()
        self._forecasts: dict[int, Prediction] = {}  # by first frame: the running chunk, the next

    @property
    def memory_frames(self) -> int:
        """Confirmed latent frames that the memory holds."""
        return self.session.confirmed_tokens // self._tokens_per_frame

    @property
    def memory_capacity(self) -> int:
        """Latent frames that the memory holds at most."""
        return self.session.kv_cache.capacity // self._tokens_per_frame

    @property
    def began(self) -> bool:
        """Whether a chunk of the episode was committed."""
        return self.session.frame > 0

    @property
    def _tokens_per_frame(self) -> int:
        return (self.session.denoiser.video_tokens + self.shape.action_tokens) // self.shape.frames

    def set_instruction(self, instruction: str) -> None:
        """Change the instruction; tokens written under the old one stay in the KV cache."""
        if instruction == self.instruction:
            return
        rows = [self.text_encoder.encode(instruction)]
        if self.session.cfg_batch == 2:
            if self._negative is None:
                self._negative = self.text_encoder.encode('')
            rows.append(self._negative)
        self.session.set_text(torch.cat(rows))
        self.instruction = instruction

    def set_sampling(self, video: Sampling, action: Sampling) -> None:
        """
        Change steps and guidance for the chunks to come.

        :raises ValueError: guidance above 1 where the memory was made without a second half.
        """
        self.session.set_sampling(video, action)

    def reset(self) -> int:
        """Clear the episode and return the number of confirmed frames dropped; the text stays."""
        forgotten = self.memory_frames
        self.session.reset()
        self.stream.clear()
        self._first, self._last, self._seen = None, None, []
        self._shown = ChunkImages()
        self._forecasts = {}
        return forgotten

    @torch.inference_mode()
    def begin_episode(self, images: Mapping[str, np.ndarray]) -> None:
        """
        Take the image of each camera that begins an episode (again, if nothing is confirmed yet).

        :param images: RGB uint8 [H, W, 3] per camera.
        """
        self.session.discard()
        self.stream.clear()
        self._first = self.stream.encode({name: [image] for name, image in images.items()})
        if self.keeps_images:
            self._shown = self._shown.first(images)
        self._seen, self._forecasts = [], {}

    @torch.inference_mode()
    def observe(self, images: Mapping[str, Sequence[np.ndarray]]) -> None:
        """Take the four images of each camera that make the next latent frame."""
        self._seen.append(self.stream.encode(images))
        if self.keeps_images:
            self._shown = self._shown.more(images)

    def predict(self, interrupt: Interrupt = UNINTERRUPTED) -> Chunk:
        """
        Predict the next chunk from the memory (the same again until something is committed).

        :raises PredictionAborted: see `Session.predict`.
        """
        self.session.discard()
        return self.predict_further(interrupt)

    def predict_ahead(
        self, executing: np.ndarray, grounded: bool,
        interrupt: Interrupt = UNINTERRUPTED,
    ) -> Chunk:
        """
        Predict the chunk behind the running one, from what `observe` has taken of that so far.

        The unseen rest is imagined by forward dynamics, conditioned on the actions, or taken from
        what was predicted as the running chunk. All of it is provisional: `observe` and `commit`
        go on as if this had not been called, and a call with the same arguments and frames gives
        the same chunk. It becomes the running chunk with the next `commit`.

        :param executing: [n, used] float in robot units, all actions of the running chunk, n as
            many as its `Chunk.actions` has: what was executed so far, the plan for the rest.
        :param grounded: whether to imagine the unseen rest.
        :param interrupt: checked before every forward.
        :raises ValueError: another number of actions or one that is not finite, more frames seen
            than the chunk has, or nothing was predicted that could stand in for unseen ones.
        :raises PredictionAborted: the interrupt asked for it; the confirmed memory is as it was.
        """
        session, config, shape = self.session, self.session.network.config, self.shape
        first, behind = session.frame, session.frame + shape.frames
        if first == 0 and self._first is None:
            raise ValueError('nothing runs: the episode has not begun')
        seen = self._observed_latents()
        to_execute = shape.frames - (first == 0)  # frame 0 is the observed image alone
        if len(seen) > shape.frames:
            raise ValueError(f'{len(self._seen)} frames were seen of a chunk of {to_execute}')
        actions = self._normalized(executing, to_execute)
        complete = len(seen) == shape.frames
        forecast = self._forecasts.get(first)
        if not complete and not grounded and forecast is None:
            raise ValueError(
                f'nothing was predicted for frames {first} to {behind - 1}, so that nothing can '
                'stand in for those that are not seen yet')
        prediction = session.predict_ahead(
            torch.cat(seen, 2) if seen else torch.empty(
                (1, config.latent_channels, 0, shape.rows, shape.columns)),
            actions, None if grounded else forecast, self.imagine_steps,
            imagining_noise(self.seed, first, shape, config.latent_channels),
            *chunk_noise(
                self.seed, behind, shape, config.latent_channels, config.action_channels),
            interrupt)
        self._forecasts = {
            start: chunk for start, chunk in ((first, forecast), (behind, prediction)) if chunk}
        return self._chunk(prediction, complete or grounded, prediction.before)

    def predict_further(
        self, interrupt: Interrupt = UNINTERRUPTED, noise: ChunkNoise = chunk_noise,
    ) -> Chunk:
        """
        Predict the chunk behind what was predicted last, as if that had come true (open loop).

        :param noise: the starting noise; called as `chunk_noise`.
        :raises PredictionAborted: see `Session.predict`.
        """
        config = self.session.network.config
        start = noise(
            self.seed, self.session.frame + self.session.imagined_frames, self.shape,
            config.latent_channels, config.action_channels)
        prediction = self.session.predict(*start, self._first, interrupt)
        if prediction.first_frame == self.session.frame:
            self._forecasts = {prediction.first_frame: prediction}
        return self._chunk(prediction, True, self._last)

    def _chunk(self, prediction: Prediction, grounded: bool, before: Tensor | None) -> Chunk:
        actions = denormalize(
            prediction.actions, self.policy.used_channels, self.policy.q01, self.policy.q99)
        if prediction.first_frame == 0:
            actions = actions[:, 1:]
        return Chunk(
            actions.reshape(actions.shape[0], -1).T, prediction.latents, grounded, before)

    def commit(self, executed: np.ndarray) -> None:
        """
        Write the frames seen since the last commit and what was executed meanwhile.

        :param executed: [frames * N, used] float in robot units, N for each frame of `observe`.
        :raises ValueError: another number of actions, or one that is not finite.
        """
        if not self._seen:
            raise ValueError('no frame was seen since the last commit')
        actions = self._normalized(executed, len(self._seen))
        latents = self._observed_latents()
        self.session.commit(torch.cat(latents, 2), actions)
        self._last = latents[-1]
        self._seen, self._shown = [], self._shown.committed()
        # A chunk that was predicted ahead runs now, unless the one before it was cut off.
        running = self._forecasts.get(self.session.frame)
        self._forecasts = {self.session.frame: running} if running else {}

    def _observed_latents(self) -> list[Tensor]:
        """Return the latent frames since the last commit, in chunk 0 the first one included."""
        if self.session.frame == 0 and self._first is not None:
            return [self._first, *self._seen]
        return list(self._seen)

    def _normalized(self, executed: np.ndarray, frames: int) -> Tensor:
        """Return the network's view, [1, C, F, N, 1], of actions that begin a chunk."""
        per_frame, used = self.shape.actions, self.policy.used_channels
        if executed.shape != (frames * per_frame, len(used)):
            raise ValueError(
                f'executed actions of shape {list(executed.shape)} for {frames} frames '
                f'of {per_frame} actions with {len(used)} channels')
        if not np.isfinite(executed).all():
            raise ValueError('an executed action is not finite')
        actions = normalize(
            executed.T.reshape(len(used), frames, per_frame), used, self.policy.q01,
            self.policy.q99)
        if self.session.frame == 0:
            # The first frame is the observed image alone; no action led to it.
            actions = torch.cat((torch.zeros_like(actions[:, :, :1]), actions), 2)
        return actions

    def drop_observed(self) -> None:
        """Drop observed frames that will not be committed: their interval was truncated."""
        self._seen, self._shown = [], self._shown.dropped()

    @torch.inference_mode()
    def rebuild_from_last_chunk(self) -> None:
        """
        Rebuild the memory from the chunk that was committed last, at its own positions.

        Its images are encoded anew as well, in a stream that begins with the image before them:
        the encoder's causal caches remember some seconds. The frame counter goes on. What is
        predicted then knows nothing older: the ablation of the memory.

        :raises ValueError: the images were not kept; see `keeps_images`.
        """
        if not self.began:
            return
        if not self._shown.chunk:
            raise ValueError('the images of the last chunk were not kept: set keeps_images first')
        latents, self._seen = reencode(self.stream, self._shown)
        frames = (len(self._shown.chunk) - 1) // IMAGES_PER_FRAME
        if self.session.frame > frames + 1:  # else the first image is the episode's own
            latents = latents[:, :, 1:]
        self._last = latents[:, :, -1:]
        self.session.rebuild_from_last_chunk(latents)

    def snapshot(self) -> Snapshot:
        """
        Copy the episode to host memory; nothing that comes later changes the copy.

        May be called from `Interrupt.check`: the prediction goes on, and the copy knows nothing of
        it. Holds keys and values of the confirmed memory, so several GB at the public sizes.
        """
        session = self.session
        return Snapshot(
            identity_of(session.network, self.vae, self.policy), self.policy.name,
            self.memory_frames, session.save(), self.stream.save(), self.instruction,
            host_copy(self._first), host_copy(self._last),
            [latent.to('cpu', copy=True) for latent in self._seen],
            {first: _moved(one, torch.device('cpu')) for first, one in self._forecasts.items()},
            self._shown)

    def restore(self, snapshot: Snapshot) -> None:
        """
        Go on from a snapshot, its instruction included; the snapshot can be used again.

        Steps, guidance and seed are the engine's: with the same ones the next chunk is that which
        would have come at the saved moment. Not to be called from `Interrupt.check`.

        :raises ValueError: it was saved with other weights, another policy file or another size
            of memory; nothing has changed then.
        """
        session = self.session
        # Sizes first: another dtype also changes the weights, and is the better explanation.
        if snapshot.session.kv_cache.sizes != session.kv_cache.sizes:
            raise ValueError(
                f'the snapshot is of a memory of {snapshot.session.kv_cache.sizes}, this one has '
                f'{session.kv_cache.sizes}')
        if snapshot.identity != identity_of(session.network, self.vae, self.policy):
            raise ValueError(
                f'the snapshot was saved with other weights or another policy file (its policy is '
                f'{snapshot.policy}, this one {self.policy.name})')
        session.restore(snapshot.session)
        self.stream.restore(snapshot.stream)
        self.instruction = snapshot.instruction
        device = self.vae.device

        def here(latent: Tensor | None) -> Tensor | None:
            return None if latent is None else latent.to(device, copy=True)

        self._first, self._last = here(snapshot.first), here(snapshot.last)
        self._seen = [latent.to(device, copy=True) for latent in snapshot.seen]
        self._shown = snapshot.shown
        self._forecasts = {
            first: _moved(one, session.network.device)
            for first, one in snapshot.forecasts.items()}

    def imagined_video(self, chunk: Chunk) -> np.ndarray:
        """
        Return the pictures that a chunk imagines, uint8 [T, H, W, 3], all views joined.

        Four for each latent frame that is executed, in the order of the images they foretell.
        """
        latents = chunk.latents
        if chunk.before is not None:  # the decoder is causal: give it the frame before
            latents = torch.cat((chunk.before.to(latents.device), latents), 2)
        return self.decode(latents)[1:]

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> np.ndarray:
        """
        Return the pictures of latents, uint8 [1 + 4 (F - 1), H, W, 3], all views joined.

        :param latents: [1, C, F, h, w], the first frame one that began an encoder's stream or
            stands for it.
        """
        return (self.vae.decode(latents) * 255).round().byte().cpu().numpy()

    def warm_up(self) -> None:
        """Run one chunk of every kind of forward on grey images, then forget it."""
        grey = np.full((self.policy.height, self.policy.width, 3), 127, np.uint8)
        self.begin_episode(dict.fromkeys(self.policy.cameras, grey))
        chunk = self.predict()
        for _ in range(len(chunk.actions) // self.shape.actions):
            self.observe({name: [grey] * IMAGES_PER_FRAME for name in self.policy.cameras})
        still = np.zeros_like(chunk.actions)  # whatever is predicted is no concern here
        self.predict_ahead(still, grounded=True)
        self.commit(still)
        self.predict()
        self.reset()


def _moved(prediction: Prediction, device: torch.device) -> Prediction:
    """Return a copy of a prediction on a device."""
    return replace(
        prediction, latents=prediction.latents.to(device, copy=True),
        actions=prediction.actions.to(device, copy=True),
        before=None if prediction.before is None else prediction.before.to(device, copy=True))
