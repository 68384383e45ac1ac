"""Checks incoming trajectories: a message is accepted whole, or rejected with one reason."""

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.motion.trajectory import finite_differences, TrajectoryMessage
from lingbot_va_ros.specs.embodiment import Embodiment

# A stamp this far ahead of our clock means that the clocks are not synchronized.
MAX_FUTURE_NS = 50_000_000
# A stamp older than this, s, is not late: its clock is another one.
OTHER_CLOCK = 60.0
# A position this share of a joint's range outside its limits is measurement noise of a robot that
# rests at a limit; the limit filter brings it back inside.
LIMIT_NOISE = 0.01
NOT_NEWER = 'its stamp is not newer than the last one'


class Rejected(ValueError):
    """
    A message is rejected.

    :param kind: one of REJECTION_KINDS; the counter that the message goes under.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


REJECTION_KINDS = (
    'too_long', 'empty', 'joints', 'lengths', 'not_finite', 'times', 'final_velocity', 'limits',
    'stale', 'not_newer', 'future', 'jump', 'workspace', 'collision', 'frame', 'pose', 'reach',
    'distance')


def read_plan(
    message: TrajectoryMessage, embodiment: Embodiment, may_end_moving: bool = False,
    may_begin_at_once: bool = False,
) -> Plan:
    """
    Check everything about a message that needs no clock, and return its plan.

    :param may_end_moving: a last velocity other than 0 is accepted (a jogging program sends one
        point at a time); behind its end a plan rests all the same.
    :param may_begin_at_once: the first time_from_start may be 0.
    :raises Rejected: kinds empty, joints, lengths, not_finite, times, final_velocity, limits.
    """
    _check_joints(message.joints, embodiment.joints)
    if not message.points:
        raise Rejected('empty', 'the trajectory has no points')
    count = len(embodiment.joints)
    with_velocities = len(message.points[0].velocities) > 0
    for index, point in enumerate(message.points):
        rows = (
            ('positions', point.positions, count),
            ('velocities', point.velocities, count if with_velocities else 0),
            ('accelerations', point.accelerations, len(point.accelerations) and count))
        for name, values, expected in rows:
            if len(values) != expected:
                raise Rejected(
                    'lengths',
                    f'point {index} has {len(values)} {name}, expected {expected}')
            if len(values) and not np.all(np.isfinite(values)):
                joint = message.joints[int(np.argmin(np.isfinite(values)))]
                raise Rejected(
                    'not_finite', f"point {index}: {name} of '{joint}' is not a finite number")

    times_ns = np.array([point.time_from_start_ns for point in message.points], dtype=np.int64)
    if times_ns[0] < (0 if may_begin_at_once else 1) or np.any(np.diff(times_ns) <= 0):
        least = 'at least 0' if may_begin_at_once else 'above 0'
        raise Rejected('times', f'time_from_start must be {least} and strictly increasing')
    order = [message.joints.index(name) for name in embodiment.joints]
    positions = np.array([point.positions for point in message.points], np.float64)[:, order]
    if with_velocities:
        velocities = np.array([p.velocities for p in message.points], np.float64)[:, order]
        if not may_end_moving and np.any(velocities[-1] != 0.0):
            joint = embodiment.joints[int(np.argmax(velocities[-1] != 0.0))]
            raise Rejected(
                'final_velocity',
                f"the last velocity of '{joint}' is not 0: a plan ends in a stop")
    else:
        velocities = finite_differences(times_ns / NANOSECONDS, positions)
    _check_limits(positions, embodiment)
    return Plan(message.stamp_ns + times_ns, positions, velocities)


def _check_joints(names: tuple[str, ...], expected: tuple[str, ...]) -> None:
    unknown = sorted(set(names) - set(expected))
    missing = [name for name in expected if name not in names]
    mistakes = []
    if unknown:
        mistakes.append(f'unknown joints {", ".join(unknown)}')
    if missing:
        mistakes.append(f'missing joints {", ".join(missing)}')
    if len(set(names)) < len(names):
        mistakes.append('a joint is named twice')
    if mistakes:
        raise Rejected('joints', '; '.join(mistakes))


def _check_limits(positions: np.ndarray, embodiment: Embodiment) -> None:
    limits = embodiment.limits
    noise = LIMIT_NOISE * (limits.upper - limits.lower)
    wrong = (positions < limits.lower - noise) | (positions > limits.upper + noise)
    if np.any(wrong):
        index, joint = np.argwhere(wrong)[0]
        raise Rejected(
            'limits',
            f"point {index}: '{embodiment.joints[joint]}' at {positions[index, joint]:.4g} is "
            f'outside {limits.lower[joint]:.4g} … {limits.upper[joint]:.4g}')


def check_stamp(stamp_ns: int, now_ns: int, timeout_ns: int) -> None:
    """
    Check a message's stamp against the clock.

    :raises Rejected: kinds future, stale.
    """
    age = (now_ns - stamp_ns) / NANOSECONDS
    if now_ns - stamp_ns < -MAX_FUTURE_NS:
        raise Rejected(
            'future', f'stamped {-age:.3f} s in the future: the clocks are not synchronized')
    if now_ns - stamp_ns > timeout_ns:
        if not stamp_ns:
            raise Rejected('stale', 'it has no stamp (0)')
        if age > OTHER_CLOCK:
            raise Rejected(
                'stale', f'stamped {age:.0f} s ago: of another clock, or one that is not set')
        timeout = timeout_ns / NANOSECONDS
        raise Rejected('stale', f'stamped {age:.3f} s ago, more than {timeout:g} s')


def check_times(
    stamp_ns: int, plan: Plan, now_ns: int, last_stamp_ns: int, timeout_ns: int,
) -> None:
    """
    Check a plan's times against the clock and the last accepted stamp.

    :raises Rejected: kinds future, stale, not_newer.
    """
    check_stamp(stamp_ns, now_ns, timeout_ns)
    if plan.end_ns <= now_ns:
        raise Rejected('stale', 'its last point is past')
    if stamp_ns <= last_stamp_ns:
        raise Rejected('not_newer', NOT_NEWER)


def check_jump(
    plan: Plan, now_ns: int, q: np.ndarray, embodiment: Embodiment, max_jump_s: float,
    exempt: np.ndarray | None = None,
) -> None:
    """
    Check that the plan's beginning is near the commanded positions q [J].

    Near is what a joint can go at its velocity limit until the first point is due, and
    `max_jump_s` seconds more.

    :param exempt: [J] bool: joints that may begin anywhere. A policy opens and closes a gripper
        from one action to the next; the limit filter slows it down.
    :raises Rejected: kind jump.
    """
    first_ns = max(int(plan.times_ns[0]), now_ns)
    start, _ = plan.sample(first_ns)
    allowed = embodiment.limits.velocity * ((first_ns - now_ns) / NANOSECONDS + max_jump_s)
    excess = np.abs(start - q) - allowed
    if exempt is not None:
        excess = np.where(exempt, 0.0, excess)
    if np.any(excess > 0):
        joint = int(np.argmax(excess / embodiment.limits.velocity))
        raise Rejected(
            'jump',
            f"'{embodiment.joints[joint]}' would jump from {q[joint]:.4g} to {start[joint]:.4g}; "
            f'it can go {allowed[joint]:.3g} in time')
