"""Whether a policy file and the network of a checkpoint go together."""

from typing import List

from lingbot_va_ros.model.config import TransformerConfig
from lingbot_va_ros.model.views import latent_size
from lingbot_va_ros.policy.policy_file import CHANNELS, PolicyFile


def policy_mismatches(policy: PolicyFile, config: TransformerConfig) -> List[str]:
    """Return a line for everything in a policy file that the network cannot do."""
    found = []
    if config.action_channels != CHANNELS:
        found.append(
            f'the network has {config.action_channels} action channels (action_dim); policy files '
            f'lay out {CHANNELS}')
    beyond = [channel for channel in policy.used_channels if channel >= config.action_channels]
    if beyond:
        found.append(
            f'used_channels {beyond} are beyond the network\'s {config.action_channels}')
    rows, columns = latent_size(
        policy.layout, len(policy.cameras), policy.height, policy.width)
    for side, latents, patch in (
            ('height', rows, config.patch[1]), ('width', columns, config.patch[2])):
        if latents % patch:
            found.append(
                f'image.{side} {getattr(policy, side)} in layout {policy.layout} makes {latents} '
                f'latents, no multiple of the network\'s patch of {patch}')
    return found
