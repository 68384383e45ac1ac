"""The text encoder (transformers' UMT5): an instruction to the 512 embeddings that are read."""

import html
import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from lingbot_va_ros.model.checkpoint import compare_shapes, tensor_shapes, weight_files
from lingbot_va_ros.model.config import read_json_object
from lingbot_va_ros.model.errors import CheckpointError

TOKENS = 512
TIED_EMBEDDING = 'encoder.embed_tokens.weight'


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
        return hidden.masked_fill((mask == 0)[..., None], 0)


def load_text_encoder(
    checkpoint: Path, device: torch.device, dtype: torch.dtype,
) -> TextEncoder:
    """
    Load text_encoder/ of a checkpoint; tokenizer/ is read at the first instruction.

    :raises CheckpointError: config or weights are missing, misshapen or unreadable.
    """
    folder = Path(checkpoint) / 'text_encoder'
    path = folder / 'config.json'
    config = read_json_object(path)
    try:
        with torch.device('meta'):
            sizes = UMT5EncoderModel(UMT5Config.from_dict(config)).state_dict()
    except (ValueError, TypeError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        raise CheckpointError(f'{path} is no config of UMT5EncoderModel: {error}') from None
    shapes = {name: tuple(tensor.shape) for name, tensor in sizes.items()}
    # One table under two names, of which files hold the first or both.
    optional = {TIED_EMBEDDING: shapes.pop(TIED_EMBEDDING)}
    compare_shapes(tensor_shapes(weight_files(folder)), shapes, optional, folder)
    model = UMT5EncoderModel.from_pretrained(
        str(folder), torch_dtype=dtype, local_files_only=True)
    return TextEncoder(model.to(device).requires_grad_(False).eval(),
                       Path(checkpoint) / 'tokenizer')


def _load_tokenizer(folder: Path):
    if not folder.is_dir():
        raise CheckpointError(f'{folder} is not a folder')
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # whatever a foreign parser makes of a broken file
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
        raise CheckpointError(f'{folder} holds no tokenizer that can be read: {reason}') from None
