"""Reads and checks the files that list the topics of a simulator's bridge."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
import re
from typing import Any

import yaml

_TOPIC = re.compile(r'/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*', re.ASCII)
_GAZEBO_KEYS = {'ros_topic_name', 'gz_topic_name', 'ros_type_name', 'gz_type_name', 'direction'}
_GAZEBO_MORE_KEYS = {'publisher_queue', 'subscriber_queue', 'lazy'}
_DIRECTIONS = ('GZ_TO_ROS', 'ROS_TO_GZ', 'BIDIRECTIONAL')


@dataclass(frozen=True)
class IsaacTopics:
    """Isaac Sim's topics; `cameras` maps the policy's camera names to image topics."""

    joint_states: str
    joint_commands: str
    cameras: Mapping[str, str]


def read_isaac_topics(path: str) -> IsaacTopics:
    """
    Read a file in the format of config/bridges/isaac.yaml.

    :raises ValueError: names the file and every wrong entry.
    """
    data = _load(path)
    keys = ('joint_states', 'joint_commands', 'cameras')
    faults = []
    if not isinstance(data, dict) or set(data) != set(keys):
        raise ValueError(f'{path}: expected the keys {", ".join(keys)}, and no others')
    for key in keys[:2]:
        faults += _topic_faults(key, data[key])
    if not isinstance(data['cameras'], dict) or not data['cameras']:
        faults.append(f'cameras is {data["cameras"]!r}; expected camera names with their topics')
    else:
        for camera, topic in data['cameras'].items():
            faults += _topic_faults(f'cameras.{camera}', topic)
    if faults:
        raise ValueError(f'{path}: {"; ".join(faults)}')
    return IsaacTopics(**data)


def check_gazebo_bridge(path: str) -> None:
    """
    Check a file in the format of config/bridges/gazebo.yaml; ros_gz_bridge skips wrong entries.

    :raises ValueError: names the file and every wrong entry.
    """
    data = _load(path)
    if not isinstance(data, list) or not data:
        raise ValueError(f'{path}: expected a list of bridged topics')
    faults = []
    for number, entry in enumerate(data, 1):
        if not isinstance(entry, dict):
            faults.append(f'entry {number} is {entry!r}; expected keys and values')
            continue
        faults += [f'entry {number} has no {key}' for key in sorted(_GAZEBO_KEYS - set(entry))]
        faults += [f'entry {number} has the unknown key {key}'
                   for key in sorted(map(str, set(entry) - _GAZEBO_KEYS - _GAZEBO_MORE_KEYS))]
        if entry.get('direction', _DIRECTIONS[0]) not in _DIRECTIONS:
            faults.append(f'entry {number}: direction is {entry["direction"]!r}; expected one of '
                          f'{", ".join(_DIRECTIONS)}')
    if not any(isinstance(entry, dict) and entry.get('ros_topic_name') == '/clock'
               for entry in data):
        faults.append('no entry has the ros_topic_name /clock; without it simulated time does not '
                      'advance')
    if faults:
        raise ValueError(f'{path}: {"; ".join(faults)}')


def _load(path: str) -> Any:
    try:
        return yaml.safe_load(Path(path).expanduser().read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f'{path}: {" ".join(str(error).split())}') from None


def _topic_faults(key: str, topic: Any) -> list:
    if isinstance(topic, str) and _TOPIC.fullmatch(topic):
        return []
    return [f'{key} is {topic!r}; expected a topic name']
