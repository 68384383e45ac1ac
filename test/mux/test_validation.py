"""Stamps of messages: the reason says what is wrong with the clock."""

import pytest

from lingbot_va_ros.mux.validation import check_stamp, Rejected

NOW = 1_700_000_000 * 1_000_000_000
SECOND = 1_000_000_000


@pytest.mark.parametrize('stamp, kind, words', [
    (0, 'stale', 'it has no stamp (0)'),
    (5 * SECOND, 'stale', 'stamped 1699999995 s ago: of another clock, or one that is not set'),
    (NOW - 3600 * SECOND, 'stale', 'stamped 3600 s ago: of another clock'),
    (NOW - SECOND // 2, 'stale', 'stamped 0.500 s ago, more than 0.2 s'),
    (NOW + SECOND, 'future', 'stamped 1.000 s in the future: the clocks are not synchronized')])
def test_the_reason_names_the_clock(stamp, kind, words):
    with pytest.raises(Rejected) as caught:
        check_stamp(stamp, NOW, SECOND // 5)
    assert caught.value.kind == kind and str(caught.value).startswith(words)


@pytest.mark.parametrize('stamp', [NOW, NOW - SECOND // 10, NOW + 40_000_000])
def test_a_little_late_or_ahead_is_taken(stamp):
    check_stamp(stamp, NOW, SECOND // 5)
