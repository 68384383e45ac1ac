"""Finds and reads meta/info.json of the data that a LeRobot policy was trained with."""

import json
import os
from pathlib import Path
from typing import Any

from lingbot_va_ros.specs.lerobot_folder import INSIDE, TRAIN_CONFIG

INFO = Path('meta', 'info.json')
# The file of a data set with every feature named has some kB.
MOST_BYTES = 16_000_000


def data_infos(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """
    Return path and content of each meta/info.json that is on this machine.

    In their order: beside the policy, under the training data's `root`, in LeRobot's cache.

    :param folder: of the policy, with train_config.json.
    """
    data = table(json_or_nothing(folder / TRAIN_CONFIG).get('dataset'))
    home = os.environ.get('HF_LEROBOT_HOME') or Path(
        os.environ.get('HF_HOME') or '~/.cache/huggingface', 'lerobot')
    places = [folder]
    if folder.name == INSIDE:
        places.append(folder.parent)
    if isinstance(data.get('root'), str):
        places.append(Path(data['root']))
    if isinstance(data.get('repo_id'), str):
        places.append(Path(home, data['repo_id']))
    paths = [place.expanduser() / INFO for place in places]
    return [(path, info) for path in paths if (info := json_or_nothing(path))]


def table(value: Any) -> dict[str, Any]:
    """Return a JSON object, or an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def json_or_nothing(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or an empty one where there is none."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return {}
        raw = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError):
        return {}
    return table(raw)
