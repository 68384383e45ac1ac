"""Sessions with small chunks, comparisons of predictions, and interrupts that abort."""

import torch

from lingbot_va_ros.policy.errors import PredictionAborted
from lingbot_va_ros.policy.inference.chunk_shape import ChunkShape
from lingbot_va_ros.policy.inference.session import Session
from lingbot_va_ros.specs.policy_file import Sampling
from support.networks import random

SHAPE = ChunkShape(frames=2, actions=4, rows=4, columns=4)
USED = (14, 15, 28)
VIDEO, ACTION = Sampling(3, 5.0, 5.0), Sampling(4, 1.0, 1.0)


def make_session(network, video=VIDEO, action=ACTION, memory_chunks=8) -> Session:
    """Return a session with an instruction, its memory empty."""
    session = Session(network, SHAPE, video, action, USED, memory_chunks)
    session.set_text(random(99, session.cfg_batch, 512, 32))
    return session


def assert_same_prediction(one, other):
    """Fail where two predictions differ in a bit."""
    assert torch.equal(one.latents, other.latents)
    assert torch.equal(one.actions, other.actions)
    assert one.first_frame == other.first_frame


class Abort:
    """Raises PredictionAborted at one of the checks between denoising steps."""

    def __init__(self, at: int):
        self.left = at

    def check(self):
        """Count one check."""
        if self.left == 0:
            raise PredictionAborted
        self.left -= 1
