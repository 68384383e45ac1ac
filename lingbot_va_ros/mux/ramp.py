"""Ramps: motions onto a goal, which may move, inside velocity, acceleration, jerk limits."""

import numpy as np
import ruckig

from lingbot_va_ros.specs.embodiment import JointLimits

# A goal is caught when position (rad, m) and velocity (share of the limit) are this near.
CAUGHT_POSITION = 1e-4
CAUGHT_SPEED = 0.003
# A goal that moves at the limit could never be caught: it counts as no faster than this share.
GOAL_SHARE = 0.95
# A state this near to the result of the last step is unchanged: the limit filter did not brake.
UNCHANGED = 1e-9


class Ramp:
    """
    Leads all joints [J] onto a goal, tick by tick, each as fast as its limits allow (ruckig).

    A goal with a velocity is approached in the frame that moves with it. Between two ticks the
    acceleration is constant, as in mux/limit_filter.py; from one tick to the next it changes by
    no more than jerk times period. The limit filter keeps the position limits.

    :param period: seconds from tick to tick.
    """

    def __init__(self, limits: JointLimits, period: float) -> None:
        self.limits = limits
        self.period = float(period)
        # Share of the velocity and acceleration limits, 0 … 1; may change at any tick.
        self.share = 1.0
        # Further share of the velocity limits alone.
        self.speed = 1.0
        self.caught = False
        count = len(limits.lower)
        self._generator = ruckig.Ruckig(count, self.period)
        self._input = ruckig.InputParameter(count)
        self._output = ruckig.OutputParameter(count)
        self._input.synchronization = ruckig.Synchronization.No
        self._input.max_jerk = limits.jerk
        for name in ('position', 'velocity', 'acceleration'):
            setattr(self._input, f'target_{name}', np.zeros(count))
        self._acceleration = np.zeros(count)
        self._led_to: tuple[np.ndarray, np.ndarray] | None = None

    def begin(self, acceleration: np.ndarray) -> None:
        """Begin a ramp; the joints have this acceleration [J] now."""
        self._acceleration = np.clip(
            acceleration, -self.limits.acceleration, self.limits.acceleration)
        self._led_to = None
        self.caught = False

    def step(
        self, q: np.ndarray, v: np.ndarray, q_goal: np.ndarray, v_goal: np.ndarray,
        a_goal: np.ndarray | float = 0.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Return (q', v') [J] one tick later.

        :param q, v: the present state; where it differs from what the last step returned, the
            limit filter has braked, and the ramp goes on from there.
        :param q_goal, v_goal: where the goal will be one tick later, and its velocity.
        :param a_goal: the acceleration of the goal.
        """
        velocity = self.share * self.speed * self.limits.velocity
        acceleration = self.share * self.limits.acceleration
        q_goal = np.clip(q_goal, self.limits.lower, self.limits.upper)
        v_frame = np.clip(v_goal, -GOAL_SHARE * velocity, GOAL_SHARE * velocity)
        a_frame = np.clip(a_goal, -GOAL_SHARE * acceleration, GOAL_SHARE * acceleration)
        if self._led_to is not None:
            changed = np.abs(q - self._led_to[0]) + np.abs(v - self._led_to[1]) > UNCHANGED
            # The limit filter braked there; from its acceleration the joint would bounce back.
            self._acceleration = np.where(changed, 0.0, self._acceleration)
        v_now = v_frame - a_frame * self.period
        q_now = q_goal - (v_frame + v_now) / 2 * self.period
        given = self._input
        given.current_position = q - q_now
        given.current_velocity = v - v_now
        given.current_acceleration = self._acceleration - a_frame
        # Of both ends of the tick, so that neither leads beyond the limits.
        given.max_velocity = velocity - np.maximum(v_now, v_frame)
        given.min_velocity = -velocity - np.minimum(v_now, v_frame)
        given.max_acceleration = acceleration - a_frame
        given.min_acceleration = -acceleration - a_frame
        try:
            result = self._generator.update(given, self._output)
        except ruckig.RuckigError:
            result = ruckig.Result.Error
        if result not in (ruckig.Result.Working, ruckig.Result.Finished):
            # Not expected; the limit filter alone keeps the velocity and acceleration limits.
            self._led_to, self._acceleration = None, np.zeros_like(q)
            self.caught = False
            return q_goal, v_frame
        v_next = np.array(self._output.new_velocity) + v_frame
        q_next = q + (v + v_next) / 2 * self.period
        self._acceleration = np.array(self._output.new_acceleration) + a_frame
        self._led_to = (q_next, v_next)
        self.caught = bool(
            np.all(np.abs(q_next - q_goal) <= CAUGHT_POSITION)
            and np.all(np.abs(v_next - v_goal) <= CAUGHT_SPEED * self.limits.velocity))
        return q_next, v_next

    def stop(
        self, q: np.ndarray, v: np.ndarray, acceleration: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Return positions and velocities [n, J] at the ticks of a stop, the last velocities 0.

        It keeps velocity, acceleration and jerk limits, and is therefore longer than the braking
        tail of mux/limit_filter.py. It may leave the position limits: the caller checks them.

        :raises ValueError: ruckig finds none.
        """
        count = len(q)
        given = ruckig.InputParameter(count)
        given.control_interface = ruckig.ControlInterface.Velocity
        given.synchronization = ruckig.Synchronization.No
        given.current_position, given.current_velocity = q, v
        given.current_acceleration = np.clip(
            acceleration, -self.limits.acceleration, self.limits.acceleration)
        given.target_velocity = given.target_acceleration = np.zeros(count)
        given.max_acceleration, given.max_jerk = self.limits.acceleration, self.limits.jerk
        trajectory = ruckig.Trajectory(count)
        try:
            result = ruckig.Ruckig(count).calculate(given, trajectory)
        except ruckig.RuckigError as error:
            raise ValueError(str(error)) from None
        if result not in (ruckig.Result.Working, ruckig.Result.Finished):
            raise ValueError(f'ruckig: {result}')
        ticks = max(1, int(np.ceil(trajectory.duration / self.period - 1e-9)))
        velocities = np.array([
            trajectory.at_time(tick * self.period)[1] for tick in range(1, ticks + 1)])
        velocities[-1] = 0.0
        before = np.vstack((v, velocities[:-1]))
        return q + np.cumsum((before + velocities) / 2 * self.period, axis=0), velocities
