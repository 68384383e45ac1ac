"""Makes plans of action chunks: from rest, after a running plan, and after a pause."""

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
    Return a plan from rest at `start` through the actions of a chunk to rest at the last one.

    Action i is due `i * period` after the first. The motion from `start` to the first action takes
    `lead`, or longer where a velocity limit requires it. Velocities are those of a monotone cubic
    (Fritsch and Carlson 1980, "Monotone Piecewise Cubic Interpolation"; weighted harmonic means of
    Fritsch and Butland 1984): positions never leave the range of neighboring actions.

    :param start: [J]; `actions` [n, J] joint positions.
    :param period: seconds between actions.
    :param max_velocity: [J], for the motion to the first action only.
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
    Return the plan extended by a further chunk, to rest at the chunk's last action.

    The first action is due one period after the plan's last knot. The motion now passes that knot
    at the velocity of a monotone cubic through its neighbors on both sides. Where the plan already
    decelerates towards the knot, the cubic begins at its state in `reaction` seconds: the later
    the chunk, the slower the motion passes the knot.

    A chunk that comes after the plan's end begins from rest. Its first action keeps its time if at
    least half a period is left, and enough for the motion to it. Otherwise the whole chunk is
    delayed (`resumed`).

    A chunk in time cannot take longer to its first action. A joint that its velocity limit keeps
    from the first action approaches the actions at that limit until it reaches one, and follows
    them from then on.

    :param plan: at rest at its last knot.
    :param actions: [n, J] joint positions.
    :param period: seconds between actions.
    :param now_ns: ROS time; the plan is unchanged until `reaction` seconds after it.
    :param max_velocity: [J], for the motion to the first actions only.
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
    Return the plan extended by a chunk that begins from rest at the plan's end.

    A plan that still moves, such as a stop, is completed first: a chunk that began in the middle
    would break off its velocity.

    :param since_ns: knots before this time are left out; by default past knots.
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
    """Return the shortest duration in seconds of a cubic from rest to rest."""
    return float(np.max(np.abs(action - start) / max_velocity, initial=0.0)) * CUBIC_PEAK


def _approached(start: np.ndarray, actions: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Return actions [n, J] approached from `start` by at most `most` [J] until one is reached."""
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
