"""Snapshots of an episode in host memory, and the hash of the model to which they belong."""

from collections.abc import Iterable
from dataclasses import dataclass
import hashlib

import torch
from torch import Tensor

from lingbot_va_ros.model.transformer import Network
from lingbot_va_ros.model.video_vae import VaeStreamState, VideoVae
from lingbot_va_ros.policy.inference.chunk_images import ChunkImages
from lingbot_va_ros.policy.inference.denoise import Prediction
from lingbot_va_ros.policy.inference.session import SessionState
from lingbot_va_ros.specs.policy_file import PolicyFile

SAMPLES = 64  # values of each weight tensor in the hash


@dataclass(frozen=True)
class Snapshot:
    """
    The state that `Engine.restore` needs, all tensors in host memory.

    :param frames: number of confirmed latent frames in the memory.
    :param policy: name of the policy file.
    :param seen: latent frames observed since the last commit.
    :param forecasts: the predictions of the running and the next chunk, by first frame.
    :param shown: images of the engine's `ChunkImages`.
    """

    identity: str
    policy: str
    frames: int
    session: SessionState
    stream: VaeStreamState
    instruction: str | None
    first: Tensor | None
    last: Tensor | None
    seen: list[Tensor]
    forecasts: dict[int, Prediction]
    shown: ChunkImages


def identity_of(network: Network, vae: VideoVae, policy: PolicyFile) -> str:
    """
    Return a hash of the weights and of the layout of inputs, on which a KV cache depends.

    It is computed from the loaded weights with merged adapters, so that a copy of a checkpoint has
    the same hash. Of each weight tensor of the network and the video encoder, the name, the shape,
    the dtype and 64 evenly spread values are hashed, because training changes nearly all values.
    Of the policy file, the layout of images and actions is hashed, but not the sampling.
    """
    digest = hashlib.sha256()
    for module in (network, vae.autoencoder.encoder):
        _add_weights(digest, module.named_parameters())
    layout = (
        policy.cameras, policy.layout, policy.height, policy.width, policy.mirror_images,
        policy.frames_per_chunk, policy.actions_per_frame, policy.action_rate,
        policy.action_frame, policy.delta_scale, policy.used_channels, policy.q01.tolist(),
        policy.q99.tolist())
    digest.update(repr(layout).encode())
    return digest.hexdigest()


def _add_weights(digest, weights: Iterable) -> None:
    samples = []
    for name, weight in weights:
        digest.update(f'{name} {tuple(weight.shape)} {weight.dtype}\n'.encode())
        flat = weight.detach().flatten()
        samples.append(flat[::max(1, len(flat) // SAMPLES)][:SAMPLES].float())
    digest.update(torch.cat(samples).cpu().numpy().tobytes())  # a single copy from the device
