"""
Stubs of packages that the public implementation imports and that may not be installed.

flash_attn exists for CUDA only, and the code imports it even if it uses the attention of PyTorch.
An installed package always takes precedence over its stub.
"""

from collections.abc import Iterator
from contextlib import contextmanager
import importlib.util
import re
import sys
import types

from torch import Tensor

_PATTERN = re.compile(r'\([^)]*\)|\S+')


def _no_flash(*_arguments, **_keywords):
    raise RuntimeError('flash_attn is not installed; the benchmark attends by PyTorch')


class EasyDict(dict):
    """A dict whose entries are attributes too."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    __setattr__ = dict.__setitem__


def rearrange(tensor: Tensor, pattern: str, **sizes: int) -> Tensor:
    """
    Split, reorder and join axes as einops' function of this name does (no ellipsis).

    :param pattern: such as `b c (f p) -> b (f c) p`; of a group at most one size may be missing.
    """
    before, after = ([group.strip('()').split() for group in _PATTERN.findall(side)]
                     for side in pattern.split('->'))
    known = dict(sizes)
    for group, size in zip(before, tensor.shape, strict=True):
        missing = [name for name in group if name not in known and name != '1']
        product = 1
        for name in group:
            product *= known.get(name, 1)
        if missing:
            known[missing[0]] = size // product
    split = [name for group in before for name in group if name != '1']
    order = [name for group in after for name in group if name != '1']
    shape = []
    for group in after:
        product = 1
        for name in group:
            product *= known.get(name, 1)
        shape.append(product)
    return tensor.reshape([known[name] for name in split]).permute(
        [split.index(name) for name in order]).reshape(shape)


# Package: the names that the public code imports from it.
STUBS: dict[str, dict[str, object]] = {
    'flash_attn': {'flash_attn_func': _no_flash},
    'einops': {'rearrange': rearrange},
    'easydict': {'EasyDict': EasyDict},
    'ftfy': {'fix_text': lambda text: text},
}


@contextmanager
def import_stubs() -> Iterator[list[str]]:
    """Insert stubs of missing packages, yield their names, and remove them at the end."""
    missing = [name for name in STUBS if importlib.util.find_spec(name) is None]
    try:
        for name in missing:
            module = types.ModuleType(name)
            # Other packages find a package by its spec; a missing one would be an error.
            module.__spec__ = importlib.util.spec_from_loader(name, None)
            vars(module).update(STUBS[name])
            sys.modules[name] = module
        yield missing
    finally:
        for name in missing:
            sys.modules.pop(name, None)
