"""A scripted robot interface for tests: clock, maps, owner, measured joints, events."""

from types import SimpleNamespace

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.policy.errors import PredictionAborted
from lingbot_va_ros.policy.runtime.robot_interface import LiveSettings, RobotInterface


class PlayedClock:
    """
    Simulated time: waiting passes the time of a stage, which has `now` in nanoseconds.

    A stage that sets its clock keeps in `set_by` by how much, for the steady clock.
    """

    def __init__(self, stage):
        self._stage = stage

    def now_ns(self):
        return self._stage.now

    def steady(self):
        return (self._stage.now - getattr(self._stage, 'set_by', 0)) / NANOSECONDS

    def wait(self, seconds):
        self._stage.pass_time(seconds)

    def wake(self):
        pass


class PlainActionMap:
    """Actions that are joint positions; single functions can be replaced."""

    def __init__(self, **functions):
        self.begin = lambda joints: None
        self.to_joints = lambda actions, start: actions
        self.from_joints = lambda joints, before: joints
        self.state = lambda: None
        self.restore = lambda state: None
        vars(self).update(functions)


class RecordedEvents:
    """Keeps the events of a policy's run time."""

    def __init__(self, clock):
        self._clock = clock
        self.statuses, self.modes, self.faults = [], [], []
        self.chunks, self.chunk_times = [], []

    def status_changed(self, status):
        self.statuses.append(status)
        self.modes.append(status.mode)

    def chunk_begun(self, chunk):
        self.chunk_times.append(self._clock.now_ns())
        self.chunks.append(chunk)

    def frame_imagined(self, picture, due_ns):
        pass

    def fault(self, trace):
        self.faults.append(trace)


def scripted_robot(
    clock, stage, limits, measured, action_map=None, to_rgb=lambda camera, image: image,
    executed='log', **live,
):
    """
    Return the interface to a robot that a stage plays.

    :param stage: has `buffer`, `executed`, `not_ready` (a line or None), and `control`
        with the methods of ControlOwner.
    :param measured: returns the joint positions [J].
    :param executed: None leaves the log of executed commands out.
    :param live: fields of LiveSettings, or functions that return them.
    """
    def settings():
        return LiveSettings(**{
            name: value() if callable(value) else value for name, value in live.items()})

    return RobotInterface(
        clock=clock, cameras=stage.buffer,
        executed=None if executed is None else stage.executed,
        joints=SimpleNamespace(positions=measured),
        action_map=action_map or PlainActionMap(), limits=limits, control=stage.control,
        to_rgb=to_rgb, not_ready_reason=lambda: stage.not_ready, live=settings)


def run_until(stage, condition, within_ns):
    """
    Let the scheduler of a stage work, as the inference thread does, until a condition holds.

    :param stage: has `scheduler`, `requests` and `now` in nanoseconds.
    :raises AssertionError: it does not hold within so much simulated time.
    """
    end = stage.now + within_ns
    while not condition():
        assert stage.now < end, f'not within {within_ns / NANOSECONDS} s'
        if stage.requests.serve():
            stage.scheduler.allow_retry()
        try:
            stage.scheduler.advance()
        except PredictionAborted:
            pass
