"""The transports of images: what an embodiment file may name, and what the node can take."""

import json

import pytest
from sensor_msgs.msg import CompressedImage, Image

from lingbot_va_ros.nodes.images.transports import TRANSPORTS
from lingbot_va_ros.resources import shared_file


def test_what_an_embodiment_may_name_is_what_there_is():
    schema = json.loads(shared_file('config', 'schemas', 'embodiment.json').read_text())

    def enums(node):
        if isinstance(node, dict):
            if 'transport' in node:
                yield node['transport']['enum']
            for value in node.values():
                yield from enums(value)
    assert list(enums(schema)) == [list(TRANSPORTS)]


@pytest.mark.parametrize('name, kind, suffix, type_name', [
    ('raw', Image, '', 'sensor_msgs/msg/Image'),
    ('compressed', CompressedImage, '/compressed', 'sensor_msgs/msg/CompressedImage')])
def test_messages_and_topics(name, kind, suffix, type_name):
    transport = TRANSPORTS[name]
    assert (transport.kind, transport.suffix, transport.type_name) == (kind, suffix, type_name)
