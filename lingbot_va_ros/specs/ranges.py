"""
Plausible ranges of the numbers in files that users write, as fragments of a JSON schema.

A number outside its range is a typing error or a damaged file. It is rejected by name before
memory is allocated or the robot moves. The ranges of embodiment files are in
config/schemas/embodiment.json; docs/reference/policy_files.md lists those of policy files.
"""

from typing import Any

Schema = dict[str, Any]


def whole(least: int, most: int) -> Schema:
    """Return the schema of a whole number in a range, both ends included."""
    return {'type': 'integer', 'minimum': least, 'maximum': most}


def number(least: float, most: float) -> Schema:
    """Return the schema of a number in a range, both ends included."""
    return {'type': 'number', 'minimum': least, 'maximum': most}


MOST_MEMORY_CHUNKS = 10_000

IMAGE_SIDE = whole(16, 4096)  # pixels
CAMERAS = 16
FRAMES_PER_CHUNK = whole(2, 64)  # latent frames
ACTIONS_PER_FRAME = {**whole(4, 256), 'multipleOf': 4}
ACTION_RATE = number(0.1, 1000.0)  # Hz
QUANTILE = number(-10_000.0, 10_000.0)  # robot units
STEPS = whole(1, 1000)  # of denoising
EXEC_STEPS = whole(-1, 1001)
SHIFT = number(0.001, 100.0)
GUIDANCE = number(0.0, 100.0)
NOISE_SCALE = number(0.0, 10.0)
MEMORY_CHUNKS = whole(1, MOST_MEMORY_CHUNKS)
DELTA = number(1e-6, 10.0)  # m or rad at 1
