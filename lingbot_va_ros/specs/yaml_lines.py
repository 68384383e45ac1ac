"""Reads YAML and remembers the line of every key, so that a mistake can be shown in its place."""

from pathlib import Path
from typing import Any

import yaml

# Keys and indices from the top of a document to one of its values.
KeyPath = tuple[str | int, ...]


class LineMap:
    """
    The line of each key path of a YAML document.

    :param lines: line number, from 1, by key path.
    """

    def __init__(self, lines: dict[KeyPath, int]):
        self._lines = lines

    def line_of(self, key_path: KeyPath) -> int:
        """Return the line of a key path or, where it is absent, of the nearest one around it."""
        while key_path and key_path not in self._lines:
            key_path = key_path[:-1]
        return self._lines.get(key_path, 1)


def dotted(key_path: KeyPath) -> str:
    """Return a key path as people write it, such as `arms[0].joints[1]: `, or ''."""
    text = ''
    for part in key_path:
        text += f'[{part}]' if isinstance(part, int) else f'.{part}'
    return f'{text.lstrip(".")}: ' if text else ''


def read_yaml(path: Path) -> tuple[Any, LineMap]:
    """
    Read a YAML file.

    :returns: the data, and the lines of its keys.
    :raises ValueError: the file is unreadable or no YAML, or a key appears twice in one mapping;
        one line for each mistake.
    """
    try:
        text = path.read_text()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = ' '.join(str(error).split())
        raise ValueError(f'{path}: cannot be read as YAML: {reason}') from None
    lines: dict[KeyPath, int] = {}
    repeated: list[tuple[int, KeyPath]] = []
    if root is not None:
        _collect_lines(root, (), lines, repeated)
    if repeated:
        raise ValueError('\n'.join(
            f'{path}:{line}: {dotted(key_path)}appears twice' for line, key_path in repeated))
    return data, LineMap(lines)


def _collect_lines(
    node: yaml.Node, key_path: KeyPath, lines: dict[KeyPath, int],
    repeated: list[tuple[int, KeyPath]],
) -> None:
    """Enter the lines of a node and of all below it; list the keys that appear twice."""
    lines.setdefault(key_path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            inside = (*key_path, key.value)
            line = key.start_mark.line + 1
            if key.value in seen:
                repeated.append((line, inside))
            seen.add(key.value)
            lines[inside] = line
            _collect_lines(value, inside, lines, repeated)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect_lines(value, (*key_path, index), lines, repeated)
