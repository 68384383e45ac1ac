"""Frames reach websockets complete, or truncated to one byte more than the limit."""

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from lingbot_va_ros.serving.frame_clipper import FrameClipper

LIMIT = 1000


def parsed(stream):
    """Return (opcode, payload, fin) of each frame, as websockets reads them."""
    reader, frames = StreamReader(), []
    reader.feed_data(stream)
    reader.feed_eof()
    while True:
        try:
            reading = Frame.parse(reader.read_exact, mask=True)
            next(reading)
        except StopIteration as done:
            frames.append((done.value.opcode, bytes(done.value.data), done.value.fin))
        except EOFError:
            return frames


@pytest.mark.parametrize('step', [1, 3, 1000, 10 ** 9])
def test_only_what_is_too_long_is_cut(step):
    sent = [(Opcode.BINARY, bytes([length % 251]) * length, True)
            for length in (0, 5, 125, 126, 999, 1000, 1001, 1002, 70000, 3)]
    sent += [(Opcode.PING, b'?', True), (Opcode.BINARY, b'a' * 2000, False),
             (Opcode.CONT, b'b' * 1500, True), (Opcode.BINARY, b'end', True)]
    stream = b''.join(
        Frame(opcode, data, fin).serialize(mask=True) for opcode, data, fin in sent)
    clipper, left = FrameClipper(LIMIT), b''
    for at in range(0, len(stream), step):
        left += clipper.clip(stream[at:at + step])
    assert parsed(left) == [(opcode, data[:LIMIT + 1], fin) for opcode, data, fin in sent]
    assert not clipper.inside


def test_a_frame_that_has_not_ended_shows():
    clipper = FrameClipper(LIMIT)
    stream = Frame(Opcode.BINARY, b'a' * 5000).serialize(mask=True)
    for at in range(len(stream)):
        assert clipper.inside == (at > 0)
        clipper.clip(stream[at:at + 1])
    assert not clipper.inside


def test_what_a_header_promises_costs_no_memory():
    clipper = FrameClipper(LIMIT)
    clipper.clip(b'\x82\xff' + (2 ** 63 - 1).to_bytes(8, 'big') + b'mask')
    assert sum(len(clipper.clip(bytes(100))) for _ in range(100)) == LIMIT + 1
    assert clipper.inside
