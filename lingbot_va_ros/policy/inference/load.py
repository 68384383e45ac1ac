"""Load a checkpoint folder as an engine, in the public layout or LeRobot's."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lingbot_va_ros.model.attention import choose_attention
from lingbot_va_ros.model.compatibility import part_mismatches, policy_mismatches
from lingbot_va_ros.model.prompt_embeddings import PromptEmbeddings
from lingbot_va_ros.model.quantization import check_kind, quantize_blocks
from lingbot_va_ros.model.video_vae import empty_vae, load_video_vae
from lingbot_va_ros.policy.inference.checkpoint_parts import find_parts
from lingbot_va_ros.policy.inference.engine import Engine, IMAGINE_STEPS
from lingbot_va_ros.specs.engine_choices import FULL
from lingbot_va_ros.specs.errors import CheckpointError
from lingbot_va_ros.specs.policy_file import PolicyFile, Sampling


@dataclass(frozen=True)
class EngineConfig:
    """
    Configuration of an engine.

    :param checkpoint: folder with the weights.
    :param policy: layout of images and actions.
    :param video: sampling settings of the video; as `action` of the actions.
    :param memory_chunks: chunks that the KV cache holds.
    :param seed: random seed of the initial noise.
    :param dtype: of the weights and of the KV cache.
    :param attention: see `choose_attention`.
    :param text_encoder: place of the text encoder after use, see `PromptEmbeddings`.
    :param instructions: encoded while loading.
    :param wan_pretrained_path: see `find_parts`, as `adapter_base`.
    :param weights: `full`: in `dtype`; or one of `quantization.KINDS`.
    :param warm_up: run every kind of forward pass while loading, so that the first is not slower.
    :param imagine_steps: denoising steps of frames that were not observed yet.
    """

    checkpoint: Path
    policy: PolicyFile
    video: Sampling
    action: Sampling
    memory_chunks: int
    seed: int
    device: torch.device
    dtype: torch.dtype
    attention: str = 'auto'
    text_encoder: str = 'release'
    instructions: tuple[str, ...] = ()
    wan_pretrained_path: str = ''
    adapter_base: str = ''
    weights: str = FULL
    warm_up: bool = True
    imagine_steps: int = IMAGINE_STEPS

    @classmethod
    def of_policy(
        cls, checkpoint: Path, policy: PolicyFile, seed: int = 0,
        device: torch.device = torch.device('cpu'), dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> 'EngineConfig':
        """
        Return a configuration with the sampling and the memory of a policy file.

        :param options: other fields; they may replace the policy file's.
        """
        config = cls(
            checkpoint, policy, policy.video, policy.action, policy.memory_chunks, seed, device,
            dtype)
        return replace(config, **options)


def load_engine(
    config: EngineConfig, progress: Callable[[str], None] = lambda line: None,
) -> Engine:
    """
    Load a checkpoint.

    All headers are checked first. The instructions are encoded before the network is loaded,
    because the text encoder is the largest part and needs the device's memory.

    :param progress: called with one line before each step.
    :raises CheckpointError: a part is missing, unreadable or misshapen.
    :raises ValueError: the device does not support `attention`, `text_encoder` or `weights`, or
        the policy file does not fit the network; the message lists all mismatches.
    """
    checkpoint, device, dtype = Path(config.checkpoint), config.device, config.dtype
    check_kind(config.weights, device, dtype)
    progress(f'checking {checkpoint}')
    parts = find_parts(checkpoint, config.wan_pretrained_path, config.adapter_base)
    network_config = parts.weights.config
    attend, reason = choose_attention(config.attention, device, dtype, network_config.head_dim)
    progress(reason)
    prompts = PromptEmbeddings(parts.frozen, device, dtype, config.text_encoder)
    mismatches = part_mismatches(
        network_config, empty_vae(parts.frozen / 'vae').config, prompts.text_dim)
    if mismatches:
        raise CheckpointError(
            f'{checkpoint} with {parts.frozen}: {"; ".join(mismatches)}'
            if parts.frozen != checkpoint else f'{checkpoint}: {"; ".join(mismatches)}')
    mismatches = policy_mismatches(config.policy, network_config)
    if mismatches:
        raise ValueError(
            f'policy {config.policy.name} does not fit {checkpoint}: {"; ".join(mismatches)}')
    unknown = [text for text in ('', *config.instructions) if not prompts.knows(text)]
    if unknown:
        progress(f'encoding {len(unknown)} instructions')
        prompts.prepare(unknown)
    progress(f'loading the transformer of {checkpoint}')
    network = parts.load_transformer(device, dtype, attend)
    if config.weights != FULL:
        sizes = quantize_blocks(network, config.weights)
        progress('weights: {}, {:.2f} GB in place of {:.2f}'.format(
            config.weights, sizes['after'] / 1e9, sizes['before'] / 1e9))
    progress('loading the video VAE')
    vae = load_video_vae(parts.frozen / 'vae', device, dtype)
    engine = Engine(
        network, vae, prompts, config.policy, config.video, config.action, config.memory_chunks,
        config.seed, config.imagine_steps)
    if config.warm_up:
        progress('warming up')
        engine.set_instruction('')
        engine.warm_up()
    return engine
