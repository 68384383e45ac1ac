"""The stream of commands: each is a gated point and a braking tail, the next one goes on there."""

from typing import Optional

import numpy as np

from lingbot_va_ros.policy.plan import Plan, resting_at
from lingbot_va_ros.robot.embodiment import JointLimits
from lingbot_va_ros.robot.gate import CommandFilter


class CommandStream:
    """
    Commands on a grid of ticks, each continuing the motion that the one before it described.

    The state at a tick is always read from the last command: when ticks were missed, the
    controller has gone on along the braking tail, and so does the stream.

    :param period_ns: from tick to tick.
    """

    def __init__(self, limits: JointLimits, period_ns: int):
        self.period_ns = period_ns
        self._filter = CommandFilter(limits, period_ns * 1e-9)
        self._sent: Optional[Plan] = None
        self._reported_ns = 0

    @property
    def started(self) -> bool:
        """Whether a command was ever sent."""
        return self._sent is not None

    def last_position(self) -> Optional[np.ndarray]:
        """Return where the last command leads in the end, [J], or None before any."""
        return None if self._sent is None else self._sent.positions[-1]

    def moving(self, time_ns: int) -> bool:
        """Return whether the last command still moves the arm at a time."""
        if self._sent is None:
            return False
        in_speed = bool(np.any(self._sent.velocities[-1]))  # Only as `begin` left it.
        return time_ns < self._sent.end_ns + in_speed

    def state(self, time_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return commanded positions and velocities [J] at a time."""
        return self._sent.sample(time_ns)

    def begin(self, time_ns: int, q: np.ndarray, v: np.ndarray) -> None:
        """Start anew from a state: what was sent before counts no longer."""
        self._sent = resting_at(time_ns, q, v)
        self._reported_ns = time_ns

    def follow(self, time_ns: int, q_desired: np.ndarray, v_desired: np.ndarray) -> Plan:
        """
        Return the command of this tick towards the desired state of the next tick.

        The plan's first knot is the state now (not to be sent), the second is due one period
        later, the rest is the braking tail.
        """
        q, v = self.state(time_ns)
        return self._send(time_ns, q, v, *self._filter.step(q, v, q_desired, v_desired))

    def stop(self, time_ns: int) -> Plan:
        """Return the command that stops from the state now."""
        q, v = self.state(time_ns)
        return self._send(time_ns, q, v)

    def _send(self, time_ns, q, v, q_next=None, v_next=None) -> Plan:
        times, positions, velocities = [time_ns], [q], [v]
        if q_next is not None:
            times.append(time_ns + self.period_ns)
            positions.append(q_next)
            velocities.append(v_next)
        ticks, tail, tail_velocities = self._filter.braking_tail(positions[-1], velocities[-1])
        times += [times[-1] + int(tick) * self.period_ns for tick in ticks]
        positions += list(tail)
        velocities += list(tail_velocities)
        if len(times) == 1:
            times.append(time_ns + self.period_ns)
            positions.append(q)
            velocities.append(v)
        self._sent = Plan(
            np.array(times, dtype=np.int64), np.array(positions), np.array(velocities))
        return self._sent

    def executed(self, until_ns: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """
        Return (due time, positions, velocities) of the ticks up to `until_ns` not returned yet.

        Ends with the tick at which the last command comes to rest.
        """
        points = []
        if self._sent is None:
            return points
        end_ns = min(until_ns, self._sent.end_ns)
        while self._reported_ns + self.period_ns <= end_ns:
            self._reported_ns += self.period_ns
            points.append((self._reported_ns, *self._sent.sample(self._reported_ns)))
        return points
