"""The reference watch: references are compared with the commands of their times."""

import numpy as np

from lingbot_va_ros.mux.command_history import CommandHistory
from lingbot_va_ros.mux.reference_watch import LEAST_SHARE, ReferenceWatch

JOINTS = ('a', 'b')
MS = 1_000_000
BEGIN_NS = 1_000_000_000_000


def share_off(behind, speed=0.5):
    """Return the share that is off, of references that are so far behind their commands, rad."""
    commands, watch = CommandHistory(len(JOINTS), 10 * MS, 0.2), ReferenceWatch(JOINTS)

    def commanded(time_ns):
        return np.array([speed * (time_ns - BEGIN_NS) * 1e-9, 0.0])
    for tick_ns in range(BEGIN_NS, BEGIN_NS + 1000 * MS, 10 * MS):
        watch.add(JOINTS[:1], commanded(tick_ns)[:1] - behind, tick_ns)
        commands.add(tick_ns, commanded(tick_ns))
        watch.judge(tick_ns, commands)
    return watch.share_off(tick_ns)


def test_references_on_the_command_are_not_off_and_others_are():
    assert share_off(0.0) == 0.0
    assert share_off(0.01) == 1.0 > LEAST_SHARE


def test_at_rest_there_is_no_verdict():
    assert share_off(0.01, speed=0.0) == 0.0


def test_a_reference_that_is_no_number_or_of_another_robot_does_not_count():
    commands, watch = CommandHistory(len(JOINTS), 10 * MS, 0.2), ReferenceWatch(JOINTS)
    commands.add(BEGIN_NS, np.zeros(2))
    for number in range(20):
        stamp_ns = BEGIN_NS + number * 10 * MS
        watch.add(('a',), (float('nan'),), stamp_ns)
        watch.add(('other',), (1.0,), stamp_ns)
        watch.add(('a', 'b'), (1.0,), stamp_ns)
    watch.judge(BEGIN_NS + 10**9, commands)
    assert watch.share_off(BEGIN_NS) == 0.0
