"""
Messages of the public websocket protocol: msgpack with numpy arrays, without pickle.

An array is the map {__ndarray__: true, data, dtype, shape}, a numpy scalar {__npgeneric__: true,
data, dtype}, with byte strings as keys (robbyant/lingbot-va, msgpack_numpy.py). Messages
from the network are checked: only the dtypes in this module, as much data as the shape needs, and
a limited number of objects are accepted.
"""

from math import prod
from typing import Any

import msgpack
import numpy as np

NUMERIC = ('bool', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64',
           'float16', 'float32', 'float64')
# By the name in messages (`<f4`), so that np.dtype() never parses text of a client.
DTYPES: dict[str, np.dtype] = {
    ordered.str: ordered for dtype in map(np.dtype, NUMERIC)
    for ordered in (dtype.newbyteorder('<'), dtype.newbyteorder('>'))}
MAX_DIMENSIONS = 8
MAX_TEXT = 65536  # bytes of one string
MAX_ITEMS = 4096  # entries of one list or map
MAX_OBJECTS = 65536  # entries of all lists and maps of a message

_ARRAY, _SCALAR = b'__ndarray__', b'__npgeneric__'
_DATA, _DTYPE, _SHAPE = b'data', b'dtype', b'shape'


class WireError(ValueError):
    """A message is invalid; the text names the fault in one line."""


def pack(content: Any) -> bytes:
    """
    Return a message as bytes.

    :param content: types of msgpack, and numpy arrays and scalars of the numeric dtypes.
    :raises TypeError: the content has another type.
    """
    return msgpack.packb(content, default=_packed)


def unpack(message: bytes) -> Any:
    """
    Return the content of a message; arrays are read-only views of its bytes.

    :raises WireError: the message is not msgpack, is truncated, or holds a refused type.
    """
    seen = 0

    def count(entries: int) -> None:
        nonlocal seen
        seen += 1 + entries
        if seen > MAX_OBJECTS:
            raise WireError(f'more than {MAX_OBJECTS} list and map entries')

    def on_list(entries: list[Any]) -> list[Any]:
        count(len(entries))
        return entries

    def on_map(entries: dict[Any, Any]) -> Any:
        count(len(entries))
        return _unpacked(entries)

    try:
        return msgpack.unpackb(
            message, object_hook=on_map, list_hook=on_list, ext_hook=_refuse_extension,
            max_str_len=MAX_TEXT, max_bin_len=len(message), max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS, max_ext_len=0)
    except WireError:
        raise
    except (msgpack.UnpackException, OverflowError, RecursionError, TypeError,
            ValueError) as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise WireError(f'not a complete msgpack message: {reason}') from None


def _packed(content: Any) -> Any:
    if not isinstance(content, (np.ndarray, np.generic)):
        raise TypeError(f'{type(content).__name__} cannot be sent')
    if content.dtype.str not in DTYPES:
        raise TypeError(f'an array of dtype {content.dtype} cannot be sent')
    if isinstance(content, np.ndarray):
        return {_ARRAY: True, _DATA: content.tobytes(), _DTYPE: content.dtype.str,
                _SHAPE: content.shape}
    return {_SCALAR: True, _DATA: content.item(), _DTYPE: content.dtype.str}


def _unpacked(entries: dict[Any, Any]) -> Any:
    if _ARRAY in entries:
        return _array(entries)
    if _SCALAR in entries:
        return _scalar(entries)
    return entries


def _array(entries: dict[Any, Any]) -> np.ndarray:
    dtype, shape, data = _dtype(entries), entries.get(_SHAPE), entries.get(_DATA)
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(
            type(size) is int and size >= 0 for size in shape):
        raise WireError(
            f'array shape {_short(shape)}; expected up to {MAX_DIMENSIONS} sizes of at least 0')
    if not isinstance(data, bytes):
        raise WireError(f'array data of type {type(data).__name__}; expected bytes')
    if len(data) != prod(shape) * dtype.itemsize:
        raise WireError(
            f'array of {dtype.name} {shape} with {len(data)} bytes; expected '
            f'{prod(shape) * dtype.itemsize}')
    return np.ndarray(shape, dtype, data)


def _scalar(entries: dict[Any, Any]) -> np.generic:
    dtype, value = _dtype(entries), entries.get(_DATA)
    if type(value) not in (bool, int, float):
        raise WireError(f'scalar {_short(value)}; expected a number')
    try:
        with np.errstate(over='ignore'):  # too large for a float: infinite
            return dtype.type(value)
    except (OverflowError, ValueError):
        raise WireError(f'scalar {_short(value)} is not {dtype.name}') from None


def _dtype(entries: dict[Any, Any]) -> np.dtype:
    name = entries.get(_DTYPE)
    if not isinstance(name, str) or name not in DTYPES:
        raise WireError(f'dtype {_short(name)} is refused; expected one of {", ".join(NUMERIC)}')
    return DTYPES[name]


def _short(value: Any) -> str:
    if isinstance(value, (str, int, float, type(None))):
        text = repr(value)
        return text if len(text) <= 60 else f'{text[:57]}…'
    if isinstance(value, list) and len(value) <= 16 and all(type(size) is int for size in value):
        return str(value)
    return f'of type {type(value).__name__}'


def _refuse_extension(code: int, _data: bytes) -> None:
    raise WireError(f'msgpack extension {code} is refused')
