"""A loaded checkpoint with its one episode: images and executed actions in, chunks out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Mapping, Optional, Sequence

import numpy as np
import torch
from torch import Tensor

from lingbot_va_ros.model.attention import choose_attention
from lingbot_va_ros.model.codec import CodecStream, VideoCodec, empty_vae, load_codec
from lingbot_va_ros.model.config import IMAGES_PER_FRAME
from lingbot_va_ros.model.errors import CheckpointError
from lingbot_va_ros.model.lerobot import find_parts
from lingbot_va_ros.model.parts import part_mismatches
from lingbot_va_ros.model.prompts import Prompts
from lingbot_va_ros.model.transformer import Transformer
from lingbot_va_ros.model.views import latent_size
from lingbot_va_ros.policy.actions import denormalise, normalise
from lingbot_va_ros.policy.compatibility import policy_mismatches
from lingbot_va_ros.policy.policy_file import PolicyFile, Sampling
from lingbot_va_ros.policy.session import ChunkShape, Session, chunk_noise


@dataclass(frozen=True)
class Chunk:
    """
    A predicted chunk in robot units.

    :param actions: [n, used] float32, those to be executed (the first frame of an episode is not).
    :param latents: [1, C, F, h, w], the imagined video.
    """

    actions: np.ndarray
    latents: Tensor


class Engine:
    """
    One policy on one device.

    Not thread-safe: the thread that made it owns it.

    :param text_encoder: anything whose `encode(instruction)` returns [1, 512, text_dim].
    """

    def __init__(
        self, network: Transformer, codec: VideoCodec, text_encoder: Prompts,
        policy: PolicyFile, video: Sampling, action: Sampling, memory_chunks: int, seed: int,
    ):
        self.policy = policy
        self.codec = codec
        self.text_encoder = text_encoder
        self.seed = seed
        rows, columns = latent_size(
            policy.layout, len(policy.cameras), policy.height, policy.width)
        self.shape = ChunkShape(policy.frames_per_chunk, policy.actions_per_frame, rows, columns)
        self.session = Session(
            network, self.shape, video, action, policy.used_channels, memory_chunks)
        self.stream = CodecStream(
            codec, policy.layout, policy.cameras, policy.height, policy.width,
            policy.mirror_images)
        self.instruction: Optional[str] = None
        self._negative: Optional[Tensor] = None
        self._first: Optional[Tensor] = None
        self._last: Optional[Tensor] = None  # newest confirmed latent frame
        self._seen: List[Tensor] = []

    @property
    def memory_frames(self) -> int:
        """Confirmed latent frames that the memory holds."""
        memory = self.session.memory
        return (memory.valid - memory.provisional) // self._tokens_per_frame

    @property
    def memory_capacity(self) -> int:
        """Latent frames that the memory holds at most."""
        return self.session.memory.capacity // self._tokens_per_frame

    @property
    def began(self) -> bool:
        """Whether anything of the episode is confirmed."""
        return self.session.frame > 0

    @property
    def _tokens_per_frame(self) -> int:
        return (self.session.video_tokens + self.shape.action_tokens) // self.shape.frames

    def set_instruction(self, instruction: str) -> None:
        """Change the task; what was remembered under the old text stays as it is."""
        if instruction == self.instruction:
            return
        rows = [self.text_encoder.encode(instruction)]
        if self.session.text_rows == 2:
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
        if max(video.guidance, action.guidance) > 1 and self.session.text_rows == 1:
            raise ValueError(
                'guidance above 1 needs a memory with two halves: set it before configure')
        self.session.video, self.session.action = video, action

    def reset(self) -> int:
        """Forget the episode and return how many confirmed frames went; the text stays."""
        forgotten = self.memory_frames
        self.session.reset()
        self.stream.clear()
        self._first, self._last, self._seen = None, None, []
        return forgotten

    @torch.inference_mode()
    def see_first(self, images: Mapping[str, np.ndarray]) -> None:
        """
        Take the image of each camera that begins an episode (again, if nothing is confirmed yet).

        :param images: RGB uint8 [H, W, 3] per camera.
        """
        self.session.discard()
        self.stream.clear()
        self._first = self.stream.encode({name: [image] for name, image in images.items()})
        self._seen = []

    @torch.inference_mode()
    def see(self, images: Mapping[str, Sequence[np.ndarray]]) -> None:
        """Take the four images of each camera that make the next latent frame."""
        self._seen.append(self.stream.encode(images))

    def predict(self, between_steps: Callable[[], None] = lambda: None) -> Chunk:
        """
        Predict the next chunk from the memory (the same again until something is committed).

        :raises PredictionAborted: see `Session.predict`.
        """
        self.session.discard()
        return self.predict_further(between_steps)

    def predict_further(
        self, between_steps: Callable[[], None] = lambda: None, noise: Callable = chunk_noise,
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
        prediction = self.session.predict(*start, self._first, between_steps)
        actions = denormalise(
            prediction.actions, self.policy.used_channels, self.policy.q01, self.policy.q99)
        if prediction.first_frame == 0:
            actions = actions[:, 1:]
        return Chunk(actions.reshape(actions.shape[0], -1).T, prediction.latents)

    def commit(self, executed: np.ndarray) -> None:
        """
        Write the frames seen since the last commit and what was executed meanwhile.

        :param executed: [frames * N, used] float in robot units, N for each frame of `see`.
        :raises ValueError: another number of actions.
        """
        per_frame = self.shape.actions
        if not self._seen:
            raise ValueError('no frame was seen since the last commit')
        if executed.shape != (len(self._seen) * per_frame, len(self.policy.used_channels)):
            raise ValueError(
                f'executed actions of shape {list(executed.shape)} for {len(self._seen)} frames '
                f'of {per_frame} actions with {len(self.policy.used_channels)} channels')
        latents = list(self._seen)
        frames = executed.T.reshape(executed.shape[1], len(self._seen), per_frame)
        actions = normalise(
            frames, self.policy.used_channels, self.policy.q01, self.policy.q99)
        if self.session.frame == 0:
            # The first frame is the observed image alone; no action led to it.
            latents.insert(0, self._first)
            actions = torch.cat((torch.zeros_like(actions[:, :, :1]), actions), 2)
        self.session.commit(torch.cat(latents, 2), actions)
        self._last = latents[-1]
        self._seen = []

    def drop_seen(self) -> None:
        """Forget frames that were seen and will not be committed (their interval was cut off)."""
        self._seen = []

    def imagined_video(self, chunk: Chunk) -> np.ndarray:
        """
        Return the pictures that a chunk imagines, uint8 [T, H, W, 3], all views joined.

        Four for each latent frame that is executed, in the order of the images they foretell.
        """
        latents = chunk.latents
        if self._last is not None:  # the decoder is causal: give it the frame before
            latents = torch.cat((self._last.to(latents.device), latents), 2)
        return self.decode(latents)[1:]

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> np.ndarray:
        """
        Return the pictures of latents, uint8 [1 + 4 (F - 1), H, W, 3], all views joined.

        :param latents: [1, C, F, h, w], the first frame one that began an encoder's stream or
            stands for it.
        """
        return (self.codec.decode(latents) * 255).round().byte().cpu().numpy()

    def warm_up(self) -> None:
        """Run one chunk of every kind of forward on grey images, then forget it."""
        grey = np.full((self.policy.height, self.policy.width, 3), 127, np.uint8)
        self.see_first({name: grey for name in self.policy.cameras})
        chunk = self.predict()
        for _ in range(len(chunk.actions) // self.shape.actions):
            self.see({name: [grey] * IMAGES_PER_FRAME for name in self.policy.cameras})
        self.commit(chunk.actions)
        self.predict()
        self.reset()


def load_engine(
    checkpoint: Path, policy: PolicyFile, video: Sampling, action: Sampling, memory_chunks: int,
    seed: int, device: torch.device, dtype: torch.dtype, progress: Callable[[str], None],
    attention: str = 'auto', text_encoder: str = 'release', instructions: Sequence[str] = (),
    wan_pretrained_path: str = '', adapter_base: str = '', warm_up: bool = True,
) -> Engine:
    """
    Load a checkpoint folder, in the public layout or LeRobot's, and warm it up.

    Everything is checked by its headers first. Then the instructions are encoded, before the
    network takes the device's memory: the text encoder is the largest part of all.

    :param progress: called with a line before each part.
    :param attention: see `choose_attention`.
    :param text_encoder: where it stays after it was needed, see `Prompts`.
    :param instructions: those to be encoded while loading, so that they can begin at once.
    :param wan_pretrained_path: see `find_parts`, as `adapter_base`.
    :param warm_up: run a chunk of everything first, so that none is late afterwards.
    :raises CheckpointError: names the file, key or shape at fault.
    :raises ValueError: `attention` or `text_encoder` cannot be had, or the policy file does not
        fit the network; every mistake is named.
    """
    checkpoint = Path(checkpoint)
    progress(f'checking {checkpoint}')
    parts = find_parts(checkpoint, wan_pretrained_path, adapter_base)
    config = parts.weights.config
    attend, reason = choose_attention(attention, device, dtype, config.head_dim)
    progress(reason)
    prompts = Prompts(parts.frozen, device, dtype, text_encoder)
    mismatches = part_mismatches(
        config, empty_vae(parts.frozen / 'vae').config, prompts.text_dim)
    if mismatches:
        raise CheckpointError(
            f'{checkpoint} with {parts.frozen}: {"; ".join(mismatches)}'
            if parts.frozen != checkpoint else f'{checkpoint}: {"; ".join(mismatches)}')
    mismatches = policy_mismatches(policy, config)
    if mismatches:
        raise ValueError(
            f'policy {policy.name} does not fit {checkpoint}: {"; ".join(mismatches)}')
    unknown = [text for text in ('', *instructions) if not prompts.knows(text)]
    if unknown:
        progress(f'encoding {len(unknown)} instructions')
        prompts.prepare(unknown)
    progress(f'loading the transformer of {checkpoint}')
    network = parts.load_transformer(device, dtype, attend)
    progress('loading the video codec')
    codec = load_codec(parts.frozen / 'vae', device, dtype)
    engine = Engine(network, codec, prompts, policy, video, action, memory_chunks, seed)
    if warm_up:
        progress('warming up')
        engine.set_instruction('')
        engine.warm_up()
    return engine
