"""The events that the policy's run time reports."""

from typing import Protocol

import numpy as np

from lingbot_va_ros.policy.runtime.active_chunk import PublishedChunk
from lingbot_va_ros.policy.runtime.status import RuntimeStatus


class PolicyEvents(Protocol):
    """Receives what happens; called by the thread that runs the scheduler."""

    def status_changed(self, status: RuntimeStatus) -> None:
        """Take a status that differs from the one before."""
        ...

    def chunk_begun(self, chunk: PublishedChunk) -> None:
        """Take a chunk that begins; called under the plan slot's lock, must be quick."""
        ...

    def frame_imagined(self, picture: np.ndarray, due_ns: int) -> None:
        """
        Take an imagined picture when the time has come that it foretells.

        :param picture: uint8 [H, W, 3], all views joined.
        :param due_ns: that ROS time in nanoseconds.
        """
        ...

    def fault(self, trace: str) -> None:
        """Take the traceback of an exception that ended the policy's work."""
        ...
