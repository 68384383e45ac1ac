"""Device memory of a checkpoint under a policy, part by part."""

from collections.abc import Mapping
from dataclasses import dataclass

from lingbot_va_ros.model.camera_layout import latent_size
from lingbot_va_ros.model.text_encoder import TOKENS
from lingbot_va_ros.policy.inference.chunk_shape import ChunkShape
from lingbot_va_ros.policy.inference.session import SPARE_CHUNKS
from lingbot_va_ros.specs.checkpoint_config import TransformerConfig
from lingbot_va_ros.specs.policy_file import PolicyFile

CARD_BYTES = 24 * 2 ** 30  # a card of nominally 24 GB
RESIDENT = ('transformer', 'kv_memory', 'text_states', 'vae_encoder')
ON_DEMAND = ('vae_decoder', 'text_encoder')


@dataclass(frozen=True)
class Budget:
    """
    Bytes by part, without activations.

    `transformer`, `kv_memory`, `text_states` and `vae_encoder` are always on the device.
    `vae_decoder` is loaded at the first decoded video, `text_encoder` only if it is kept there.
    """

    parts: Mapping[str, int]
    rows: int  # guidance halves

    @property
    def totals(self) -> dict[str, int]:
        """Bytes on the device by use."""
        acting = sum(self.parts[name] for name in RESIDENT)
        imagining = acting + self.parts['vae_decoder']
        return {
            'acting': acting, 'imagining': imagining,
            'with_text_encoder_on_device': imagining + self.parts['text_encoder']}

    @property
    def left_on_card(self) -> dict[str, int]:
        """Bytes of a 24 GB card that each total leaves free; negative if it does not fit."""
        return {name: CARD_BYTES - total for name, total in self.totals.items()}


def memory_budget(
    numbers: Mapping[str, int], config: TransformerConfig, policy: PolicyFile, item_bytes: int,
) -> Budget:
    """
    Return the budget of a checkpoint.

    :param numbers: weights by part, from the files (`Inspection.numbers`).
    :param item_bytes: of one number in the dtype that is loaded.
    """
    rows = 2 if max(policy.video.guidance, policy.action.guidance) > 1 else 1
    shape = ChunkShape(policy.frames_per_chunk, policy.actions_per_frame, *latent_size(
        policy.layout, len(policy.cameras), policy.height, policy.width))
    chunk = shape.video_tokens(config.patch) + shape.action_tokens
    tokens = (policy.memory_chunks + SPARE_CHUNKS) * chunk
    counted = {
        **numbers, 'kv_memory': _keys_and_values(config, rows, tokens),
        'text_states': _keys_and_values(config, rows, TOKENS)}
    return Budget({name: counted[name] * item_bytes for name in RESIDENT + ON_DEMAND}, rows)


def _keys_and_values(config: TransformerConfig, rows: int, tokens: int) -> int:
    return 2 * config.num_layers * rows * tokens * config.dim
