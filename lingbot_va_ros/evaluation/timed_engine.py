"""An engine that records the wall-clock time of its predictions."""

from collections.abc import Callable, Mapping, Sequence
import time
from typing import Any, TYPE_CHECKING

import numpy as np

from lingbot_va_ros.policy.interrupt import Interrupt

if TYPE_CHECKING:
    from lingbot_va_ros.policy.inference.engine import Chunk, Engine


class TimedEngine:
    """
    A proxy of an engine that forwards calls and measures the wall-clock time of predictions.

    The scheduler cannot measure it by its virtual clock, which stops during a prediction.

    :param engine: receives the calls.
    """

    def __init__(self, engine: 'Engine'):
        self.engine = engine
        # Wall-clock seconds of each prediction. From rest it includes encoding the last images and
        # writing the chunk before it, which the arm waits for as well.
        self.inference_seconds: list[float] = []
        self._preparing = 0.0

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the engine that is not timed."""
        return getattr(self.engine, name)

    def reset(self) -> int:
        """See `Engine.reset`."""
        self._preparing = 0.0
        return self.engine.reset()

    def begin_episode(self, images: Mapping[str, np.ndarray]) -> None:
        """See `Engine.begin_episode`."""
        self._preparing = _seconds_of(lambda: self.engine.begin_episode(images))

    def observe(self, images: Mapping[str, Sequence[np.ndarray]]) -> None:
        """See `Engine.observe`."""
        self._preparing = _seconds_of(lambda: self.engine.observe(images))

    def commit(self, executed: np.ndarray) -> None:
        """See `Engine.commit`."""
        self._preparing += _seconds_of(lambda: self.engine.commit(executed))

    def rebuild_from_last_chunk(self) -> None:
        """See `Engine.rebuild_from_last_chunk`."""
        self._preparing += _seconds_of(self.engine.rebuild_from_last_chunk)

    def predict(self, interrupt: Interrupt) -> 'Chunk':
        """See `Engine.predict`."""
        return self._timed(lambda: self.engine.predict(interrupt))

    def predict_ahead(
        self, executing: np.ndarray, grounded: bool, interrupt: Interrupt,
    ) -> 'Chunk':
        """See `Engine.predict_ahead`."""
        self._preparing = 0.0  # the arm moves during that time
        return self._timed(lambda: self.engine.predict_ahead(executing, grounded, interrupt))

    def _timed(self, predict: Callable[[], 'Chunk']) -> 'Chunk':
        since = time.monotonic()
        chunk = predict()
        self.inference_seconds.append(time.monotonic() - since + self._preparing)
        self._preparing = 0.0
        return chunk


def _seconds_of(work: Callable[[], Any]) -> float:
    since = time.monotonic()
    work()
    return time.monotonic() - since
