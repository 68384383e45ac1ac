"""
Make the pictures of the README from a finished demo.

    python tools/readme_pictures.py demo_output docs/images

Reads episode.mp4 and summary.json, and writes demo.png (one frame) and demo.webp (an animation of
a few seconds). Both together are smaller than 3 MB. The frames show the overview camera, the
robot's cameras, and below them the video that the network has predicted. Needs PyAV and Pillow.
"""

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import sys

import av
from PIL import Image

LIMIT_BYTES = 3_000_000  # of both files together
STILL_AT = 0.45  # share of the first episode that lies before the still
SECONDS, FRAMES_PER_SECOND = 8.0, 5.0  # of the animation
WIDTH = 900  # pixels of the animation
QUALITIES = (80, 65, 50, 35)  # of WebP; the first that is small enough is taken


def read_frames(path: Path, begin: float, end: float, rate: float) -> list[Image.Image]:
    """
    Return the frames of a video between two times, at about `rate` frames per second.

    :param begin: s; `end` in s.
    :raises ValueError: the video has no frame there.
    """
    frames: list[Image.Image] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            time = frame.time or 0.0
            if time > end:
                break
            if time >= begin + len(frames) / rate - 1e-6:
                frames.append(frame.to_image())
    if not frames:
        raise ValueError(f'{path} has no frame between {begin:g} and {end:g} s')
    return frames


def make_pictures(demo: Path, output: Path, begin: float | None = None) -> list[Path]:
    """
    Write both pictures and return their paths.

    :param demo: the output folder of `lingbot_va demo`.
    :param begin: s of the video at which the still and the animation begin; None chooses a time
        within the first episode.
    :raises ValueError: the demo is not complete, or the pictures are too large.
    """
    video, summary = demo / 'episode.mp4', demo / 'summary.json'
    for path in (video, summary):
        if not path.is_file():
            raise ValueError(f'{path} is missing: run `lingbot_va demo` first')
    if begin is None:
        begin = STILL_AT * json.loads(summary.read_text())['episodes'][0]['seconds']
    frames = read_frames(video, begin, begin + SECONDS, FRAMES_PER_SECOND)
    output.mkdir(parents=True, exist_ok=True)
    still, animation = output / 'demo.png', output / 'demo.webp'
    frames[0].save(still, optimize=True)
    height = round(WIDTH * frames[0].height / frames[0].width)
    small = [frame.resize((WIDTH, height), Image.Resampling.LANCZOS) for frame in frames]
    for quality in QUALITIES:
        small[0].save(
            animation, save_all=True, append_images=small[1:], loop=0, quality=quality, method=6,
            duration=round(1000 / FRAMES_PER_SECOND))
        size = still.stat().st_size + animation.stat().st_size
        if size < LIMIT_BYTES:
            return [still, animation]
    raise ValueError(f'{output}: {size} bytes in both pictures; expected less than {LIMIT_BYTES}')


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pictures; return 1 and print one line if this is not possible."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or '').strip(), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('demo', type=Path, help='output folder of a finished demo')
    parser.add_argument('output', type=Path, help='folder for the pictures')
    parser.add_argument('--begin', type=float, metavar='S', help='begin at this time of the video')
    options = parser.parse_args(arguments)
    try:
        paths = make_pictures(options.demo, options.output, options.begin)
    except (ValueError, OSError) as error:
        print(f'readme_pictures: {error}', file=sys.stderr)
        return 1
    for path in paths:
        print(f'{path}: {path.stat().st_size / 1e6:.2f} MB')
    return 0


if __name__ == '__main__':
    sys.exit(main())
