"""The claims of JPEGs and PNGs: sizes, completeness, and claims that cannot be true."""

import struct
import zlib

import cv2
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from lingbot_va_ros.nodes.images.headers import ImageHeader, JPEG, PNG, read_header
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault

PICTURE = cv2.GaussianBlur(
    np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8), (0, 0), 2)


def encoded(extension, image=PICTURE, *parameters):
    ok, data = cv2.imencode(extension, image, list(parameters))
    assert ok
    return data.tobytes()


def png(width, height, bits=8, color_type=2, data=b'\0' * 100):
    def chunk(name, content):
        return (struct.pack('>I', len(content)) + name + content
                + struct.pack('>I', zlib.crc32(name + content)))
    return (b'\x89PNG\r\n\x1a\n'
            + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, bits, color_type, 0, 0, 0))
            + chunk(b'IDAT', zlib.compress(data)) + chunk(b'IEND', b''))


def with_size(jpeg, width, height):
    """Return a JPEG that claims another size."""
    place = jpeg.index(b'\xff\xc0') + 5
    return jpeg[:place] + struct.pack('>HH', height, width) + jpeg[place + 4:]


WHOLE = encoded('.jpg')


@pytest.mark.parametrize('data, header', [
    (WHOLE, ImageHeader(JPEG, 64, 48, 3, 8)),
    (encoded('.jpg', PICTURE[..., 0]), ImageHeader(JPEG, 64, 48, 1, 8)),
    (encoded('.jpg', PICTURE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), ImageHeader(JPEG, 64, 48, 3, 8)),
    (encoded('.jpg', PICTURE, cv2.IMWRITE_JPEG_RST_INTERVAL, 2), ImageHeader(JPEG, 64, 48, 3, 8)),
    (encoded('.png'), ImageHeader(PNG, 64, 48, 3, 8)),
    (encoded('.png', PICTURE[..., 0].astype(np.uint16)), ImageHeader(PNG, 64, 48, 1, 16)),
    (WHOLE + bytes(100), ImageHeader(JPEG, 64, 48, 3, 8)),
    (encoded('.jpg', np.zeros((480, 640, 3), np.uint8), cv2.IMWRITE_JPEG_OPTIMIZE, 1),
     ImageHeader(JPEG, 640, 480, 3, 8)),
    (encoded('.png', np.zeros((2000, 3000, 3), np.uint8), cv2.IMWRITE_PNG_COMPRESSION, 9),
     ImageHeader(PNG, 3000, 2000, 3, 8))], ids=lambda value: 'data' * isinstance(value, bytes))
def test_what_a_whole_image_claims(data, header):
    assert read_header(data) == header


@pytest.mark.parametrize('data, words', [
    (b'', 'no data'), (b'\0\0\0\1\x67', 'neither JPEG nor PNG'), (b'\xff\xd8', 'cut off'),
    (WHOLE[:-2], 'JPEG is cut off: no end-of-image marker'),
    (WHOLE[:len(WHOLE) // 2], 'JPEG is cut off: no end-of-image marker'),
    (WHOLE[:300], 'JPEG is cut off'), (WHOLE[:2] + WHOLE[3:], 'no marker at byte 2'),
    (b'\xff\xd8\xff\xda\0\2\xff\xd9', 'without a frame header'),
    (encoded('.png')[:-12], 'PNG is cut off: no IEND'), (b'\x89PNG\r\n\x1a\n', 'PNG is cut off'),
    (png(100000, 100000), 'PNG claims 100000x100000 pixels; expected 1 to'),
    (png(2 ** 31 - 1, 1), 'PNG claims 2147483647x1 pixels; expected 1 to'),
    (png(0, 5), 'PNG claims 0x5'), (png(5, 5, color_type=1), 'color type 1'),
    (png(5, 5, bits=7), '7 bits'), (png(5000, 5000), r'\d\d bytes cannot hold them'),
    (with_size(WHOLE, 65535, 65535), 'JPEG claims 65535x65535 pixels; expected 1 to'),
    (with_size(WHOLE, 64, 0), 'JPEG claims 64x0'),
    (with_size(WHOLE, 480, 33408), 'JPEG claims 480x33408 pixels; .* bytes cannot hold them')],
    ids=lambda value: value if isinstance(value, str) else 'data')
def test_what_cannot_be_true_is_named(data, words):
    with pytest.raises(CameraFault, match=words):
        read_header(data)


def test_the_end_of_a_thumbnail_is_not_that_of_the_image():
    thumbnail = b'\xff\xe1' + struct.pack('>H', 2 + 20) + b'Exif\0\0' + WHOLE[-14:]
    assert read_header(WHOLE[:2] + thumbnail + WHOLE[2:]).width == 64
    with pytest.raises(CameraFault, match='cut off'):
        read_header(WHOLE[:2] + thumbnail + WHOLE[2:-2])


@given(st.binary(max_size=400), st.integers(0, len(WHOLE)), st.sampled_from((WHOLE, png(9, 9))))
def test_no_bytes_do_more_than_raise_a_camera_fault(noise, place, whole):
    for data in (noise, b'\xff\xd8\xff' + noise, whole[:place] + noise + whole[place:],
                 whole[:place] + noise):
        try:
            header = read_header(data)
        except CameraFault:
            continue
        assert header.width * header.height > 0
