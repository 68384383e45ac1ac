"""Chunks into plans: a chunk from rest, a chunk behind a running plan, a chunk after a pause."""


import numpy as np

from lingbot_va_ros.motion.plan import Plan, SHORTEST_STOP
from lingbot_va_ros.motion.time import NANOSECONDS

# Peak speed of a cubic from rest to rest over its mean speed.
CUBIC_PEAK = 1.5


def plan_from_actions(
    start: np.ndarray, actions: np.ndarray, period: float, now_ns: int, max_velocity: np.ndarray,
    lead: float = 0.0,
) -> tuple[Plan, int]:
    """
    Return the plan that goes from rest at `start` through a chunk's actions to rest at the last.

    Action i is due `i * period` after the first; the way from `start` to the first action takes at
    least `lead`, longer where a joint's speed limit asks for it. Velocities are those of a
    monotone cubic (Fritsch and Carlson 1980): positions never leave the range of neighbouring
    actions.

    :param start: [J]; `actions` [n, J] joint positions.
    :param period: seconds between actions.
    :param max_velocity: [J], used for the way to the first action only.
    :param lead: seconds; 0 for one period.
    :returns: the plan, and the ROS time in nanoseconds when the first action is due.
    """
    lead = max(lead or period, _shortest_lead(start, actions[0], max_velocity))
    seconds = np.concatenate(([0.0], lead + period * np.arange(len(actions))))
    times_ns = now_ns + np.round(seconds * NANOSECONDS).astype(np.int64)
    positions = np.concatenate((start[None], actions)).astype(np.float64)
    plan = Plan(times_ns, positions, _monotone_velocities(seconds, positions))
    return plan, int(times_ns[1])


def continued(
    plan: Plan, actions: np.ndarray, period: float, now_ns: int, reaction: float,
    max_velocity: np.ndarray, since_ns: int = 0,
) -> tuple[Plan, int]:
    """
    Return a plan that goes on after its last knot through a further chunk, to rest at its last.

    The first action is due one period after the last knot, which is now passed at speed: at the
    velocity that a monotone cubic has there, from the neighbours on both sides. Where the motion
    is already coming to rest at the last knot, it is led on from where it will be in `reaction`
    seconds: the less of its way is left, the slower it passes. A chunk that comes after the end
    begins from rest: its first action is due when it would have been where at least half a period
    is left and enough for the way to it, else everything of it is later by the delay (`resumed`).

    A chunk that is in time cannot take longer to its first action: a joint that lies further off
    than its speed limit lets it go approaches the actions at that limit until it has reached one,
    and keeps to them from there on.

    :param plan: at rest at its last knot.
    :param actions: [n, J] joint positions.
    :param period: seconds between actions.
    :param now_ns: ROS time; what the plan says before `reaction` seconds later is not changed.
    :param max_velocity: [J], used for the way to the first actions only.
    :param since_ns: knots before this time are left out.
    :returns: the plan, and the ROS time in nanoseconds when the first action is due.
    """
    seam_ns, heard_ns = plan.end_ns, now_ns + round(reaction * NANOSECONDS)
    if heard_ns > seam_ns - SHORTEST_STOP * NANOSECONDS:
        start_ns = max(heard_ns, seam_ns)
        lead = period - (start_ns - seam_ns) / NANOSECONDS
        if lead >= max(period / 2, _shortest_lead(plan.positions[-1], actions[0], max_velocity)):
            return resumed(plan, actions, period, start_ns, max_velocity, since_ns, lead)
        return resumed(plan, actions, period, now_ns, max_velocity, since_ns)
    kept = plan.since(since_ns, heard_ns)
    rows = _approached(plan.positions[-1], actions, max_velocity * period / CUBIC_PEAK)
    ahead = np.arange(1, len(rows) + 1) * period
    seconds = np.concatenate(((kept.times_ns[-2:] - seam_ns) / NANOSECONDS, ahead))
    velocities = _monotone_velocities(seconds, np.concatenate((kept.positions[-2:], rows)))
    kept.velocities[-1] = velocities[1]
    due_ns = seam_ns + np.round(ahead * NANOSECONDS).astype(np.int64)
    return _joined(kept, due_ns, rows, velocities[2:]), int(due_ns[0])


def resumed(
    plan: Plan, actions: np.ndarray, period: float, now_ns: int, max_velocity: np.ndarray,
    since_ns: int | None = None, lead: float = 0.0,
) -> tuple[Plan, int]:
    """
    Return a plan that comes to its end and goes on from rest there through a chunk.

    A plan that still moves, a stop above all, is carried out first: a chunk that began from the
    middle of it would break its speed off.

    :param since_ns: knots before this time are left out; by default those that are past.
    :param lead: see `plan_from_actions`.
    :returns: see `continued`.
    """
    start_ns = max(now_ns, plan.end_ns)
    if since_ns is None:
        since_ns = int(plan.times_ns[max(0, np.searchsorted(plan.times_ns, now_ns, 'right') - 1)])
    kept = plan.since(since_ns, start_ns)
    later, due_ns = plan_from_actions(
        plan.positions[-1], actions, period, start_ns, max_velocity, lead)
    return _joined(kept, later.times_ns[1:], later.positions[1:], later.velocities[1:]), due_ns


def _joined(
    plan: Plan, times_ns: np.ndarray, positions: np.ndarray, velocities: np.ndarray,
) -> Plan:
    return Plan(
        np.concatenate((plan.times_ns, times_ns)), np.concatenate((plan.positions, positions)),
        np.concatenate((plan.velocities, velocities)))


def _shortest_lead(start: np.ndarray, action: np.ndarray, max_velocity: np.ndarray) -> float:
    """Return the seconds that a cubic from rest to rest needs."""
    return float(np.max(np.abs(action - start) / max_velocity, initial=0.0)) * CUBIC_PEAK


def _approached(start: np.ndarray, actions: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Return actions [n, J], approached from `start` by at most `most` [J] until one is met."""
    rows, at = np.array(actions, np.float64), start
    there = np.zeros(len(start), bool)
    for row in rows:
        there |= np.abs(row - at) <= most
        row[:] = at = np.where(there, row, at + np.clip(row - at, -most, most))
    return rows


def _monotone_velocities(times: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return the velocities [n, J] of a monotone cubic; at rest at both ends."""
    steps = np.diff(times)[:, None]
    slopes = np.diff(positions, axis=0) / steps
    velocities = np.zeros_like(positions)
    before, after = slopes[:-1], slopes[1:]
    h0, h1 = steps[:-1], steps[1:]
    same_way = before * after > 0
    weight0, weight1 = 2 * h1 + h0, h1 + 2 * h0
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        harmonic = (weight0 + weight1) / (weight0 / before + weight1 / after)
    velocities[1:-1] = np.where(same_way, harmonic, 0.0)
    return velocities
