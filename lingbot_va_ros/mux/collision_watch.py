"""The collision watch: tells how far commands and plans would lead bodies too near each other."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from lingbot_va_ros.robot.collision import CollisionModel, Distances, Near

# Between two states that keep the stop distance, the way from one to the other is known to keep
# this share of it: it is halved until it is that short. Bodies are convex and move smoothly, so
# that what they really lose in between is the square of that.
KEPT_BETWEEN = 0.5
# Distances are found to within some 1e-6 m: so much nearer is no motion. A pair that is too near
# must not end nearer at all, or it would creep by that at every tick.
ROUNDING, LEAST_ROUNDING = 1e-6, 1e-9
# Between two points of a plan, the time of a collision is looked for in so many places.
PLACES = 17


@dataclass(frozen=True)
class TooNear:
    """
    Two bodies that come nearer than they may, m.

    :param joints: [J] bool, those that move the two against each other.
    """

    bodies: tuple[str, str]
    distance: float
    allowed: float
    joints: np.ndarray = field(compare=False, default_factory=lambda: np.zeros(0, bool))

    kind = 'collision'

    def __str__(self) -> str:
        # Tenths of a millimetre: a body rests just at the distance that is needed.
        how = (f'{self.distance:.4f} m apart' if self.distance > 0.0
               else f'{-self.distance:.4f} m deep in each other')
        return (f'{self.bodies[0]} and {self.bodies[1]} {how} '
                f'(at least {self.allowed:.4f} m apart are needed)')


class CollisionWatch:
    """
    Tells how far joint positions put bodies below the stop distance of each other.

    Bodies that are too near already have a way apart: a motion is refused only where it leads a
    pair nearer than it began. A pair whose distance is large in comparison to the motion is not
    computed: a joint changes it by no more than its lever times its way. For one thread at a time.
    """

    def __init__(self, model: CollisionModel) -> None:
        self.model = model
        self._distances = Distances(model)
        self._stop = model.spec.stop_distance
        self._levers = model.levers
        self.nothing = np.zeros(len(model.bodies))
        # Lower bounds [P] of the distances at positions [J], and which of them are exact there.
        self._q = np.array(model.home)
        self._bounds = model.at_home.copy()
        self._is_exact = np.ones(len(model.bodies), bool)
        self._in_the_way: int | None = None

    def bounds(self, q: np.ndarray, needed: np.ndarray | float) -> np.ndarray:
        """
        Return lower bounds [P] of the distances at positions [J], exact where below `needed`, m.

        :param needed: [P] or one for all pairs.
        """
        moved = np.abs(q - self._q)
        if moved.any():
            self._bounds = self._bounds - self._levers @ moved
            self._q, self._is_exact = np.array(q), np.zeros(len(self._bounds), bool)
        # Not `<`: nothing is known of a distance that is no number.
        stale = np.flatnonzero(~(self._bounds >= needed) & ~self._is_exact)
        if stale.size:
            self._bounds = self._bounds.copy()
            self._bounds[stale] = self._distances.at(q, stale.tolist())
            self._is_exact[stale] = True
        return np.asarray(self._bounds)

    def excess(self, q: np.ndarray) -> np.ndarray:
        """Return by how much each pair is nearer than the stop distance at [J], [P] in m, ≥ 0."""
        return np.maximum(self._stop - self.bounds(q, self._stop), 0.0)

    def worst(self, path: np.ndarray) -> np.ndarray:
        """Return the largest excess [P] along positions [n, J] that are joined by lines."""
        lowest = np.full(len(self.nothing), np.inf)
        for pairs, distances in self._scan(path, np.full_like(lowest, self._stop)):
            lowest[pairs] = np.minimum(lowest[pairs], distances)
        return np.maximum(self._stop - lowest, 0.0)

    def leaves(self, path: np.ndarray, allowed: np.ndarray) -> bool:
        """Return whether positions [n, J] lead a pair nearer than by an excess [P]."""
        least = self._stop - allowed
        least_at_end = least - np.where(allowed > 0.0, LEAST_ROUNDING, ROUNDING)
        # The pair of the last motion that was refused is most likely in the way again.
        if self._in_the_way is not None:
            distance = self._distances.at(path[-1], (self._in_the_way,))[0]
            if not distance >= least_at_end[self._in_the_way]:
                return True
        self._in_the_way = None
        for state, (pairs, distances) in enumerate(self._scan(path, least)):
            is_too_near = ~(distances >= (
                least_at_end[pairs] if state == 1 else least[pairs] - ROUNDING))
            if is_too_near.any():
                self._in_the_way = int(pairs[np.argmax(is_too_near)])
                return True
        return False

    def breach(self, worst: np.ndarray, allowed: np.ndarray) -> TooNear | None:
        """Return the pair that is furthest beyond an allowed excess [P], or None."""
        beyond = worst - allowed
        pair = int(np.argmax(beyond))
        if not beyond[pair] > ROUNDING:
            return None
        return TooNear(
            self.model.bodies[pair], float(self._stop - worst[pair]),
            float(self._stop - allowed[pair]), self._levers[pair] > 0.0)

    def outside(self, q: np.ndarray) -> TooNear | None:
        """Return which bodies are too near at positions [J], or None."""
        return self.breach(self.excess(q), self.nothing)

    def first_outside(
        self, path: np.ndarray, allowed: np.ndarray) -> tuple[float, TooNear] | None:
        """
        Return where along positions [n, J] a pair first gets too near, 0 … n - 1, or None.

        :param allowed: excess [P] that no pair may go beyond.
        """
        if not self.leaves(path, allowed):
            return None
        first, last = 0, len(path) - 1
        while last - first > 1:
            middle = (first + last) // 2
            if self.leaves(path[first:middle + 1], allowed):
                last = middle
            else:
                first = middle
        for place in np.linspace(first, last, PLACES):
            q = path[first] + (place - first) / max(last - first, 1) * (path[last] - path[first])
            breach = self.breach(self.excess(q), allowed)
            if breach is not None:
                return float(place), breach
        # A breach that is shorter than that: the whole way between the two points has it.
        breach = self.breach(self.worst(path[first:last + 1]), allowed)
        return None if breach is None else (float(first), breach)

    def nearest(self, q: np.ndarray, count: int = 1) -> list[Near]:
        """Return the nearest pairs at positions [J], the nearest first."""
        distances = self._distances.at(q)
        return [self._distances.near(int(pair)) for pair in np.argsort(distances)[:count]]

    def _scan(
        self, path: np.ndarray, least: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """
        Give the distances along a path, of the pairs that may come nearer than `least` [P].

        :returns: numbers of pairs [k] and their distances [k] at one state, first at the begin,
            then at the end, then in between, until the way between any two states is known to be
            far enough for all pairs.
        """
        ways = np.zeros_like(path)
        np.cumsum(np.abs(np.diff(path, axis=0)), axis=0, out=ways[1:])
        reach = self._levers @ ways[-1]
        slack = KEPT_BETWEEN * self._stop
        bounds = self.bounds(path[0], least + reach)
        open_pairs = np.flatnonzero(~(bounds - reach >= least))
        if not open_pairs.size:
            return
        begin = bounds[open_pairs]
        yield open_pairs, begin
        if len(path) == 1:
            return
        levers, least = self._levers[open_pairs], least[open_pairs] - slack

        def at(place: float) -> tuple[np.ndarray, np.ndarray]:
            """Return positions [J] and the way to them [J] at a place of the path, 0 … n - 1."""
            row = min(int(place), len(path) - 2)
            part = place - row
            return (path[row] + part * (path[row + 1] - path[row]),
                    ways[row] + part * (ways[row + 1] - ways[row]))

        end = self._distances.at(path[-1], open_pairs.tolist())
        yield open_pairs, end
        every = np.arange(len(open_pairs))
        spans = [(0.0, len(path) - 1.0, ways[0], ways[-1], every, begin, end)]
        while spans:
            first, last, way_first, way_last, pairs, d_first, d_last = spans.pop()
            length = levers[pairs] @ (way_last - way_first)
            # The distance falls and rises by no more than the length of the way.
            is_open = ~((d_first + d_last - length) / 2.0 >= least[pairs]) & (length > 2.0 * slack)
            if not is_open.any():
                continue
            pairs, d_first, d_last = pairs[is_open], d_first[is_open], d_last[is_open]
            middle = (first + last) / 2.0
            q, way = at(middle)
            d_middle = self._distances.at(q, open_pairs[pairs].tolist())
            yield open_pairs[pairs], d_middle
            spans.append((middle, last, way, way_last, pairs, d_middle, d_last))
            spans.append((first, middle, way_first, way, pairs, d_first, d_middle))
