"""Exact confidence intervals of a share of successes."""

from collections.abc import Callable
import math

CONFIDENCE = 0.95


def exact_interval(
    successes: int, episodes: int, confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """
    Return the interval of Clopper and Pearson (Biometrika 26, 1934) for a share of successes.

    At the lower bound, the probability of at least `successes` is (1 - confidence) / 2; at the
    upper bound, that of at most `successes`. Without episodes the interval is 0 to 1.

    :raises ValueError: not 0 <= successes <= episodes.
    """
    if not 0 <= successes <= episodes:
        raise ValueError(f'{successes} successes of {episodes} episodes')
    rest = (1 - confidence) / 2
    low, high = 0.0, 1.0
    if successes > 0:
        low = _root(lambda share: 1 - at_most(successes - 1, episodes, share) - rest)
    if successes < episodes:
        high = _root(lambda share: rest - at_most(successes, episodes, share))
    return low, high


def at_most(successes: int, episodes: int, share: float) -> float:
    """Return the binomial probability of at most `successes`, each of probability `share`."""
    return math.fsum(
        math.comb(episodes, count) * share ** count * (1 - share) ** (episodes - count)
        for count in range(successes + 1))


def _root(rising: Callable[[float], float]) -> float:
    """Return the root of an increasing function on [0, 1], by bisection."""
    below, above = 0.0, 1.0
    for _ in range(60):  # to float64 precision
        middle = (below + above) / 2
        below, above = (middle, above) if rising(middle) < 0 else (below, middle)
    return (below + above) / 2
