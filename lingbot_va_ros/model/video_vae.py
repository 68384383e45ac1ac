"""The video VAE (diffusers' AutoencoderKLWan): encodes image streams, decodes latents."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
import warnings

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lingbot_va_ros.model.camera_layout import camera_groups, join_latents
from lingbot_va_ros.model.checkpoint import (
    compare_shapes,
    fill_module,
    tensor_shapes,
    weight_files,
)
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME, read_json_object
from lingbot_va_ros.specs.errors import CheckpointError

with warnings.catch_warnings():
    # A module that diffusers imports warns on every machine without CUDA.
    warnings.filterwarnings('ignore', 'CUDA is not available', UserWarning)
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, patchify

# Modules of the VAE; the decoder is needed for imagined video only.
ENCODER = ('encoder', 'quant_conv')
DECODER = ('decoder', 'post_quant_conv')


class VideoVae:
    """
    A VAE that encodes streams; the encoder's causal caches belong to a `VaeStream`.

    Latents are normalized with the mean and deviation in the VAE's config, as the transformer
    expects them.

    :param read_decoder: reads the decoder's weights, called once before the first `decode`; None
        if they are loaded.
    """

    def __init__(
        self, autoencoder: AutoencoderKLWan, read_decoder: Callable[[], None] | None = None,
    ):
        self.autoencoder = autoencoder
        self._read_decoder = read_decoder
        weight = next(autoencoder.encoder.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        shape = (1, -1, 1, 1, 1)
        config = autoencoder.config
        self.mean = torch.tensor(config['latents_mean'], device=self.device).view(shape)
        self.deviation = torch.tensor(config['latents_std'], device=self.device).view(shape)
        self.caches = sum(
            type(module).__name__ == 'WanCausalConv3d' for module in autoencoder.encoder.modules())

    def encode(self, frames: Tensor, cache: list) -> Tensor:
        """
        Encode the next images of a stream.

        :param frames: [B, 3, T, H, W] in [-1, 1]; T is 1 for the first call of a stream, then 4.
        :param cache: the stream's causal caches, `[None] * caches` at first; changed in place.
        :returns: mean and log-variance before normalization, [B, 2C, 1, H / 16, W / 16].
        """
        frames = frames.to(self.device, self.dtype)
        patch_size = self.autoencoder.config['patch_size']
        if patch_size is not None:
            frames = patchify(frames, patch_size)
        encoded = self.autoencoder.encoder(frames, feat_cache=cache, feat_idx=[0])
        return self.autoencoder.quant_conv(encoded)

    def normalize(self, encoded: Tensor) -> Tensor:
        """Return normalized latents, [B, C, F, h, w] float32, of the result of `encode`."""
        mean = encoded.float().chunk(2, 1)[0]
        return (mean - self.mean) / self.deviation

    def decode(self, latents: Tensor) -> Tensor:
        """
        Return the video of normalized latents, float32 [T, H, W, 3] in [0, 1].

        :param latents: [1, C, F, h, w]. The first frame gives one image, each later one four; the
            views stay joined as they are in the latents.
        :raises CheckpointError: the decoder's weights, read by the first call, are unreadable.
        """
        if self._read_decoder is not None:
            self._read_decoder()
            self._read_decoder = None
        raw = latents.to(self.device).float() * self.deviation + self.mean
        # [3, T, H, W]
        video = self.autoencoder.decode(raw.to(self.dtype), return_dict=False)[0][0]
        return (video.float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0)


@dataclass(frozen=True)
class VaeStreamState:
    """A copy in host memory of a stream's causal caches, per view group, None where unused."""

    caches: list[list[Tensor | None]]
    started: bool


class VaeStream:
    """
    Encodes the images of one episode.

    :param layout: how the cameras are joined, see `camera_layout.camera_groups`.
    :param cameras: names, in the order of the checkpoint.
    :param height: of a full-size view in pixels, as `width`.
    :param mirror: whether every image is mirrored left to right first.
    """

    def __init__(
        self, vae: VideoVae, layout: str, cameras: Sequence[str], height: int, width: int,
        mirror: bool = False,
    ):
        self.vae = vae
        self.layout = layout
        self.mirror = mirror
        self.groups = camera_groups(layout, cameras, height, width)
        self.caches: list[list] = []
        self.clear()

    def clear(self) -> None:
        """Begin a new episode: the next call to `encode` takes one image of each camera."""
        self.caches = [[None] * self.vae.caches for _ in self.groups]
        self.started = False

    def save(self) -> VaeStreamState:
        """Copy the state on which the next call to `encode` depends."""
        return VaeStreamState(self._copied(self.caches, torch.device('cpu')), self.started)

    def restore(self, state: VaeStreamState) -> None:
        """Continue from a saved state, which is not changed."""
        self.caches = self._copied(state.caches, self.vae.device)
        self.started = state.started

    def _copied(
        self, caches: list[list[Tensor | None]], device: torch.device,
    ) -> list[list[Tensor | None]]:
        return [[entry if entry is None else entry.detach().to(device, copy=True)
                 for entry in cache] for cache in caches]

    def encode(self, images: Mapping[str, Sequence[np.ndarray]]) -> Tensor:
        """
        Encode the next images, [1, C, F, h, w] float32.

        :param images: per camera RGB images, uint8 [H, W, 3], of any size: one at first, later
            four for each latent frame.
        :raises ValueError: a camera is missing, the images do not make complete latent frames,
            or one is not RGB uint8; nothing is encoded then.
        """
        counts = {name: len(images.get(name, ())) for group in self.groups
                  for name in group.cameras}
        per_frame = IMAGES_PER_FRAME if self.started else 1
        count = next(iter(counts.values()))
        if set(counts.values()) != {count} or not count or count % per_frame or (
                not self.started and count != 1):
            expected = f'a multiple of {per_frame}' if self.started else 'one'
            raise ValueError(f'images per camera: {counts}; expected {expected} of each')
        for name in counts:
            for image in images[name]:
                if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                    raise ValueError(
                        f'camera {name}: image of {image.dtype} {list(image.shape)}; expected '
                        'uint8 [height, width, 3]')
        frames = []
        for first in range(0, count, per_frame):
            latents = []
            for group, cache in zip(self.groups, self.caches):
                batch = torch.stack([
                    torch.stack([
                        _to_pixels(image, group.height, group.width, self.vae.device,
                                   self.mirror)
                        for image in images[name][first:first + per_frame]], 1)
                    for name in group.cameras])
                latents.append(self.vae.normalize(self.vae.encode(batch, cache)))
            frames.append(join_latents(self.layout, latents))
            self.started = True
        return torch.cat(frames, 2)


def _to_pixels(
    image: np.ndarray, height: int, width: int, device: torch.device, mirror: bool,
) -> Tensor:
    """Resize an RGB uint8 image to [3, height, width] in [-1, 1] (bilinear, no antialiasing)."""
    pixels = _upload(image, device).permute(2, 0, 1)[None].float()
    if mirror:
        pixels = pixels.flip(-1)
    if pixels.shape[-2:] != (height, width):
        pixels = functional.interpolate(
            pixels, size=(height, width), mode='bilinear', align_corners=False)
    return pixels[0] / 255 * 2 - 1


def _upload(image: np.ndarray, device: torch.device) -> Tensor:
    """
    Copy an image to a device as uint8, which is a third of the bytes of resized floats.

    For a GPU the copy is asynchronous, through pinned memory. PyTorch keeps that memory until the
    copy is complete and reuses it for later images.
    """
    staged = torch.empty(image.shape, dtype=torch.uint8, pin_memory=device.type == 'cuda')
    np.copyto(staged.numpy(), image)
    return staged.to(device, non_blocking=True)


def empty_vae(folder: Path) -> AutoencoderKLWan:
    """
    Return the VAE of a vae/ folder's config.json, without memory for its weights.

    :raises CheckpointError: the config is missing, or not a config of this class.
    """
    path = Path(folder) / 'config.json'
    config = read_json_object(path)
    try:
        with torch.device('meta'):
            vae = AutoencoderKLWan.from_config(config)
    except (ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise CheckpointError(f'{path} is not a config of AutoencoderKLWan: {error}') from None
    for name in ('latents_mean', 'latents_std'):
        numbers = vae.config[name]
        found = len(numbers) if isinstance(numbers, (list, tuple)) else 'no list of'
        if found != vae.config.z_dim:
            raise CheckpointError(
                f'{path}: {name} holds {found} numbers, expected z_dim ({vae.config.z_dim})')
    return vae


def load_video_vae(folder: Path, device: torch.device, dtype: torch.dtype) -> VideoVae:
    """
    Load the VAE of a checkpoint's vae/ folder; the decoder's weights are read when first needed.

    :raises CheckpointError: config or weights are missing, misshapen or unreadable.
    """
    folder = Path(folder)
    vae = empty_vae(folder)
    files = weight_files(folder)
    expected = {name: tuple(tensor.shape) for name, tensor in vae.state_dict().items()}
    compare_shapes(tensor_shapes(files), expected, {}, folder)

    def read(*parts: str) -> None:
        targets: dict[str, Tensor] = {}
        with torch.inference_mode(False):  # weights are used after inference mode ends
            for part in parts:
                module = vae.get_submodule(part).to(dtype).to_empty(device=device)
                targets.update(
                    (f'{part}.{name}', tensor) for name, tensor in module.state_dict().items())
            fill_module(vae, targets, files, device)

    read(*ENCODER)
    return VideoVae(vae, lambda: read(*DECODER))
