"""A tree of coordinate frames: the newest transform of each frame to its parent."""

from dataclasses import dataclass

import numpy as np

# More frames than this are no robot's.
MOST_FRAMES = 1000


class UnknownFrame(ValueError):
    """Two frames are not connected; the message names the reason in one line."""


@dataclass(frozen=True)
class _Link:
    parent: str
    pose: np.ndarray  # of the frame in its parent, [4, 4]
    received: float  # s; inf: it never grows old


class FrameTree:
    """
    Frames by name, each with its parent, as tf has them; without a history.

    :param timeout: seconds after which a transform that is not static counts no longer.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._links: dict[str, _Link] = {}

    def put(
        self, parent: str, frame: str, pose: np.ndarray, now_s: float, is_static: bool) -> None:
        """
        Take the pose [4, 4] of a frame in its parent; what is no number is ignored.

        :param now_s: seconds of any steady clock.
        """
        if not np.all(np.isfinite(pose)) or parent == frame:
            return
        if frame in self._links or len(self._links) < MOST_FRAMES:
            self._links[frame] = _Link(parent, pose, np.inf if is_static else now_s)

    def pose(self, base: str, frame: str, now_s: float) -> np.ndarray:
        """
        Return the pose [4, 4] of a frame in another one.

        :raises UnknownFrame: no transforms connect the two, or one of them is too old.
        """
        base_to_root, roots = self._up(base, now_s)
        frame_to_root, others = self._up(frame, now_s)
        if roots != others:
            known = frame in self._links or any(
                link.parent == frame for link in self._links.values())
            raise UnknownFrame(
                f"tf does not connect '{frame}' with '{base}'" if known
                else f"tf has no frame '{frame}'")
        return np.asarray(np.linalg.inv(base_to_root) @ frame_to_root)

    def _up(self, frame: str, now_s: float) -> tuple[np.ndarray, str]:
        """Return the pose [4, 4] of a frame in its root, and the root's name."""
        pose, seen = np.eye(4), {frame}
        while frame in self._links:
            link = self._links[frame]
            if now_s - link.received > self._timeout:
                raise UnknownFrame(
                    f"the tf of '{frame}' is {now_s - link.received:.1f} s old")
            pose, frame = link.pose @ pose, link.parent
            if frame in seen:
                raise UnknownFrame(f"tf has a loop at '{frame}'")
            seen.add(frame)
        return pose, frame
