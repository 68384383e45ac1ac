"""Whether the parts of a checkpoint folder were made for each other."""

from typing import Any, List, Mapping

from lingbot_va_ros.model.config import IMAGES_PER_FRAME, TransformerConfig
from lingbot_va_ros.model.views import PIXELS_PER_LATENT


def part_mismatches(
    config: TransformerConfig, vae: Mapping[str, Any], text_dim: int,
) -> List[str]:
    """
    Return a line for every size in which transformer, VAE and text encoder differ.

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
