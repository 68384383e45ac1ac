"""Exact confidence intervals of a success rate, against published values."""

import pytest

from lingbot_va_ros.evaluation.intervals import at_most, exact_interval


@pytest.mark.parametrize('successes, episodes, low, high', [
    # Closed forms: 1 - 0.025^(1/n) for none, its mirror for all.
    (0, 20, 0.0, 1 - 0.025 ** (1 / 20)),
    (20, 20, 0.025 ** (1 / 20), 1.0),
    (200, 200, 0.025 ** (1 / 200), 1.0),
    (0, 1, 0.0, 0.975),
    # Quantiles of the beta distribution, by an independent incomplete beta function.
    (1, 10, 0.002528579, 0.4450161),
    (5, 10, 0.1870860, 0.8129140),
    (9, 10, 0.5549839, 0.9974714),
    (190, 200, 0.9099725, 0.9757658),
])
def test_known_values(successes, episodes, low, high):
    assert exact_interval(successes, episodes) == pytest.approx((low, high), abs=2e-6)


def test_the_ends_are_where_the_tails_have_their_share():
    low, high = exact_interval(37, 53)
    assert 1 - at_most(36, 53, low) == pytest.approx(0.025)
    assert at_most(37, 53, high) == pytest.approx(0.025)


def test_nothing_is_known_without_episodes():
    assert exact_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize('successes, episodes', [(-1, 3), (4, 3)])
def test_impossible_numbers_are_refused(successes, episodes):
    with pytest.raises(ValueError, match='successes'):
        exact_interval(successes, episodes)
