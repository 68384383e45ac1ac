"""The proximity: asks for less speed where bodies come near each other."""

import numpy as np

from lingbot_va_ros.mux.collision_watch import CollisionWatch

# The scale that is asked for at the stop distance, of bodies that still approach.
SLOWEST = 0.1
# Bodies that come nearer by less than this, m/s, do not approach: that is how exact distances are.
APPROACH = 1e-3
# The scale rises again along a ramp of this rate, 1/s, so that an arm that turns does not jerk.
RISING_RATE = 4.0


class Proximity:
    """
    The speed scale of the nearest bodies that approach each other: 1 far away, less nearby.

    From the slow distance to the stop distance it falls from 1 to SLOWEST. Bodies that stay or
    move apart slow nothing down, so that there is always a way back. A pair that is nearer than
    the slow distance at home slows down only below that distance.

    :param watch: of the commands.
    """

    def __init__(self, watch: CollisionWatch) -> None:
        self._watch, model = watch, watch.model
        self._stop = model.spec.stop_distance
        self._slow = np.minimum(model.spec.slow_distance, model.at_home)
        self._zone = np.maximum(self._slow - self._stop, 1e-6)
        self._before = np.full(len(self._slow), np.inf)  # distances at the last tick
        self.scale = 1.0

    def update(self, q: np.ndarray, seconds: float) -> float:
        """
        Return the scale to ask for.

        :param q: commanded positions [J].
        :param seconds: since the last call.
        """
        distances = self._watch.bounds(q, self._slow)
        scale = 1.0
        is_near = distances < self._slow
        if is_near.any():
            approaches = is_near & (self._before - distances > APPROACH * seconds)
            if approaches.any():
                share = np.clip((distances - self._stop) / self._zone, 0.0, 1.0)[approaches].min()
                scale = SLOWEST + (1.0 - SLOWEST) * float(share)
        self._before = distances
        self.scale = min(scale, self.scale + RISING_RATE * seconds)
        return self.scale
