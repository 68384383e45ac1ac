"""Create a session of any size with random weights in memory, without a checkpoint."""

from collections.abc import Callable, Iterator
from pathlib import Path
import resource

import numpy as np
import torch
from torch import Tensor

from lingbot_va_ros.cli.bench.roofline import TEXT_TOKENS
from lingbot_va_ros.cli.bench.settings import Setting
from lingbot_va_ros.model.attention import choose_attention
from lingbot_va_ros.model.cuda_graphs import step_graphs
from lingbot_va_ros.model.quantization import quantize_blocks, weight_bytes
from lingbot_va_ros.model.transformer import Transformer
from lingbot_va_ros.model.video_vae import AutoencoderKLWan, ENCODER, VaeStream, VideoVae
from lingbot_va_ros.policy.inference.chunk_shape import ChunkShape
from lingbot_va_ros.policy.inference.session import Session, SPARE_CHUNKS
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME
from lingbot_va_ros.specs.engine_choices import FULL

# Memory for activations, as a factor on weights, keys and values, and memory of the libraries.
ROOM = 1.1
LIBRARIES = 2 ** 29
CAMERA = (480, 640)  # rows and columns of a camera image


class NotEnoughMemory(ValueError):
    """The device has too little memory for a setting; the message has both numbers."""


def network_numbers(setting: Setting) -> int:
    """Return the number of weights of the network."""
    with torch.device('meta'):
        return sum(weight.numel() for weight in Transformer(setting.network).parameters())


def check_memory(setting: Setting, device: torch.device, item_bytes: int, networks: int) -> None:
    """
    Check whether a setting fits, before memory is allocated.

    :param networks: 2 if a peer is measured too.
    :raises NotEnoughMemory: the setting does not fit.
    """
    config = setting.network
    slots = setting.window + SPARE_CHUNKS * (setting.video_tokens + setting.action_tokens)
    memory = 2 * config.num_layers * setting.rows * slots * config.dim
    needed = LIBRARIES + int(
        ROOM * networks * item_bytes * (network_numbers(setting) + memory))
    free = free_bytes(device)
    if needed > free:
        raise NotEnoughMemory(
            f'setting {setting.name} needs {needed / 1e9:.0f} GB on {device.type}, of which '
            f'{free / 1e9:.0f} GB are free')


def free_bytes(device: torch.device) -> int:
    """Return the free memory of the device, bytes."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    for line in Path('/proc/meminfo').read_text().splitlines():
        if line.startswith('MemAvailable:'):
            return int(line.split()[1]) * 1024
    return 2 ** 62


def make_random_network(
    setting: Setting, device: torch.device, dtype: torch.dtype, seed: int, weights: str = FULL,
) -> tuple[Transformer, str]:
    """
    Return a network with random weights, and a line about its attention kernel.

    The weights have the scale of a trained network, so that no number overflows or vanishes.
    """
    attend, reason = choose_attention('auto', device, dtype, setting.network.head_dim)
    with torch.device('meta'):
        network = Transformer(setting.network, attend)
    network = network.to(dtype).to_empty(device=device).requires_grad_(False).eval()
    generator = torch.Generator(device).manual_seed(seed)
    for name, weight in network.named_parameters():
        if name.endswith('norm') or name.endswith('norm.weight'):
            weight.normal_(1.0, 0.1, generator=generator)
        elif weight.dim() == 1:
            weight.normal_(0.0, 0.02, generator=generator)
        else:
            weight.normal_(0.0, weight.shape[-1] ** -0.5, generator=generator)
    quantize_blocks(network, weights)
    return network, reason


def make_session(
    network: Transformer, setting: Setting, seed: int, graphs: bool = True,
) -> tuple[Session, Tensor]:
    """
    Return a session with an instruction of random features, and these features.

    :param graphs: whether steps are recorded as CUDA graphs if the device supports them.
    """
    policy = setting.policy
    session = Session(
        network, ChunkShape(policy.frames_per_chunk, policy.actions_per_frame,
                            *setting.latent_picture),
        setting.video, setting.action, policy.used_channels, policy.memory_chunks,
        step_graphs(network) if graphs else None)
    generator = torch.Generator().manual_seed(seed + 1)
    text = torch.randn(
        (setting.rows, TEXT_TOKENS, setting.network.text_dim), generator=generator)
    text = text.to(network.device, network.dtype)
    with torch.inference_mode():
        session.set_text(text)
    return session, text


def memory_contents(
    session: Session, seed: int,
) -> Iterator[tuple[int, list[tuple[Tensor, Tensor]]]]:
    """
    Yield the content of a full window: tokens of each group, and keys and values per layer.

    Groups of video and actions alternate; each tensor is [rows, T, H, D].
    """
    config, memory = session.network.config, session.kv_cache
    device, dtype = session.network.device, session.network.dtype
    generator = torch.Generator(device).manual_seed(seed + 2)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    for _ in range(memory.capacity // session.chunk_tokens):
        for tokens in (session.denoiser.video_tokens, session.shape.action_tokens):
            shape = (memory.cfg_batch, tokens, config.heads, config.head_dim)
            yield tokens, [(draw(shape), draw(shape)) for _ in range(config.num_layers)]


def fill_memory(session: Session, seed: int) -> None:
    """Fill the KV cache of a session with random content."""
    session.reset()
    with torch.inference_mode():
        for tokens, layers in memory_contents(session, seed):
            place = session.kv_cache.reserve(tokens)
            for layer, (key, value) in enumerate(layers):
                place.update(layer, key, value)
            session.kv_cache.keep(place, provisional=False)
    session.frame = session.kv_cache.capacity // session.chunk_tokens * session.shape.frames


def make_stream(
    setting: Setting, device: torch.device, dtype: torch.dtype,
) -> VaeStream | None:
    """Return an encoder stream with random weights, without a decoder; None without a VAE."""
    if setting.vae is None:
        return None
    with torch.device('meta'):
        vae = AutoencoderKLWan(**setting.vae)
    for part in (vae.encoder, vae.quant_conv):
        part.to(dtype).to_empty(device=device)
        for weight in part.parameters():
            weight.requires_grad_(False)
            if weight.dim() > 1:
                weight.normal_(0.0, weight[0].numel() ** -0.5)
            else:
                weight.fill_(0.0)
    policy = setting.policy
    return VaeStream(
        VideoVae(vae.eval(), lambda: None), policy.layout, policy.cameras, policy.height,
        policy.width)


def encode_chunk(stream: VaeStream, setting: Setting) -> Callable[[], None]:
    """Return a function that encodes the images of a chunk, from cameras of 640 x 480."""
    picture = np.random.default_rng(0).integers(0, 256, (*CAMERA, 3), np.uint8)
    cameras = setting.policy.cameras

    def encode() -> None:
        with torch.inference_mode():
            for _ in range(setting.policy.frames_per_chunk):
                stream.encode({name: IMAGES_PER_FRAME * [picture] for name in cameras})

    with torch.inference_mode():
        stream.encode({name: [picture] for name in cameras})
    return encode


def part_bytes(session: Session, stream: VaeStream | None) -> dict:
    """Return the bytes of each part on the device during prediction."""
    config = session.network.config
    return {
        'weights': weight_bytes(session.network),
        'memory': _bytes(session.kv_cache.keys) + _bytes(session.kv_cache.values),
        'text': (2 * config.num_layers * session.cfg_batch * TEXT_TOKENS * config.dim
                 * session.network.dtype.itemsize),
        'codec': 0 if stream is None else sum(
            weight_bytes(getattr(stream.vae.autoencoder, part)) for part in ENCODER)}


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class PeakMemory:
    """
    Peak memory since the creation of this object.

    On CUDA the allocation of PyTorch on the device, on a CPU the growth of the process.
    """

    def __init__(self, device: torch.device):
        self._device = device
        if device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            Path('/proc/self/clear_refs').write_text('5')  # resets the peak to the resident memory
        except OSError:
            pass
        self._before = self._resident()

    def bytes(self) -> int:
        """Return the peak so far."""
        if self._device.type == 'cuda':
            return torch.cuda.max_memory_allocated(self._device)
        return self._resident() - self._before

    def _resident(self) -> int:
        for line in Path('/proc/self/status').read_text().splitlines():
            if line.startswith('VmHWM:'):
                return int(line.split()[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
