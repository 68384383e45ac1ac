"""A loaded checkpoint with one episode: images and executed actions in, chunks out."""

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

IMAGINE_STEPS = 3  # the video steps on the paper's real robot


@dataclass(frozen=True)
class Chunk:
    """
    A predicted chunk in robot units.

    :param actions: [n, used] float32, to be executed (without the first frame of an episode).
    :param latents: [1, C, F, h, w], the imagined video.
    :param grounded: False if an earlier prediction replaced frames that were not observed yet.
    :param before: [1, C, 1, h, w], the latent frame before the first; None for the first chunk.
    """

    actions: np.ndarray
    latents: Tensor
    grounded: bool = True
    before: Tensor | None = None


class Engine:
    """
    One policy on one device. Not thread-safe; only the thread that created it uses it.

    A chunk is in one of three states: predicted, running (its first frame is the frame counter) or
    committed. The synchronous schedule calls `predict`, `observe` and `commit` in turn; the
    asynchronous ones call `predict_ahead` while a chunk runs, before `commit`.

    :param network: on the device and in the dtype in which it runs.
    :param vae: on the same device.
    :param text_encoder: has a method `encode(instruction)`, which returns [1, 512, text_dim].
    :param policy: cameras, picture size, chunk shape, used channels and quantiles.
    :param video: denoising steps and guidance of the video, as `action` of the actions. Guidance
        above 1 of either makes a memory of two halves.
    :param memory_chunks: chunks that the memory holds.
    :param seed: of the starting noise.
    :param imagine_steps: denoising steps with which `predict_ahead` imagines unseen frames.
    """

    def __init__(
        self, network: Network, vae: VideoVae, text_encoder: PromptEmbeddings,
        policy: PolicyFile, video: Sampling, action: Sampling, memory_chunks: int, seed: int,
        imagine_steps: int = IMAGINE_STEPS,
    ):
        self.policy = policy
        self.vae = vae
        self.text_encoder = text_encoder
        self.seed = seed
        self._imagine_steps = imagine_steps
        self._keeps_images = False
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
        self._first_latent: Tensor | None = None  # frame 0 of the episode
        self._last_latent: Tensor | None = None  # newest confirmed latent frame
        self._uncommitted_latents: list[Tensor] = []  # of `observe`, since the last commit
        self._chunk_images = ChunkImages()  # for `rebuild_from_last_chunk`
        self._forecasts: dict[int, Prediction] = {}  # by first frame: the running chunk, the next

    @property
    def memory_frames(self) -> int:
        """Number of confirmed latent frames in the memory."""
        return self.session.confirmed_tokens // self._tokens_per_frame

    @property
    def memory_capacity(self) -> int:
        """Maximum number of latent frames in the memory."""
        return self.session.kv_cache.capacity // self._tokens_per_frame

    @property
    def began(self) -> bool:
        """Whether a chunk of the episode was committed."""
        return self.session.frame > 0

    @property
    def graph_recordings(self) -> int:
        """Denoising steps that were recorded as CUDA graphs so far."""
        graphs = self.session.denoiser.graphs
        return 0 if graphs is None else graphs.recordings

    @property
    def _tokens_per_frame(self) -> int:
        return (self.session.denoiser.video_tokens + self.shape.action_tokens) // self.shape.frames

    def knows_instruction(self, instruction: str) -> bool:
        """Return whether an instruction can be set without its text being encoded."""
        return instruction == self.instruction or self.text_encoder.knows(instruction)

    def prepare_instruction(self, instruction: str) -> None:
        """
        Encode what `set_instruction` needs, so that it takes no time; any thread may do so.

        :raises CheckpointError: see `PromptEmbeddings.encode`.
        """
        negative = [''] if self.session.cfg_batch == 2 and self._negative is None else []
        self.text_encoder.prepare([instruction, *negative])

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

    def set_sampling(
        self, video: Sampling, action: Sampling, imagine_steps: int | None = None,
    ) -> None:
        """
        Change steps and guidance of later chunks.

        :param imagine_steps: those of unseen frames; None leaves them as they are.
        :raises ValueError: guidance above 1, but the memory has no negative half.
        """
        self.session.set_sampling(video, action)
        if imagine_steps is not None:
            self._imagine_steps = imagine_steps

    def keep_images(self, keeps: bool) -> None:
        """
        Choose whether the images of the newest chunk are kept for `rebuild_from_last_chunk`.

        To be called before the episode begins.
        """
        self._keeps_images = keeps

    def reset(self) -> int:
        """Clear the episode and return the number of confirmed frames dropped; the text stays."""
        forgotten = self.memory_frames
        self.session.reset()
        self.stream.clear()
        self._first_latent, self._last_latent, self._uncommitted_latents = None, None, []
        self._chunk_images = ChunkImages()
        self._forecasts = {}
        return forgotten

    @torch.inference_mode()
    def begin_episode(self, images: Mapping[str, np.ndarray]) -> None:
        """
        Begin an episode with one image of each camera; may be repeated until the first commit.

        :param images: RGB uint8 [H, W, 3] per camera.
        """
        self.session.discard()
        self.stream.clear()
        self._first_latent = self.stream.encode({name: [image] for name, image in images.items()})
        if self._keeps_images:
            self._chunk_images = self._chunk_images.first(images)
        self._uncommitted_latents, self._forecasts = [], {}

    @torch.inference_mode()
    def observe(self, images: Mapping[str, Sequence[np.ndarray]]) -> None:
        """Encode four images of each camera as the next latent frame."""
        self._uncommitted_latents.append(self.stream.encode(images))
        if self._keeps_images:
            self._chunk_images = self._chunk_images.more(images)

    def predict(self, interrupt: Interrupt = UNINTERRUPTED) -> Chunk:
        """
        Predict the next chunk from the memory; equal calls before a commit give the same chunk.

        :raises PredictionAborted: see `Session.predict`.
        """
        self.session.discard()
        return self.predict_further(interrupt)

    def predict_ahead(
        self, executing: np.ndarray, grounded: bool,
        interrupt: Interrupt = UNINTERRUPTED,
    ) -> Chunk:
        """
        Predict the chunk after the running one, from the observed frames of the running one.

        Its unobserved frames are imagined by forward dynamics from the actions, or taken from its
        own prediction. All tokens are provisional: `observe` and `commit` continue as without this
        call, and a call with equal arguments and frames gives the same chunk. The chunk becomes
        the running one by the next `commit`.

        :param executing: [n, used] float in robot units, all n actions of the running chunk
            (`Chunk.actions`): first those executed so far, then the planned ones.
        :param grounded: whether to imagine the unobserved frames.
        :param interrupt: checked before every forward pass.
        :raises ValueError: a wrong number of actions, an action that is not finite, more observed
            frames than the chunk has, or no prediction for unobserved frames.
        :raises PredictionAborted: by the interrupt; the confirmed memory is unchanged.
        """
        session, config, shape = self.session, self.session.network.config, self.shape
        first, behind = session.frame, session.frame + shape.frames
        if first == 0 and self._first_latent is None:
            raise ValueError('no chunk is running: the episode has not begun')
        seen = self._observed_latents()
        to_execute = shape.frames - (first == 0)  # frame 0 is the observed image
        if len(seen) > shape.frames:
            raise ValueError(
                f'{len(self._uncommitted_latents)} observed frames of a chunk of {to_execute}')
        actions = self._normalized(executing, to_execute)
        complete = len(seen) == shape.frames
        forecast = self._forecasts.get(first)
        if not complete and not grounded and forecast is None:
            raise ValueError(
                f'no prediction of frames {first} to {behind - 1}, which is needed in place of '
                'frames that were not observed yet')
        prediction = session.predict_ahead(
            torch.cat(seen, 2) if seen else torch.empty(
                (1, config.latent_channels, 0, shape.rows, shape.columns)),
            actions, None if grounded else forecast, self._imagine_steps,
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
        Predict the chunk after the newest prediction, as if that had been observed (open loop).

        :param noise: draws the initial noise; called as `chunk_noise`.
        :raises PredictionAborted: see `Session.predict`.
        """
        config = self.session.network.config
        start = noise(
            self.seed, self.session.frame + self.session.imagined_frames, self.shape,
            config.latent_channels, config.action_channels)
        prediction = self.session.predict(*start, self._first_latent, interrupt)
        if prediction.first_frame == self.session.frame:
            self._forecasts = {prediction.first_frame: prediction}
        return self._chunk(prediction, True, self._last_latent)

    def _chunk(self, prediction: Prediction, grounded: bool, before: Tensor | None) -> Chunk:
        actions = denormalize(
            prediction.actions, self.policy.used_channels, self.policy.q01, self.policy.q99)
        if prediction.first_frame == 0:
            actions = actions[:, 1:]
        return Chunk(
            actions.reshape(actions.shape[0], -1).T, prediction.latents, grounded, before)

    def commit(self, executed: np.ndarray) -> None:
        """
        Write the frames observed since the last commit and the actions executed meanwhile.

        :param executed: [frames * N, used] float in robot units, N for each frame of `observe`.
        :raises ValueError: a wrong number of actions, or an action that is not finite.
        """
        if not self._uncommitted_latents:
            raise ValueError('no frame was observed since the last commit')
        actions = self._normalized(executed, len(self._uncommitted_latents))
        latents = self._observed_latents()
        self.session.commit(torch.cat(latents, 2), actions)
        self._last_latent = latents[-1]
        self._uncommitted_latents, self._chunk_images = [], self._chunk_images.committed()
        # A chunk that was predicted ahead runs now, unless the one before it was truncated.
        running = self._forecasts.get(self.session.frame)
        self._forecasts = {self.session.frame: running} if running else {}

    def _observed_latents(self) -> list[Tensor]:
        """Return the latent frames since the last commit, in chunk 0 the first one included."""
        if self.session.frame == 0 and self._first_latent is not None:
            return [self._first_latent, *self._uncommitted_latents]
        return list(self._uncommitted_latents)

    def _normalized(self, executed: np.ndarray, frames: int) -> Tensor:
        """Return normalized actions [1, C, F, N, 1] from the start of a chunk."""
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
            # The first frame is the observed image, which has no actions.
            actions = torch.cat((torch.zeros_like(actions[:, :, :1]), actions), 2)
        return actions

    def drop_observed(self) -> None:
        """Drop observed frames that will not be committed: their interval was truncated."""
        self._uncommitted_latents, self._chunk_images = [], self._chunk_images.dropped()

    @torch.inference_mode()
    def rebuild_from_last_chunk(self) -> None:
        """
        Rebuild the memory from the chunk that was committed last, at its own positions.

        Its images are encoded again, in a stream that begins with the image before them, because
        the encoder's causal caches contain older images. The frame counter continues. Later
        predictions then depend on no older observation: the ablation of the memory.

        :raises ValueError: the images were not kept; see `keep_images`.
        """
        if not self.began:
            return
        if not self._chunk_images.chunk:
            raise ValueError(
                'the images of the last chunk were not kept: call keep_images first')
        latents, self._uncommitted_latents = reencode(self.stream, self._chunk_images)
        frames = (len(self._chunk_images.chunk) - 1) // IMAGES_PER_FRAME
        if self.session.frame > frames + 1:  # else the first image is the episode's own
            latents = latents[:, :, 1:]
        self._last_latent = latents[:, :, -1:]
        self.session.rebuild_from_last_chunk(latents)

    def snapshot(self) -> Snapshot:
        """
        Copy the confirmed state of the episode to host memory.

        May be called from `Interrupt.check`; the copy does not contain the current prediction. It
        has the keys and values of the confirmed memory, several GB at the public sizes.
        """
        session = self.session
        return Snapshot(
            identity_of(session.network, self.vae, self.policy), self.policy.name,
            self.memory_frames, session.save(), self.stream.save(), self.instruction,
            host_copy(self._first_latent), host_copy(self._last_latent),
            [latent.to('cpu', copy=True) for latent in self._uncommitted_latents],
            {first: _moved(one, torch.device('cpu')) for first, one in self._forecasts.items()},
            self._chunk_images)

    def restore(self, snapshot: Snapshot) -> None:
        """
        Continue from a snapshot, including its instruction. The snapshot is not changed.

        Steps, guidance and seed stay those of the engine; with equal ones the next chunk is the
        one that would have followed the snapshot. Not to be called from `Interrupt.check`.

        :raises ValueError: the snapshot has other weights, another policy file or another size of
            the memory; the engine is then unchanged.
        """
        session = self.session
        # Sizes first: another dtype also changes the hash of the weights, and is the clearer
        # error.
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

        self._first_latent, self._last_latent = here(snapshot.first), here(snapshot.last)
        self._uncommitted_latents = [latent.to(device, copy=True) for latent in snapshot.seen]
        self._chunk_images = snapshot.shown
        self._forecasts = {
            first: _moved(one, session.network.device)
            for first, one in snapshot.forecasts.items()}

    def imagined_video(self, chunk: Chunk) -> np.ndarray:
        """
        Return the imagined images of a chunk, RGB uint8 [T, H, W, 3], all views joined.

        There are four for each latent frame that is executed, in order of time.
        """
        latents = chunk.latents
        if chunk.before is not None:  # the decoder is causal and needs the frame before
            latents = torch.cat((chunk.before.to(latents.device), latents), 2)
        return self.decode(latents)[1:]

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> np.ndarray:
        """
        Decode latents to images, RGB uint8 [1 + 4 (F - 1), H, W, 3], all views joined.

        :param latents: [1, C, F, h, w]; the first frame is decoded to one image, as the first of a
            stream.
        """
        return (self.vae.decode(latents) * 255).round().byte().cpu().numpy()

    def warm_up(self) -> None:
        """Warm up: run one chunk of every kind of forward pass on gray images, then reset."""
        gray = np.full((self.policy.height, self.policy.width, 3), 127, np.uint8)
        self.begin_episode(dict.fromkeys(self.policy.cameras, gray))
        chunk = self.predict()
        for _ in range(len(chunk.actions) // self.shape.actions):
            self.observe({name: [gray] * IMAGES_PER_FRAME for name in self.policy.cameras})
        still = np.zeros_like(chunk.actions)  # the predicted values have no effect here
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
