"""The text encoder (transformers' UMT5): an instruction as 512 embeddings."""

import html
from pathlib import Path
import re

import torch
from torch import nn, Tensor
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from lingbot_va_ros.model.checkpoint import (
    compare_shapes,
    fill_module,
    tensor_shapes,
    weight_files,
)
from lingbot_va_ros.specs.checkpoint_config import read_json_object
from lingbot_va_ros.specs.errors import CheckpointError

TOKENS = 512
TIED_EMBEDDING = 'encoder.embed_tokens.weight'


def clean_instruction(text: str) -> str:
    """Unescape HTML (twice, as in the public code) and collapse white space."""
    return re.sub(r'\s+', ' ', html.unescape(html.unescape(text))).strip()


class TextEncoder:
    """UMT5 and its tokenizer, on one device."""

    def __init__(self, model: UMT5EncoderModel, tokenizer_folder: Path, tokenizer=None):
        self.model = model
        self.tokenizer_folder = tokenizer_folder
        self.tokenizer = tokenizer

    @torch.inference_mode()
    def encode(self, instruction: str) -> Tensor:
        """
        Return the embeddings of an instruction, [1, 512, text_dim]; rows after the text are zero.

        :raises CheckpointError: the tokenizer cannot be loaded.
        """
        if self.tokenizer is None:
            self.tokenizer = load_tokenizer(self.tokenizer_folder)
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


def empty_text_encoder(folder: Path) -> UMT5EncoderModel:
    """
    Return the encoder of a text_encoder/ folder's config.json, without memory for its weights.

    :raises CheckpointError: the config is missing, or not a config of UMT5.
    """
    path = Path(folder) / 'config.json'
    config = read_json_object(path)
    try:
        with torch.device('meta'):
            return UMT5EncoderModel(UMT5Config.from_dict(config))
    except (ValueError, TypeError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        raise CheckpointError(f'{path} is not a config of UMT5EncoderModel: {error}') from None


def encoder_shapes(model: UMT5EncoderModel) -> tuple[dict[str, tuple], dict[str, tuple]]:
    """Return the shapes of the required and of the optional tensors of the files, by name."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    # One table with two names; files have the first name or both.
    optional = {TIED_EMBEDDING: shapes.pop(TIED_EMBEDDING)}
    return shapes, optional


def check_text_encoder(checkpoint: Path) -> UMT5EncoderModel:
    """
    Check text_encoder/ of a checkpoint by its headers; return it without weights.

    :raises CheckpointError: config or weights are missing, misshapen or unreadable.
    """
    folder = Path(checkpoint) / 'text_encoder'
    model = empty_text_encoder(folder)
    compare_shapes(tensor_shapes(weight_files(folder)), *encoder_shapes(model), folder)
    return model


def load_text_encoder(
    checkpoint: Path, device: torch.device, dtype: torch.dtype, tokenizer: object | None = None,
) -> TextEncoder:
    """
    Load text_encoder/ of a checkpoint.

    :param tokenizer: result of `load_tokenizer`; None reads tokenizer/ at the first
        instruction.
    :raises CheckpointError: config or weights are missing, misshapen or unreadable.
    """
    model = check_text_encoder(checkpoint)
    nn.Module.to(model, dtype)
    if dtype == torch.float16:  # transformers keeps these in float32: float16 overflows
        for name, module in model.named_modules():
            if name.rpartition('.')[2] in UMT5EncoderModel._keep_in_fp32_modules:
                module.float()
    model.to_empty(device=device)
    fill_module(
        model, model.state_dict(), weight_files(Path(checkpoint) / 'text_encoder'), device)
    return TextEncoder(model, Path(checkpoint) / 'tokenizer', tokenizer)


def load_tokenizer(folder: Path):
    """
    Return transformers' tokenizer of a checkpoint's tokenizer/ folder.

    :raises CheckpointError: the tokenizer is missing or unreadable.
    """
    if not folder.is_dir():
        raise CheckpointError(f'{folder} is not a folder')
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # parsers raise many types of exceptions on damaged files
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
        raise CheckpointError(f'{folder} does not hold a readable tokenizer: {reason}') from None
