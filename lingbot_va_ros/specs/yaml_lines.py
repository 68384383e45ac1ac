"""Reads YAML with the line number of every key, so that messages can name the line."""

from pathlib import Path
from typing import Any

import yaml

# Limits far above the size of any valid file. A YAML file of a few lines whose aliases refer to
# each other can expand to more values than fit into memory.
MOST_BYTES = 1_000_000
MOST_VALUES = 20_000
MOST_LEVELS = 50
# Keys and indices from the top of a document to one of its values.
KeyPath = tuple[str | int, ...]
# Where a mistake is, and the mistake in one line.
Mistake = tuple[KeyPath, str]


class LineMap:
    """
    The line of each key path of a YAML document.

    :param lines: line number, from 1, by key path.
    """

    def __init__(self, lines: dict[KeyPath, int]):
        self._lines = lines

    def line_of(self, key_path: KeyPath) -> int:
        """Return the line of a key path or, if it is absent, of its nearest parent."""
        while key_path and key_path not in self._lines:
            key_path = key_path[:-1]
        return self._lines.get(key_path, 1)


def dotted(key_path: KeyPath) -> str:
    """Return a key path as text, such as `arms[0].joints[1]: `, or ''."""
    text = ''
    for part in key_path:
        text += f'[{part}]' if isinstance(part, int) else f'.{part}'
    return f'{text.lstrip(".")}: ' if text else ''


def read_yaml(path: Path) -> tuple[Any, LineMap]:
    """
    Read a YAML file.

    :returns: the data, and the lines of its keys.
    :raises ValueError: the file is unreadable, not YAML or above the limits of size, or a key
        appears twice in one mapping; one line for each mistake.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ValueError(f'{size} bytes; expected at most {MOST_BYTES}')
        text = path.read_text()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        places = _Places()
        if root is not None:
            places.collect(root, ())
        data = yaml.safe_load(text)
    except RecursionError:
        raise ValueError(
            f'{path}: cannot be read as YAML: nested deeper than {MOST_LEVELS} levels') from None
    # Besides YAMLError, PyYAML raises ValueError for numbers and dates that do not exist.
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = ' '.join(str(error).split())
        raise ValueError(f'{path}: cannot be read as YAML: {reason}') from None
    if places.repeated:
        raise ValueError('\n'.join(
            f'{path}:{line}: {dotted(key_path)}appears twice'
            for line, key_path in places.repeated))
    return data, LineMap(places.lines)


class _Places:
    """The lines of all values of a document, and the keys that appear twice in one mapping."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.repeated: list[tuple[int, KeyPath]] = []

    def collect(self, node: yaml.Node, key_path: KeyPath) -> None:
        """
        Record the lines of a node and its descendants.

        :raises ValueError: there are too many values or levels, or a key is not a scalar.
        """
        if len(self.lines) > MOST_VALUES:
            raise ValueError(f'more than {MOST_VALUES} values, aliases followed')
        if len(key_path) > MOST_LEVELS:
            raise ValueError(f'nested deeper than {MOST_LEVELS} levels')
        self.lines.setdefault(key_path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    raise ValueError(f'line {line}: a key is a list or a mapping')
                inside = (*key_path, key.value)
                if key.value in seen:
                    self.repeated.append((line, inside))
                seen.add(key.value)
                self.lines[inside] = line
                self.collect(value, inside)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self.collect(value, (*key_path, index))
