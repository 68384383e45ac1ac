"""Truncates websocket frames that are too long on arrival; the connection stays open."""


class FrameClipper:
    """
    Truncates every frame of a client's byte stream to `limit` + 1 bytes of payload.

    The library websockets closes a connection if a header announces too long a frame. This class
    drops the rest of such a frame on arrival. The truncated frame is still longer than the limit,
    so that the server detects the error, answers, and reads the next message (framing: RFC 6455,
    section 5.2).
    """

    def __init__(self, limit: int):
        self._longest = limit + 1
        self._header = bytearray()
        self._keep = 0  # remaining bytes of the current frame to pass on
        self._drop = 0  # bytes after them to drop

    @property
    def inside(self) -> bool:
        """Whether a frame is incomplete."""
        return bool(self._header or self._keep or self._drop)

    def clip(self, data: bytes) -> bytes:
        """Return the next bytes of the stream without the dropped ones."""
        if len(data) <= self._keep:
            self._keep -= len(data)
            return data
        left, at = bytearray(), 0
        while at < len(data):
            if self._keep:
                taken = min(self._keep, len(data) - at)
                left += data[at:at + taken]
                self._keep -= taken
            elif self._drop:
                taken = min(self._drop, len(data) - at)
                self._drop -= taken
            else:
                taken = 1
                self._header.append(data[at])
                if len(self._header) >= 2 and len(self._header) == self._header_length():
                    left += self._begin_frame()
            at += taken
        return bytes(left)

    def _header_length(self) -> int:
        size, mask = self._header[1] & 0x7f, self._header[1] & 0x80
        return 2 + {126: 2, 127: 8}.get(size, 0) + (4 if mask else 0)

    def _begin_frame(self) -> bytes:
        header, mask = bytes(self._header), self._header[1] & 0x80
        self._header.clear()
        length = header[1] & 0x7f
        if length >= 126:
            length = int.from_bytes(header[2:4 if length == 126 else 10], 'big')
        self._keep = min(length, self._longest)
        self._drop = length - self._keep
        if not self._drop:
            return header
        key = header[-4:] if mask else b''
        return bytes([header[0], mask | 127]) + self._keep.to_bytes(8, 'big') + key
