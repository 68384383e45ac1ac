"""JPEGs that have lost their middle are found, and whole ones of all kinds are not refused."""

import io
import sys

import cv2
import numpy as np
from PIL import Image
import pytest

from lingbot_va_ros.nodes.images.jpeg_scan import is_interrupted, load_decoder

NOISE = np.random.default_rng(0)
PICTURE = cv2.GaussianBlur(NOISE.integers(0, 256, (240, 320, 3), np.uint8), (0, 0), 3)


def jpeg(image=PICTURE, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'JPEG', **options)
    return file.getvalue()


@pytest.mark.parametrize('image', [
    PICTURE, PICTURE[..., 0], PICTURE[:1, :1], PICTURE[:37, :51], np.zeros((48, 64, 3), np.uint8),
    NOISE.integers(0, 256, (48, 64, 3), np.uint8)])
@pytest.mark.parametrize('options', [
    {}, {'progressive': True}, {'optimize': True, 'quality': 5}, {'subsampling': 0},
    {'subsampling': 1, 'restart_marker_blocks': 3}])
def test_whole_ones_are_whole(image, options):
    data = jpeg(image, **options)
    assert not is_interrupted(data)
    assert not is_interrupted(data + bytes(50))
    assert not is_interrupted(data[:-2] + b'\x12\x34' + data[-2:])  # as cheap cameras send


def test_ones_without_their_middle_are_not():
    data, gap = jpeg(quality=95), 1000
    for place in range(len(data) // 3, len(data) - gap - 2, 2000):
        assert is_interrupted(data[:place] + data[place + gap:])
        assert is_interrupted(data[:place] + b'\xff\xd9')


def test_without_a_decoder_nothing_is_found(monkeypatch):
    load_decoder.cache_clear()
    monkeypatch.setitem(sys.modules, 'av', None)
    assert not is_interrupted(jpeg()[:2000] + b'\xff\xd9')
    load_decoder.cache_clear()
