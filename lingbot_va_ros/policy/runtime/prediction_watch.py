"""Interrupts a prediction where a request, a person or a lost robot comes first."""

from collections.abc import Callable

from lingbot_va_ros.policy.errors import PredictionAborted
from lingbot_va_ros.policy.runtime.active_episode import ActiveEpisode
from lingbot_va_ros.policy.runtime.assignment import Assignment
from lingbot_va_ros.policy.runtime.requests import RequestQueue
from lingbot_va_ros.policy.runtime.takeover_recorder import TakeoverRecorder


class PredictionWatch:
    """
    Looks after the arm and the requests before each forward of a prediction; an `Interrupt`.

    :param on_begun: called when the chunk behind the running one has begun.
    """

    def __init__(
        self, episode: ActiveEpisode, recorder: TakeoverRecorder, requests: RequestQueue,
        assignment: Assignment, on_begun: Callable[[], None],
    ) -> None:
        self._episode = episode
        self._recorder = recorder
        self._requests = requests
        self._assignment = assignment
        self._on_begun = on_begun

    def check(self) -> None:
        """
        Serve requests that do not interrupt, and collect the images of the running chunk.

        :raises PredictionAborted: something else comes first.
        """
        self._requests.serve(up_to_interrupting=True)
        if self._requests.waiting or self._recorder.has_unseen_takeover():
            raise PredictionAborted
        robot, running = self._episode.robot, self._episode.running
        if running is not None:  # the arm moves meanwhile
            if self._episode.poll():
                self._on_begun()
            if running.fault or robot.not_ready_reason() or robot.control.not_owner_reason():
                raise PredictionAborted
        if self._assignment.update(robot.ros_ns(), robot.control.not_owner_reason()):
            raise PredictionAborted
