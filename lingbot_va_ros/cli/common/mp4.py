"""Write frames as an MP4 file, with a codec that this build of PyAV has."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# In order of preference, with options that suit the frame sizes of this package.
CODECS = {
    'libx264': {'crf': '20', 'preset': 'veryfast'},
    'mpeg4': {'b': '4000000'},
}
MOST_DENOMINATOR = 1001  # of rates such as 30000/1001; codecs limit the denominator


def find_codec() -> str:
    """
    Return the name of the video codec to write with.

    :raises RuntimeError: PyAV has no such codec.
    """
    for name in CODECS:
        try:
            av.codec.Codec(name, 'w')
            return name
        except ValueError:  # unknown to this build
            continue
    raise RuntimeError(f'PyAV has none of the video codecs {", ".join(CODECS)}')


def write_mp4(
    path: Path, pictures: Iterable[np.ndarray], rate: float, about: Mapping[str, str] = {},
) -> None:
    """
    Write a video.

    :param pictures: RGB uint8 [H, W, 3], all of the same even size.
    :param rate: frames per second.
    :param about: metadata of the file: `title`, `comment` …
    :raises RuntimeError: there is no codec.
    :raises OSError: the file cannot be written.
    """
    codec = find_codec()
    with av.open(str(path), 'w', format='mp4', options={'movflags': 'faststart'}) as container:
        container.metadata.update(about)
        stream = None
        for picture in pictures:
            if stream is None:
                stream = container.add_stream(
                    codec, rate=Fraction(rate).limit_denominator(MOST_DENOMINATOR))
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = 'yuv420p'
                stream.options = dict(CODECS[codec])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        if stream is not None:
            container.mux(stream.encode(None))
