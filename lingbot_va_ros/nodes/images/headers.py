"""
What a JPEG or PNG claims to be, read from its bytes before anything is decoded.

Sources: ITU-T T.81 (JPEG), annex B; the PNG specification, chapters 5 and 11.
"""

from collections.abc import Iterator
from dataclasses import dataclass
import struct

from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault

JPEG, PNG = 'JPEG', 'PNG'
MOST_PIXELS = 2 ** 25  # 8K has 33.2 million
_PNG_BEGIN, _PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by color type; 3 has a palette
_DEFLATE_RATIO = 1032  # the most that zlib's format can compress
_START_OF_IMAGE, _END_OF_IMAGE = b'\xff\xd8', b'\xff\xd9'
_SCAN = 0xda
_FRAMES = frozenset(range(0xc0, 0xd0)) - {0xc4, 0xc8, 0xcc}
_SEQUENTIAL = (0xc0, 0xc1)
_WITHOUT_LENGTH = frozenset((0x01, *range(0xd0, 0xd8)))
# The codes of a block's first coefficient and of its end have a bit each, at least.
_LEAST_BLOCK_BITS = 2


@dataclass(frozen=True)
class ImageHeader:
    """
    The claims of a compressed image.

    :param codec: `JPEG` or `PNG`.
    :param channels: samples of a pixel, with alpha.
    :param bits: of a sample.
    """

    codec: str
    width: int
    height: int
    channels: int
    bits: int


def read_header(data: bytes) -> ImageHeader:
    """
    Return the claims of a JPEG or PNG that is complete.

    :raises CameraFault: it is neither, it is cut off, or its size is not plausible.
    """
    if data.startswith(_START_OF_IMAGE):
        header = _read_jpeg(data)
    elif data.startswith(_PNG_BEGIN):
        header = _read_png(data)
    elif not data:
        raise CameraFault('no data')
    else:
        raise CameraFault('the data is neither JPEG nor PNG')
    return header


def _check_size(codec: str, width: int, height: int) -> None:
    if not width or not height or width * height > MOST_PIXELS:
        raise CameraFault(
            f'{codec} claims {width}x{height} pixels; expected 1 to {MOST_PIXELS} of them')


def _read_png(data: bytes) -> ImageHeader:
    if len(data) < 33 or data[12:16] != b'IHDR':
        raise CameraFault('PNG is cut off, or does not begin with IHDR')
    width, height, bits, color_type = struct.unpack('>IIBB', data[16:26])
    _check_size(PNG, width, height)
    channels = _PNG_CHANNELS.get(color_type)
    if channels is None or bits not in (1, 2, 4, 8, 16):
        raise CameraFault(f'PNG claims color type {color_type} with {bits} bits')
    if data.rfind(_PNG_END) < 0:
        raise CameraFault(f'PNG is cut off: no IEND in {len(data)} bytes')
    samples = 1 if color_type == 3 else channels
    if height * (1 + width * samples * bits // 8) > len(data) * _DEFLATE_RATIO:
        raise CameraFault(
            f'PNG claims {width}x{height} pixels; {len(data)} bytes cannot hold them')
    return ImageHeader(PNG, width, height, channels, bits)


def _read_jpeg(data: bytes) -> ImageHeader:
    header, least_bits = None, 0
    for marker, begin, end in _jpeg_segments(data):
        if marker == _SCAN:
            break
        if marker in _FRAMES:
            header, blocks = _read_frame(data[begin:end])
            least_bits = blocks * _LEAST_BLOCK_BITS if marker in _SEQUENTIAL else 0
    else:
        raise CameraFault('JPEG is cut off before its picture')
    if header is None:
        raise CameraFault('JPEG without a frame header')
    # Not in the header, where a thumbnail may have an end of its own.
    if data.rfind(_END_OF_IMAGE, end) < 0:
        raise CameraFault(f'JPEG is cut off: no end-of-image marker in {len(data)} bytes')
    if 8 * (len(data) - end) < least_bits:
        raise CameraFault(
            f'JPEG claims {header.width}x{header.height} pixels; {len(data)} bytes cannot hold '
            'them')
    return header


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, begin, end) of the segments up to the first scan's header, in bytes."""
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xff:
            raise CameraFault(f'JPEG has no marker at byte {place}')
        marker = data[place + 1]
        if marker == 0xff:  # a fill byte
            place += 1
        elif marker in _WITHOUT_LENGTH:
            place += 2
        else:
            end = place + 2 + int.from_bytes(data[place + 2:place + 4], 'big')
            if end < place + 4 or end > len(data):
                return
            yield marker, place + 4, end
            if marker == _SCAN:
                return
            place = end


def _read_frame(segment: bytes) -> tuple[ImageHeader, int]:
    """Return the claims of a frame header, and the blocks of 8x8 samples that it announces."""
    if len(segment) < 6 or len(segment) < 6 + 3 * segment[5]:
        raise CameraFault('JPEG has a frame header that is too short')
    bits, height, width, channels = struct.unpack('>BHHB', segment[:6])
    _check_size(JPEG, width, height)
    factors = [(segment[7 + 3 * i] >> 4, segment[7 + 3 * i] & 15) for i in range(channels)]
    if channels not in (1, 3, 4) or bits != 8 or not all(
            1 <= across <= 4 and 1 <= down <= 4 for across, down in factors):
        raise CameraFault(f'JPEG claims {channels} channels of {bits} bits, sampled {factors}')
    most_across, most_down = (max(column) for column in zip(*factors))
    blocks = sum(
        -(-width * across // (8 * most_across)) * -(-height * down // (8 * most_down))
        for across, down in factors)
    return ImageHeader(JPEG, width, height, channels, bits), blocks
