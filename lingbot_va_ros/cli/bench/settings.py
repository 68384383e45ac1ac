"""Settings of `lingbot_va bench`: network sizes, each with a policy file."""

from dataclasses import dataclass, replace

from lingbot_va_ros.model.camera_layout import latent_size
from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.checkpoint_config import TransformerConfig
from lingbot_va_ros.specs.policy_file import load_policy_file, PolicyFile, Sampling

PUBLIC = TransformerConfig(num_layers=30, heads=24, head_dim=128, ffn_dim=14336)
MID = TransformerConfig(num_layers=8, heads=6, head_dim=128, ffn_dim=3584)
TINY = TransformerConfig(  # of the untrained checkpoint
    num_layers=3, heads=4, head_dim=24, ffn_dim=256, text_dim=32, time_frequencies=64)

# Arguments of AutoencoderKLWan: the VAE of the public checkpoints, and a small one.
PUBLIC_VAE = {
    'base_dim': 160, 'decoder_base_dim': 256, 'z_dim': 48, 'dim_mult': [1, 2, 4, 4],
    'num_res_blocks': 2, 'attn_scales': [], 'temperal_downsample': [False, True, True],
    'is_residual': True, 'in_channels': 12, 'out_channels': 12, 'patch_size': 2,
    'scale_factor_temporal': 4, 'scale_factor_spatial': 16, 'latents_mean': [0.0] * 48,
    'latents_std': [1.0] * 48}
TINY_VAE = {**PUBLIC_VAE, 'base_dim': 4, 'decoder_base_dim': 4}


@dataclass(frozen=True)
class Setting:
    """
    A network with its sampling.

    :param vae: arguments of AutoencoderKLWan; None measures no image encoding.
    """

    name: str
    network: TransformerConfig
    policy: PolicyFile
    video: Sampling
    action: Sampling
    vae: dict | None

    @property
    def latent_picture(self) -> tuple:
        """Rows and columns of a latent frame, all views joined."""
        policy = self.policy
        return latent_size(policy.layout, len(policy.cameras), policy.height, policy.width)

    @property
    def video_tokens(self) -> int:
        """Video tokens of a chunk."""
        rows, columns = self.latent_picture
        patch = self.network.patch
        return self.policy.frames_per_chunk * (rows // patch[1]) * (columns // patch[2])

    @property
    def action_tokens(self) -> int:
        """Action tokens of a chunk."""
        return self.policy.frames_per_chunk * self.policy.actions_per_frame

    @property
    def window(self) -> int:
        """Tokens of a full KV cache."""
        return self.policy.memory_chunks * (self.video_tokens + self.action_tokens)

    @property
    def rows(self) -> int:
        """CFG batch of the KV cache."""
        return 2 if max(self.video.guidance, self.action.guidance) > 1 else 1


# Name: network, shipped policy file, video and action steps (None: the policy file's), VAE,
# and the line that --help shows.
_SETTINGS = {
    'mid-cpu': (MID, 'robotwin', 5, 10, None,
                "a network for CPUs (6 heads x 128, FFN 3584, 8 layers) at RoboTwin's sizes"),
    'tiny': (TINY, 'untrained', None, None, TINY_VAE, 'the untrained checkpoint of the demo'),
    'robotwin': (PUBLIC, 'robotwin', 25, 50, PUBLIC_VAE, 'public network, 25 and 50 steps'),
    'robotwin-fast': (PUBLIC, 'robotwin', 3, 10, PUBLIC_VAE, 'public network, 3 and 10 steps'),
    'franka': (PUBLIC, 'franka', 5, 10, PUBLIC_VAE, 'public network at the sizes of Franka'),
}
NAMES = tuple(_SETTINGS)
DESCRIPTIONS = {name: entry[-1] for name, entry in _SETTINGS.items()}


def load_setting(
    name: str, video_steps: int | None = None, action_steps: int | None = None,
) -> Setting:
    """
    Return a setting by its name.

    :param video_steps: denoising steps instead of the setting's own.
    :param action_steps: denoising steps instead of the setting's own.
    :raises KeyError: the name is unknown.
    """
    network, policy_name, own_video, own_action, vae, _ = _SETTINGS[name]
    policy = load_policy_file(shared_file('config', 'policies', f'{policy_name}.yaml'))
    return Setting(
        name, network, policy,
        replace(policy.video, steps=video_steps or own_video or policy.video.steps),
        replace(policy.action, steps=action_steps or own_action or policy.action.steps), vae)
