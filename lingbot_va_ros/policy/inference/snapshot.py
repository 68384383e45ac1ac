"""A copy of an episode in host memory, and the identity of the model that it belongs to."""

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

SAMPLES = 64  # numbers of each weight tensor that tell it from another


@dataclass(frozen=True)
class Snapshot:
    """
    Everything that `Engine.restore` needs, all tensors in host memory.

    `frames` are the confirmed latent frames in the memory, `policy` the policy file's name, `seen`
    the latent frames that were seen since the last commit, `forecasts` the predicted chunks that
    are running or come next, by first frame; `shown` what the engine's `ChunkImages` has kept.
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
    Return a hash of the weights and of the layout of inputs, which a KV cache depends on.

    Taken from what is loaded, adapters merged, not from files: a copy of a checkpoint is the same
    checkpoint, wherever it lies. Of each weight tensor of the network and of the video encoder go
    in name, shape, dtype and 64 evenly spread numbers, since training changes nearly all; of the
    policy file what images and actions are, and neither steps nor guidance.
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
    digest.update(torch.cat(samples).cpu().numpy().tobytes())  # one copy from the device
