"""Prompt embeddings of instructions: cached in memory and on disk, or computed on demand."""

from collections.abc import Iterable
import gc
import hashlib
import json
import logging
import os
from pathlib import Path

from safetensors import safe_open, SafetensorError
from safetensors.torch import save
import torch
from torch import Tensor

from lingbot_va_ros.atomic_files import atomic_file
from lingbot_va_ros.model.checkpoint import read_headers, weight_files
from lingbot_va_ros.model.text_encoder import (
    check_text_encoder,
    clean_instruction,
    load_text_encoder,
    load_tokenizer,
    TextEncoder,
    TOKENS,
)
from lingbot_va_ros.specs.engine_choices import ENCODER_PLACES
from lingbot_va_ros.specs.errors import CheckpointError

SAMPLES, SAMPLE_BYTES = 256, 4096  # of each weight file, for the hash of the encoder
SPARE_BYTES = 1 << 30  # that must stay free on a device besides the encoder

_cached: dict[str, Tensor] = {}  # of this process, trimmed, on the CPU
MOST_REMEMBERED = 256
MOST_FILES = 4096  # some 200 kB each at full size


class PromptEmbeddings:
    """
    The prompt embeddings of one checkpoint; its text encoder is in memory only while needed.

    `release` loads the encoder for every instruction that is not cached, on the device if it has
    enough memory and else on the CPU, and frees it afterwards. `cpu` and `device` load it there
    for the first such instruction and keep it.

    Embeddings are cached in the process and in files, one for each instruction, encoder and dtype.
    A damaged file is reported and replaced. If the folder is not writable, there are no files.

    :param folder: of the files; None takes `cache_folder()`.
    :raises CheckpointError: text encoder or tokenizer are missing, misshapen or unreadable, by
        their headers.
    :raises ValueError: the place is unknown.
    """

    def __init__(
        self, checkpoint: Path, device: torch.device, dtype: torch.dtype,
        place: str = 'release', folder: Path | None = None,
    ):
        if place not in ENCODER_PLACES:
            raise ValueError(
                f'text_encoder is {place!r}; expected one of {", ".join(ENCODER_PLACES)}')
        self.checkpoint = Path(checkpoint)
        self.device, self.dtype, self.place = device, dtype, place
        self.folder = cache_folder() if folder is None else Path(folder)
        model = check_text_encoder(self.checkpoint)
        self.text_dim = model.config.d_model
        self._parameters = sum(weight.numel() for weight in model.parameters())
        self._tokenizer = load_tokenizer(self.checkpoint / 'tokenizer')
        self.encoder_hash = hash_encoder(self.checkpoint)
        self._encoder: TextEncoder | None = None

    def encode(self, instruction: str) -> Tensor:
        """
        Return the embeddings of an instruction, [1, 512, text_dim] on the device.

        Rows after the end of the text are zero.

        :raises CheckpointError: the text encoder is needed and no longer readable.
        """
        self.prepare([instruction])
        rows = self._known(clean_instruction(instruction))
        assert rows is not None  # prepared above
        full = torch.zeros((1, TOKENS, rows.shape[1]), dtype=self.dtype, device=self.device)
        full[0, :len(rows)] = rows.to(self.device)
        return full

    def prepare(self, instructions: Iterable[str]) -> None:
        """
        Encode the instructions that are not cached, loading the encoder once.

        :raises CheckpointError: as `encode`.
        """
        for instruction in instructions:
            text = clean_instruction(instruction)
            if self._known(text) is None:
                rows = self._compute(text)
                self._remember(text, rows)
                self._write(text, rows)
        if self.place == 'release' and self._encoder is not None:
            self._encoder = None
            gc.collect()  # modules have reference cycles
            if self.device.type == 'cuda':
                torch.cuda.empty_cache()

    def knows(self, instruction: str) -> bool:
        """Return whether an instruction's embeddings are cached."""
        return self._known(clean_instruction(instruction)) is not None

    def _known(self, text: str) -> Tensor | None:
        rows = _cached.get(self._key(text))
        if rows is None:
            rows = self._read(text)
            if rows is not None:
                self._remember(text, rows)
        return rows

    def _remember(self, text: str, rows: Tensor) -> None:
        if len(_cached) >= MOST_REMEMBERED:
            empty = self._key('')  # the negative prompt of every instruction
            _cached.pop(next(key for key in _cached if key != empty))
        _cached[self._key(text)] = rows

    def _compute(self, text: str) -> Tensor:
        if self._encoder is None:
            device = self._encoder_device()
            _log().info('loading the text encoder on %s', device)
            self._encoder = load_text_encoder(
                self.checkpoint, device, self.dtype, self._tokenizer)
        return _trimmed(self._encoder.encode(text).cpu())

    def _encoder_device(self) -> torch.device:
        if self.place == 'cpu' or self.device.type != 'cuda':
            return self.device if self.place != 'cpu' else torch.device('cpu')
        needed = self._parameters * self.dtype.itemsize + SPARE_BYTES
        if self.place == 'release' and torch.cuda.mem_get_info(self.device)[0] < needed:
            return torch.device('cpu')
        return self.device

    def _key(self, text: str) -> str:
        identity = json.dumps([self.encoder_hash, str(self.dtype), text])
        return hashlib.sha256(identity.encode()).hexdigest()

    def _description(self, text: str, rows: Tensor) -> dict[str, str]:
        return {
            'text': text, 'encoder': self.encoder_hash, 'dtype': str(self.dtype),
            'sha256': hashlib.sha256(
                rows.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()}

    def _path(self, text: str) -> Path:
        return self.folder / f'{self._key(text)}.safetensors'

    def _read(self, text: str) -> Tensor | None:
        path = self._path(text)
        try:
            with safe_open(str(path), framework='pt') as file:
                rows, description = file.get_tensor('embeddings').clone(), file.metadata()
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError) as error:
            fault = str(error)
        else:
            if rows.ndim == 2 and rows.shape[1] == self.text_dim and 0 < len(rows) <= TOKENS and (
                    rows.dtype == self.dtype and description == self._description(text, rows)):
                return rows
            fault = 'its content was changed'
        _log().warning('ignoring the damaged prompt embeddings %s: %s', path, fault)
        return None

    def _write(self, text: str, rows: Tensor) -> None:
        """Write a file atomically; other processes may write the same one."""
        data = save({'embeddings': rows}, self._description(text, rows))
        try:
            with atomic_file(self._path(text)) as unfinished:
                unfinished.write_bytes(data)
            files = sorted(self.folder.glob('*.safetensors'), key=os.path.getmtime)
            for old in files[:-MOST_FILES]:
                old.unlink(missing_ok=True)
        except OSError as error:
            _log().warning('prompt embeddings are not kept on disk: %s', error)


def cache_folder() -> Path:
    """Return the folder of prompt embeddings, under $XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get('XDG_CACHE_HOME', '')
    # A relative path has to be ignored (XDG Base Directory Specification).
    root = Path(base) if os.path.isabs(base) else Path(os.path.expanduser('~')) / '.cache'
    return root / 'lingbot_va_ros' / 'prompts'


def hash_encoder(checkpoint: Path) -> str:
    """
    Return a hash that identifies a text encoder with its tokenizer.

    Config and tokenizer are hashed completely. The weights are too large (11 GB); of each file the
    header, the size, the modification time and 256 evenly spread blocks are hashed. The blocks
    distinguish trained encoders, which differ in nearly every weight, even if an archive gave all
    files one time. The time distinguishes edits of a few weights. A copy of the folder may have
    another hash, which costs one run of the encoder.

    :raises CheckpointError: a file cannot be read.
    """
    folder, digest = Path(checkpoint) / 'text_encoder', hashlib.sha256()
    small = [folder / 'config.json', *sorted((Path(checkpoint) / 'tokenizer').iterdir())]
    try:
        for path in small:
            if path.is_file():
                digest.update(f'{path.name} {path.stat().st_size}\n'.encode())
                digest.update(path.read_bytes())
        for path in weight_files(folder):
            state = path.stat()
            headers = sorted(
                (name, header.shape, header.dtype) for name, header in read_headers(path).items())
            digest.update(f'{state.st_size} {state.st_mtime_ns} {headers}\n'.encode())
            with open(path, 'rb') as file:
                for sample in range(SAMPLES):
                    file.seek(sample * max(state.st_size - SAMPLE_BYTES, 0) // (SAMPLES - 1))
                    digest.update(file.read(SAMPLE_BYTES))
    except OSError as error:
        raise CheckpointError(f'{error.filename} cannot be read: {error.strerror}') from None
    return digest.hexdigest()


def _trimmed(rows: Tensor) -> Tensor:
    """Return embeddings [1, 512, text_dim] without the zero rows after the text, [n, text_dim]."""
    written = rows[0].ne(0).any(-1).nonzero()
    return rows[0, :int(written[-1]) + 1 if len(written) else 1].contiguous().clone()


def _log() -> logging.Logger:
    return logging.getLogger(__name__)
