"""
The public implementation of LingBot-VA, measured from a checkout of the user.

The checkout is not changed and none of its loops is rewritten: the server's own `_infer` and
`_compute_kv_cache` run with its own transformer, cache and schedulers. Its constructor is skipped,
because it reads files and requires CUDA; its attributes are set here. Progress bars, debug files
and image encoding are left out: the first two would slow it down, and the encoder is the same
library on both sides.
"""

from collections.abc import Iterator
from contextlib import contextmanager
import importlib
from pathlib import Path
import sys
import tempfile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lingbot_va_ros.cli.bench.import_stubs import import_stubs
from lingbot_va_ros.cli.bench.session import memory_contents
from lingbot_va_ros.cli.bench.settings import Setting
from lingbot_va_ros.model.camera_layout import TSHAPE
from lingbot_va_ros.model.checkpoint import destinations
from lingbot_va_ros.model.transformer import Transformer
from lingbot_va_ros.policy.inference.session import Session

PACKAGE, SERVER = 'wan_va', 'wan_va_server'
NEEDED = (f'{SERVER}.py', 'modules/model.py', 'modules/utils.py', 'utils/scheduler.py')
CONFIGURATION = 'robotwin'  # base of the server's settings
AGREEMENT = {  # tolerance of the results by dtype, in normalized units
    torch.float32: 1e-4, torch.bfloat16: 0.25, torch.float16: 0.05}


class PeerError(ValueError):
    """The checkout cannot be measured; the message is one line."""


def find_code(path: Path) -> Path:
    """
    Return the folder of the public code in a checkout.

    :param path: the checkout, or the folder `wan_va` in it.
    :raises PeerError: the code is not there; the message names the missing file.
    """
    path = path.expanduser()
    if not path.is_dir():
        raise PeerError(f'--peer {path} is not a folder; expected a checkout of lingbot-va')
    folder = path if (path / NEEDED[0]).is_file() else path / PACKAGE
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise PeerError(
            f'--peer {path} is not a checkout of lingbot-va: it has no {PACKAGE}/{missing[0]}')
    return folder.resolve()


@contextmanager
def _own_modules(folder: Path) -> Iterator[None]:
    """Make the checkout's modules (`utils`, `configs`, …) importable within the block only."""
    names = {entry.stem for entry in folder.iterdir()
             if entry.suffix == '.py' or (entry / '__init__.py').is_file()}

    def ours() -> list[str]:
        return [name for name in sys.modules if name.split('.')[0] in names]

    path, hidden = list(sys.path), {name: sys.modules.pop(name) for name in ours()}
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = path
        for name in ours():
            del sys.modules[name]
        sys.modules.update(hidden)


def load_server_module(folder: Path) -> tuple[Any, list[str]]:
    """
    Import the public server; return its modules, and the names of packages with stubs.

    :raises PeerError: the import fails.
    """
    try:
        with import_stubs() as missing, _own_modules(folder):
            module: Any = importlib.import_module(SERVER)
            model = importlib.import_module('modules.model')
    except Exception as error:  # foreign code may raise any exception
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PeerError(f'--peer {folder}: {SERVER}.py cannot be imported: {reason}') from error
    module.tqdm = lambda steps: steps
    module.save_async = lambda *_arguments: None
    return (module, model), missing


class Peer:
    """The public server with the weights, the instruction and the sizes of a session."""

    def __init__(self, modules: tuple[Any, Any], setting: Setting, network: Transformer,
                 text: Tensor):
        server_module, model_module = modules
        self._setting = setting
        self._module = server_module
        self._device, self._dtype = network.device, network.dtype
        self._content: Tensor | None = None  # replaces the output of its encoder
        self.text = text
        self._folder = tempfile.TemporaryDirectory(prefix='lingbot_va_bench_')
        server = self.server = object.__new__(server_module.VA_Server)
        server.cache_name = 'pos'
        server.job_config = self._configuration()
        server.save_root = self._folder.name
        server.dtype, server.device = self._dtype, self._device
        server.enable_offload = False
        server.scheduler, server.action_scheduler = (
            server_module.FlowMatchScheduler(shift=shift, sigma_min=0.0, extra_one_step=True)
            for shift in (setting.video.shift, setting.action.shift))
        for scheduler in (server.scheduler, server.action_scheduler):
            scheduler.set_timesteps(1000, training=True)
        server.env_type = server.job_config.env_type
        server.streaming_vae = server.streaming_vae_half = _NoVae()
        server.transformer = self._transformer(model_module, network)
        server._encode_obs = lambda _observation: self._content
        self.reset()

    def _configuration(self) -> Any:
        setting, policy = self._setting, self._setting.policy
        config = type(self._module.VA_CONFIGS[CONFIGURATION])(
            dict(self._module.VA_CONFIGS[CONFIGURATION]))
        used = list(policy.used_channels)
        channels = setting.network.action_channels
        for name, value in {
                'attn_window': 2 * policy.memory_chunks,
                'frame_chunk_size': policy.frames_per_chunk,
                'env_type': 'robotwin_tshape' if policy.layout == TSHAPE else 'none',
                'height': policy.height, 'width': policy.width,
                'obs_cam_keys': list(policy.cameras), 'patch_size': setting.network.patch,
                'action_dim': channels, 'action_per_frame': policy.actions_per_frame,
                'guidance_scale': setting.video.guidance,
                'action_guidance_scale': setting.action.guidance,
                'num_inference_steps': setting.video.steps, 'video_exec_step': -1,
                'action_num_inference_steps': setting.action.steps,
                'snr_shift': setting.video.shift, 'action_snr_shift': setting.action.shift,
                'used_action_channel_ids': used,
                'inverse_used_action_channel_ids': [
                    used.index(channel) if channel in used else len(used)
                    for channel in range(channels)],
                # Input and output are normalized actions.
                'norm_stat': {'q01': channels * [-1.0], 'q99': channels * [1.0]},
                'param_dtype': self._dtype}.items():
            config[name] = value
        return config

    def _transformer(self, module: Any, network: Transformer) -> Any:
        config = network.config
        transformer = module.WanTransformer3DModel(
            patch_size=list(config.patch), num_attention_heads=config.heads,
            attention_head_dim=config.head_dim, in_channels=config.latent_channels,
            out_channels=config.latent_channels, action_dim=config.action_channels,
            text_dim=config.text_dim, freq_dim=config.time_frequencies, ffn_dim=config.ffn_dim,
            num_layers=config.num_layers, cross_attn_norm=config.text_norm, eps=config.eps,
            attn_mode='torch')
        transformer = transformer.to(self._dtype).to(self._device).eval().requires_grad_(False)
        ours, theirs = dict(network.named_parameters()), transformer.state_dict()
        with torch.no_grad():
            for name, place in destinations(config).items():
                theirs[name].copy_(ours[place.parameter][place.rows].reshape(place.shape))
        return transformer

    def reset(self) -> None:
        """Begin an episode, with the memory empty."""
        server = self.server
        with torch.no_grad():
            server._reset(prompt=None)
        server.prompt_embeds = self.text[:1]
        server.negative_prompt_embeds = self.text[1:] if len(self.text) == 2 else None

    def fill(self, session: Session, seed: int) -> None:
        """Fill its KV cache with the content of `fill_memory`."""
        self.reset()
        server = self.server
        with torch.no_grad():
            for _tokens, layers in memory_contents(session, seed):
                for block, (key, value) in zip(server.transformer.blocks, layers):
                    block.attn1.update_cache(server.cache_name, key, value, is_pred=False)
        server.frame_st_id = session.frame

    def predict(self, noise_seed: int, first_latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return latents [1, C, F, h, w] and normalized actions [used, F, N] of the next chunk."""
        self._content = first_latent
        torch.manual_seed(noise_seed)
        actions, latents = self.server._infer({}, frame_st_id=self.server.frame_st_id)
        return latents, torch.from_numpy(actions)

    def commit(self, latents: Tensor, actions: Tensor) -> None:
        """
        Write a chunk to the KV cache.

        :param latents: [1, C, F', h, w], without the first frame of an episode, which the server
            has kept; actions [1, C, F, N, 1] normalized.
        """
        self._content = latents
        used = list(self._setting.policy.used_channels)
        self.server._compute_kv_cache(
            {'obs': [], 'state': actions[0, used, :, :, 0].float().cpu().numpy().astype(
                np.float32)})

    def forward(self, kind: str, content: Tensor, time: float) -> Tensor:
        """Run one denoising forward pass of a modality with its whole CFG batch."""
        server = self.server
        arguments = (content.clone(), None) if kind == 'video' else (None, content.clone())
        with torch.no_grad():
            inputs = server._prepare_latent_input(
                *arguments, time, time, None, None, frame_st_id=server.frame_st_id)
            inputs = inputs['latent_res_lst' if kind == 'video' else 'action_res_lst']
            return server.transformer(
                server._repeat_input_for_cfg(inputs), update_cache=0,
                cache_name=server.cache_name, action_mode=kind == 'action')

    def close(self) -> None:
        """Release the network and the temporary folder."""
        self.server.transformer = None
        self._folder.cleanup()


class _NoVae:
    """Replaces the server's VAE, which is not measured."""

    def clear_cache(self) -> None:
        """Do nothing."""


def drawn_noise(
    setting: Setting, noise_seed: int, device: torch.device, dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Return the noise of the public server after `torch.manual_seed`: video, actions."""
    policy, config = setting.policy, setting.network
    torch.manual_seed(noise_seed)
    video = torch.randn(1, config.latent_channels, policy.frames_per_chunk,
                        *setting.latent_picture, device=device, dtype=dtype)
    action = torch.randn(1, config.action_channels, policy.frames_per_chunk,
                         policy.actions_per_frame, 1, device=device, dtype=dtype)
    return video, action
