"""
Requests of the public websocket protocol as a dataclass.

The public server (robbyant/lingbot-va, wan_va_server.py) distinguishes three requests by the keys
of a map: `reset` true, `compute_kv_cache` true, else a prediction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

RESET, INFER, COMMIT = 'reset', 'infer', 'compute_kv_cache'
# The public clients send the last four, which are ignored, as in the public server.
KEYS = ('reset', 'compute_kv_cache', 'prompt', 'obs', 'state', 'imagine', 'save_visualization',
        'video_guidance_scale', 'action_guidance_scale')


class RequestError(ValueError):
    """A request is rejected without a change of state; the text is the reason in one line."""


@dataclass(frozen=True)
class Request:
    """
    One request.

    :param kind: RESET, INFER or COMMIT.
    :param prompt: the instruction, if the request has one.
    :param observations: unchecked values by the client's keys.
    :param state: executed actions [used, F, N] in robot units, unchecked; COMMIT only.
    """

    kind: str
    prompt: str | None = None
    observations: tuple[Mapping[str, Any], ...] = ()
    state: np.ndarray | None = None


def read_request(content: Any) -> Request:
    """
    Parse a request.

    :param content: the unpacked message.
    :raises RequestError: not a map, unknown or missing keys, or values of a wrong type.
    """
    if not isinstance(content, dict):
        raise RequestError(f'a request is a map, got {_kind_of(content)}')
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise RequestError(
            f'unknown key {listed(unknown)}; expected some of {", ".join(KEYS)}')
    prompt = content.get('prompt')
    if prompt is not None and not isinstance(prompt, str):
        raise RequestError(f'prompt is {_kind_of(prompt)}; expected a string')
    reset, commit = _flag(content, 'reset'), _flag(content, 'compute_kv_cache')
    if reset and commit:
        raise RequestError('reset and compute_kv_cache in one request; expected one of them')
    if reset:
        return Request(RESET, prompt)
    observations = _observations(content.get('obs'))
    if not commit:
        return Request(INFER, prompt, observations)
    missing = [key for key in ('obs', 'state') if content.get(key) is None]
    if missing:
        raise RequestError(f'compute_kv_cache without {" and ".join(missing)}')
    state = content['state']
    if not isinstance(state, np.ndarray):
        raise RequestError(f'state is {_kind_of(state)}; expected an array')
    return Request(COMMIT, prompt, observations, state)


def listed(names: Any) -> str:
    """Return names from a client for a message of one line: at most ten, shortened."""
    shown = [repr(name) if len(repr(name)) <= 60 else f'{repr(name)[:57]}…'
             for name in list(names)[:10]]
    return ', '.join(shown) + (', …' if len(names) > 10 else '')


def _flag(content: dict[str, Any], key: str) -> bool:
    value = content.get(key, False)
    if not isinstance(value, (bool, np.bool_)) and not (
            isinstance(value, int) and value in (0, 1)):
        raise RequestError(f'{key} is {_kind_of(value)}; expected true or false')
    return bool(value)


def _observations(obs: Any) -> tuple[Mapping[str, Any], ...]:
    if obs is None:
        return ()
    several = obs if isinstance(obs, list) else [obs]
    for place, observation in enumerate(several):
        if not isinstance(observation, dict):
            raise RequestError(
                f'obs {place} is {_kind_of(observation)}; expected a map of images')
    return tuple(several)


def _kind_of(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f'an array of {value.dtype.name} {list(value.shape)}'
    return {dict: 'a map', list: 'a list', str: 'a string', bytes: 'bytes', bool: 'a boolean',
            int: 'an integer', float: 'a number', type(None): 'nothing'}.get(
                type(value), type(value).__name__)
