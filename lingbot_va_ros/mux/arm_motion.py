"""The motion of the arm: where it starts, the command of each tick, and how it stops."""

import functools

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.mux.approach import Approach
from lingbot_va_ros.mux.arm_watch import ArmWatch
from lingbot_va_ros.mux.collision_watch import TooNear
from lingbot_va_ros.mux.command_source import CommandSource
from lingbot_va_ros.mux.command_sources import CommandSources
from lingbot_va_ros.mux.command_stream import CommandStream
from lingbot_va_ros.mux.goal import Goal
from lingbot_va_ros.mux.home_motion import HomeMotion
from lingbot_va_ros.mux.modes import ModeStateMachine
from lingbot_va_ros.mux.proximity import Proximity
from lingbot_va_ros.mux.report import Row
from lingbot_va_ros.mux.row_stream import RowStream
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.mux.speed_scale import PROXIMITY, SpeedScale
from lingbot_va_ros.mux.start_state import GRIPPER_REST_SECONDS, StartState
from lingbot_va_ros.mux.state_watch import Watches
from lingbot_va_ros.robot.collision import Near
from lingbot_va_ros.robot.joint_state_filter import JointStateFilter
from lingbot_va_ros.specs.controllers import longest_goal_period
from lingbot_va_ros.specs.embodiment import Embodiment


class ArmMotion:
    """
    Gives one command a tick: of the selected source, of the way home, or a stop.

    The mode machine says what moves the arm and when it has to stop; the mux holds its lock.

    :param is_gripper: [J] bool.
    :param watch: learns of commands that begin anew.
    :param period_ns: from tick to tick.
    :param watches: tell where no command may lead.
    """

    def __init__(
        self, embodiment: Embodiment, settings: MuxSettings, machine: ModeStateMachine,
        joints: JointStateFilter, sources: CommandSources, speed: SpeedScale,
        is_gripper: np.ndarray, watch: ArmWatch, period_ns: int,
        watches: Watches | None = None,
    ) -> None:
        limits, period = embodiment.limits, period_ns / NANOSECONDS
        self.stream = CommandStream(
            limits, period_ns, watches, settings.controller_delay,
            longest_goal_period(embodiment.controllers))
        self.rows = RowStream(embodiment, self.stream, period_ns)
        self.going_home = False
        self.begins_anew = False  # a motion was requested that the next tick begins
        self.was_motion = False  # whether the last tick's command was a motion's
        self._watches = watches
        collision = None if watches is None else watches.collision
        self._proximity = None if collision is None else Proximity(collision)
        self._limits = limits
        self._settings = settings
        self._machine = machine
        self._joints = joints
        self._sources = sources
        self._speed = speed
        self._is_gripper = is_gripper
        self._watch = watch
        self._period_ns = period_ns
        self._start = StartState(joints, limits, is_gripper, settings.start_tolerance, period)
        self._approach = Approach(limits, period, ~is_gripper)
        self._home = HomeMotion(
            embodiment.home, self.stream, limits, settings.home_speed, period)
        self._enforced = 1.0  # share of the velocity limits that holds in this tick
        # `machine.stop_requests` when a motion was requested, and when the last stop was sent.
        self._stops_before_motion = 0
        self._stops_sent = 0
        self._retreats = False  # whether the next stop leads back to where the arm is
        self._is_away = False  # whether the next motion begins where the arm is measured
        self._was_stop = False  # whether the last tick's command was a stop

    @property
    def source(self) -> CommandSource | None:
        """The source that moves the arm, or None."""
        return self._sources.selected if self._machine.mode.has_source else None

    def request(self) -> None:
        """Let the next tick begin a motion anew."""
        self.begins_anew = True
        self._watch.contact.begin()
        self._stops_before_motion = self._machine.stop_requests

    def expect_stop(self, can_retreat: bool, is_away: bool) -> None:
        """
        Say how the next stop and the motion after it begin.

        :param can_retreat: the stop leads back to where the arm is.
        :param is_away: the motion begins where the arm is measured.
        """
        self._retreats, self._is_away = can_retreat, is_away

    def expect_away(self) -> None:
        """Let the next motion begin where the arm is measured: its controller may be a new one."""
        self._is_away = True

    def position(self, now_ns: int, now_s: float) -> np.ndarray | None:
        """Return the positions [J] where a motion would start now, or None: unknown."""
        is_following = (
            self.source is not None and self.stream.started and not self.begins_anew)
        if is_following or self.stream.moving(now_ns):
            return self.stream.state(now_ns)[0]
        start = self._start_state(now_ns, now_s)
        return None if start is None else start[0]

    def way_home_breach(self, now_s: float) -> TooNear | None:
        """Return what is on the straight way home from where the arm comes to rest, or None."""
        start = self._start.choose(self.stream.last_position(), now_s, self._is_away)
        collision = None if self._watches is None else self._watches.collision
        if collision is None or start is None:
            return None
        way = np.stack((start[0], self._home.end))
        found = collision.first_outside(way, collision.excess(start[0]))
        return None if found is None else found[1]

    def nearest(self, now_s: float, count: int) -> list[Near]:
        """Return the nearest pairs of bodies where the arm is measured, the nearest first."""
        collision = None if self._watches is None else self._watches.collision
        if collision is None or not self._joints.is_fresh(now_s):
            return []
        return collision.nearest(self._joints.positions, count)

    def _start_state(
        self, now_ns: int, now_s: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Return positions and velocities [J] where a motion would start now; see StartState."""
        measured_ns = int(self._joints.times_ns.min())
        age = (now_ns - measured_ns) / NANOSECONDS if self.stream.moving(measured_ns) else None
        return self._start.choose(self.stream.last_position(), now_s, self._is_away, age)

    def command(self, tick_ns: int, now_s: float) -> Plan | None:
        """
        Return the command of a tick, or None: there is none to send.

        :raises ArithmeticError: there is no way towards the goal inside the limits, or the command
            would hold a number that is not finite.
        """
        self._was_stop = self._machine.stop_requests != self._stops_sent
        if self._was_stop:
            return self._stop(tick_ns, now_s)
        source = self.source
        if source is None and not self.going_home:
            return None
        if self.begins_anew:
            self._begin(tick_ns, now_s)
        if source is None:
            return self._step_home(tick_ns)
        return self.stream.follow(tick_ns, functools.partial(self._desired, source))

    def take_note(self, command: Plan | None, tick_ns: int, now_s: float) -> None:
        """Take note of the command that a tick sends, or of none."""
        if command is not None:
            self._start.command_sent()
        elif (self.stream.rested(tick_ns, GRIPPER_REST_SECONDS)
                and self._joints.is_fresh(now_s)):
            self._start.command_at_rest()
        self.was_motion = command is not None and not self._was_stop

    def limit_speed(self) -> None:
        """Keep to the speed scale of this tick; called once a tick."""
        seconds = self._period_ns / NANOSECONDS
        if self._proximity is not None and self.stream.started:
            self._speed.ask(PROXIMITY, self._proximity.update(self.stream.front(), seconds))
        self._enforced = self._speed.enforce(seconds)
        self.stream.limit_speed(self._speed.of_joints)
        for part in (self._approach, self._home):
            part.limit_speed(self._enforced)

    def last_stop(self, time_ns: int) -> Plan:
        """Return the stop with which the mux ends."""
        self._stops_sent = self._machine.stop_requests
        self.going_home = False
        return self.stream.stop(time_ns)

    def row(self, tick_ns: int, now_s: float, is_commanded: bool) -> Row | None:
        """Return the row of a tick, or None; see `RowStream.row`."""
        is_motion = self.source is not None or self.going_home
        lag = self._watch.lag(now_s) if is_motion else np.zeros(len(self._is_gripper))
        return self.rows.row(tick_ns, now_s, is_commanded, lag, self._speed.of_joints)

    def go_on(self, tick_ns: int, reached_ns: int) -> None:
        """Go on at a tick of a clock that jumped from where the command was to be at a time."""
        self.rows.forget()
        if self.stream.started:
            state = self.stream.state(reached_ns)
            self.stream.begin(tick_ns, *state, self.stream.acceleration(reached_ns))
            self._watch.begin(tick_ns - self._period_ns, state[0])

    def _desired(self, source: CommandSource, step_ns: int) -> tuple[Goal, float]:
        """Return the goal one period after a step's begin, and the share of the limits to it."""
        state = self.stream.state(step_ns)
        source.observe(*state)
        if source.begins_anew:
            source.begins_anew = False
            self._approach.begin(self._settings.teleop_approach_speed)
        goal = source.goal(step_ns, step_ns + self._period_ns, self._enforced)
        return self._approach.step(*state, goal, source.is_followed_exactly)

    def _stop(self, tick_ns: int, now_s: float) -> Plan | None:
        self._stops_sent = self._machine.stop_requests
        # A motion that was requested after the stop, between two ticks, begins at the next one.
        if self._stops_before_motion != self._machine.stop_requests:
            self.going_home = False
            self.begins_anew = False
        retreats, self._retreats = self._retreats, False
        last = self.stream.last_position()
        if self.was_motion and retreats and last is not None and self._joints.is_fresh(now_s):
            # A velocity driver presses on nothing, and would be driven back.
            keeps = self._is_gripper | self.rows.has_rate
            inside = np.clip(self._joints.positions, self._limits.lower, self._limits.upper)
            return self.stream.retreat(tick_ns, np.where(keeps, last, inside))
        # An arm that another program has set in motion is stopped as hard as the limits allow.
        gentle = self._machine.gentle and self.stream.moving(tick_ns)
        if not self.was_motion:
            self._begin_stream(tick_ns, now_s)
        return self.stream.stop(tick_ns, gentle) if self.stream.started else None

    def _begin(self, tick_ns: int, now_s: float) -> None:
        self.begins_anew = False
        self._begin_stream(tick_ns, now_s)
        source, start = self.source, self.stream.last_position()
        if source is None or start is None:
            self._home.begin()
            return
        source.begin(start)
        self._approach.begin(
            1.0 if source is self._sources.policy else self._settings.teleop_approach_speed)

    def _begin_stream(self, tick_ns: int, now_s: float) -> None:
        """Let the stream begin at the start state, where no command moves the arm."""
        if self.stream.moving(tick_ns):
            return
        start = self._start_state(tick_ns, now_s)
        if start is not None:
            self.stream.begin(tick_ns, *start)
            self._is_away = False
            self._watch.begin(tick_ns, start[0])

    def _step_home(self, tick_ns: int) -> Plan:
        command = self._home.step(tick_ns)
        if self.stream.blocked is not None:
            self._machine.abort_motion(
                f'go_home broken off: on its way is {self.stream.blocked}')
        elif self._home.is_at_home(tick_ns + self._period_ns):
            self.going_home = False
            self._machine.set_reason('at home')
        return command
