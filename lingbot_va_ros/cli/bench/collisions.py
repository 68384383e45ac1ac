"""
Measure what the collision watch costs the mux, in virtual time.

Two muxes get the same joint states and the same leader arm tick by tick, one with the embodiment's
collision section and one without. Times are of the thread's processor time in `Mux.tick`.
"""

from collections.abc import Callable
from dataclasses import replace
import math
import time
from typing import Any

import numpy as np

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.mux.leader_arm import LeaderJoint
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.specs.embodiment import Embodiment, load_embodiment

RATE = 100  # Hz of the mux
PERIOD_NS = NANOSECONDS // RATE
BEGIN_NS = 100 * NANOSECONDS
# Ticks before those that are measured, and those.
SETTLING, MEASURED = 60, 300
SPEED, AMPLITUDE = 0.5, 0.25  # rad/s at most, rad; of every arm joint
# The first joint of one arm turns by so much and that of the other against it, rad.
MEETING = 1.0
MOTIONS = ('at rest', 'sine of 0.5 rad/s', 'sine at the velocity limits', 'two arms that meet')


def measure_collisions(name: str, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """
    Return a row for each motion: milliseconds a tick with and without, and the share of a core.

    :param name: of the embodiment, or a path.
    :raises ValueError: the embodiment cannot be used, or has no collision section.
    """
    embodiment = load_embodiment(name)
    if embodiment.collision is None:
        raise ValueError(f"embodiment '{embodiment.name}' has no section collision")
    rows = []
    for motion in MOTIONS:
        say(f'collisions: {motion}')
        rows.append(_measure(embodiment, motion))
    return rows


def _measure(embodiment: Embodiment, motion: str) -> dict[str, Any]:
    watched = _Arms(embodiment, motion)
    bare = _Arms(replace(embodiment, collision=None), motion)
    for tick in range(SETTLING + MEASURED):
        # Alternately, so that both meet the same load of the machine.
        watched.step(tick)
        bare.step(tick)
    collision = watched.mux.collision
    assert collision is not None
    times = {key: 1e3 * np.array(arms.seconds[SETTLING:])
             for key, arms in (('with', watched), ('without', bare))}
    report = watched.mux.report(watched.now_ns / NANOSECONDS)
    cost = float(times['with'].mean() - times['without'].mean())
    return {
        'embodiment': embodiment.name, 'motion': motion, 'pairs': len(collision.bodies),
        'tick_ms': float(times['with'].mean()), 'tick_ms_p99': float(
            np.percentile(times['with'], 99)),
        'tick_ms_without': float(times['without'].mean()), 'collision_ms': cost,
        'core_share': cost * 1e-3 * RATE, 'blocked_ticks': report.blocked_ticks['collision'],
        'nearest_distance_m': None if report.nearest is None else report.nearest.distance}


class _Arms:
    """A mux, arms that follow it at once, and a leader arm in motion."""

    def __init__(self, embodiment: Embodiment, motion: str) -> None:
        self.mux = Mux(
            embodiment, MuxSettings(teleop_approach_speed=1.0, teleop_max_distance=math.inf),
            PERIOD_NS, {joint: LeaderJoint(joint, 1.0, 0.0, 1) for joint in embodiment.joints})
        self.now_ns = BEGIN_NS
        self.seconds: list[float] = []
        self._robot, self._motion = embodiment, motion
        self._q, self._v = embodiment.home.copy(), np.zeros(len(embodiment.joints))
        self._is_arm = np.isin(
            embodiment.joints, [joint for arm in embodiment.arms for joint in arm.joints])

    def step(self, tick: int) -> None:
        robot, now_s = self._robot, self.now_ns / NANOSECONDS
        self.mux.take_joint_state(
            robot.joints, self._q.tolist(), self._v.tolist(), self.now_ns, self.now_ns, now_s)
        self.mux.take_leader_state(
            robot.joints, self._leader(tick / RATE).tolist(), self.now_ns, self.now_ns, now_s)
        if tick == 5:  # some joint states have come
            success, message = self.mux.set_mode(MuxMode.TELEOP, self.now_ns, now_s)
            if not success:
                raise ValueError(message)
        begin = time.thread_time()
        sent = self.mux.tick(self.now_ns, now_s)
        self.seconds.append(time.thread_time() - begin)
        if sent.executed:
            self._q, self._v = sent.executed[-1][1:]
        self.now_ns += PERIOD_NS

    def _leader(self, seconds: float) -> np.ndarray:
        robot = self._robot
        q = robot.home.copy()
        if self._motion == MOTIONS[3]:
            for arm, turn in zip(robot.arms, (-MEETING, MEETING), strict=False):
                q[robot.joints.index(arm.joints[0])] += turn * min(seconds, 1.0)
        elif self._motion != MOTIONS[0]:
            speed = SPEED if self._motion == MOTIONS[1] else robot.limits.velocity
            q = q + self._is_arm * AMPLITUDE * np.sin(speed / AMPLITUDE * seconds)
        return np.clip(q, robot.limits.lower, robot.limits.upper)
