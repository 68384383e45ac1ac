"""The text encoder (transformers' UMT5): an instruction to the 512 embeddings that are read."""

import html
import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, UMT5EncoderModel

from lingbot_va_ros.model.checkpoint import weight_files
from lingbot_va_ros.model.errors import CheckpointError

TOKENS = 512


def clean_instruction(text: str) -> str:
    """Undo HTML escapes (twice, as the public code does) and fold white space."""
    return re.sub(r'\s+', ' ', html.unescape(html.unescape(text))).strip()


class TextEncoder:
    """UMT5 and its tokenizer, on one device."""

    def __init__(self, model: UMT5EncoderModel, tokenizer_folder: Path):
        self.model = model
        self.tokenizer_folder = tokenizer_folder
        self.tokenizer = None

    @torch.inference_mode()
    def encode(self, instruction: str) -> Tensor:
        """
        Return the embeddings of an instruction, [1, 512, text_dim]; rows after its end are zero.

        :raises CheckpointError: the tokenizer cannot be loaded.
        """
        if self.tokenizer is None:
            self.tokenizer = _load_tokenizer(self.tokenizer_folder)
        tokens = self.tokenizer(
            [clean_instruction(instruction)], padding='max_length', max_length=TOKENS,
            truncation=True, add_special_tokens=True, return_attention_mask=True,
            return_tensors='pt')
        return self.embed_tokens(tokens.input_ids, tokens.attention_mask)

    @torch.inference_mode()
    def embed_tokens(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return [B, 512, text_dim] of token ids and their mask [B, 512] int64."""
        device = next(self.model.parameters()).device
        mask = mask.to(device)
        hidden = self.model(tokens.to(device), mask).last_hidden_state
        return hidden * (mask > 0)[..., None]


def load_text_encoder(
    checkpoint: Path, device: torch.device, dtype: torch.dtype,
) -> TextEncoder:
    """
    Load text_encoder/ of a checkpoint; tokenizer/ is read at the first instruction.

    :raises CheckpointError: config or weights are missing or do not fit.
    """
    folder = Path(checkpoint) / 'text_encoder'
    weight_files(folder)
    try:
        model, info = UMT5EncoderModel.from_pretrained(
            str(folder), torch_dtype=dtype, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f'{folder} cannot be loaded: {error}') from None
    faults = [f'missing {key}' for key in info['missing_keys']]
    faults += [f'extra {key}' for key in info['unexpected_keys']]
    faults += [f'{key} has the shape {list(found)}, expected {list(expected)}'
               for key, found, expected in info['mismatched_keys']]
    if faults:
        raise CheckpointError(f'{folder}: {"; ".join(faults)}')
    return TextEncoder(model.to(device).requires_grad_(False).eval(),
                       Path(checkpoint) / 'tokenizer')


def _load_tokenizer(folder: Path):
    if not folder.is_dir():
        raise CheckpointError(f'{folder} is not a folder')
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f'{folder} cannot be loaded: {error}') from None
