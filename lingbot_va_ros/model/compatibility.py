"""Size checks between the parts of a checkpoint, and between a checkpoint and a policy file."""

from collections.abc import Mapping
from typing import Any

from lingbot_va_ros.model.camera_layout import latent_size, PIXELS_PER_LATENT
from lingbot_va_ros.specs.channels import CHANNELS
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME, TransformerConfig
from lingbot_va_ros.specs.policy_file import PolicyFile


def part_mismatches(
    config: TransformerConfig, vae: Mapping[str, Any], text_dim: int,
) -> list[str]:
    """
    Return a line for every size that differs between transformer, VAE and text encoder.

    :param vae: config of AutoencoderKLWan.
    :param text_dim: width of the text encoder's output.
    """
    found = []
    if vae['z_dim'] != config.latent_channels:
        found.append(
            f'the VAE makes latents of {vae["z_dim"]} channels (z_dim), the transformer takes '
            f'{config.latent_channels} (in_channels)')
    pixels = (vae['patch_size'] or 1) * 2 ** (len(vae['dim_mult']) - 1)
    if pixels != PIXELS_PER_LATENT:
        found.append(
            f'a latent of the VAE covers {pixels} x {pixels} pixels, expected '
            f'{PIXELS_PER_LATENT} x {PIXELS_PER_LATENT} (Wan2.2)')
    images = 2 ** sum(map(bool, vae['temperal_downsample']))
    if images != IMAGES_PER_FRAME:
        found.append(
            f'a latent frame of the VAE covers {images} images, expected {IMAGES_PER_FRAME}')
    if text_dim != config.text_dim:
        found.append(
            f'the text encoder makes embeddings of {text_dim} numbers (d_model), the transformer '
            f'takes {config.text_dim} (text_dim)')
    return found


def policy_mismatches(policy: PolicyFile, config: TransformerConfig) -> list[str]:
    """Return a line for every setting of a policy file that does not fit the network."""
    found = []
    if config.action_channels != CHANNELS:
        found.append(
            f'the network has {config.action_channels} action channels (action_dim); policy files '
            f'lay out {CHANNELS}')
    beyond = [channel for channel in policy.used_channels if channel >= config.action_channels]
    if beyond:
        found.append(
            f"used_channels {beyond} are beyond the network's {config.action_channels}")
    rows, columns = latent_size(
        policy.layout, len(policy.cameras), policy.height, policy.width)
    for side, latents, patch in (
            ('height', rows, config.patch[1]), ('width', columns, config.patch[2])):
        if latents % patch:
            found.append(
                f'image.{side} {getattr(policy, side)} in layout {policy.layout} makes {latents} '
                f"latents, not a multiple of the network's patch of {patch}")
    return found
