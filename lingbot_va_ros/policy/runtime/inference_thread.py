"""The inference thread: it owns the engine, serves requests, and runs the scheduler."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
import os
import threading
import traceback
from typing import TypeVar

from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.policy.errors import PredictionAborted
from lingbot_va_ros.policy.runtime.clock import Clock
from lingbot_va_ros.policy.runtime.events import PolicyEvents
from lingbot_va_ros.policy.runtime.requests import RequestQueue
from lingbot_va_ros.policy.runtime.scheduler import Scheduler
from lingbot_va_ros.policy.runtime.status import RuntimeStatus
from lingbot_va_ros.policy.runtime.task import Task

INFERENCE_NICENESS = 5
IDLE_SECONDS = 0.5  # the longest wait of an inactive policy; a request ends it

T = TypeVar('T')


class InferenceThread:
    """
    The thread of the scheduler, and the queue through which other threads ask it for work.

    Every method may be called from any thread. A request stops a running prediction at its next
    forward, and an aborted prediction changes nothing.

    :param slot: the plan that the control thread publishes.
    :param events: told of everything that happens, by the inference thread.
    """

    def __init__(self, slot: PlanSlot, clock: Clock, events: PolicyEvents):
        self._slot = slot
        self._clock = clock
        self._events = events
        self._requests = RequestQueue(clock)
        self._scheduler = Scheduler(slot, clock, events, self._requests, _in_thread)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name='inference', daemon=True)
        self._thread.start()

    @property
    def native_id(self) -> int | None:
        """The operating system's number of the thread."""
        return self._thread.native_id

    @property
    def status(self) -> RuntimeStatus:
        """The mode of the policy and its figures."""
        return self._scheduler.status

    @property
    def continuous(self) -> bool:
        """Whether the arm is meant to go on from chunk to chunk without a stop."""
        return self._scheduler.continuous

    def ask(
        self, work: Callable[[Scheduler], T], interrupts: bool = True, new_epoch: bool = False,
    ) -> Future[T]:
        """
        Have the inference thread do some work between two steps.

        :param work: called with the scheduler; the future carries what it returns or raises.
        :param interrupts: whether a running prediction stops for it; if not, the work is done
            between two forwards, and the prediction goes on.
        :param new_epoch: begin a new epoch at once: the plan becomes a stop, and no chunk that was
            predicted before can replace it.
        """
        def begin_epoch() -> None:
            if new_epoch:
                self._slot.stop(new_epoch=True)
        return self._requests.ask(lambda: work(self._scheduler), interrupts, begin_epoch)

    def reset(self, instruction: str = '') -> Future[int]:
        """
        Begin a new epoch at once and forget the episode; the future gives the forgotten frames.

        :param instruction: the next task; an empty one keeps the present one.
        """
        return self.ask(lambda scheduler: scheduler.reset(instruction), new_epoch=True)

    def restart_time(self, step_ns: int) -> Future[None]:
        """
        Forget the plan and the chunks on their way: the clock has stepped.

        Where it went back, the episode is forgotten too: what it remembers has stamps of the
        future.
        """
        new_epoch = step_ns < 0

        def restart(scheduler: Scheduler) -> None:
            scheduler.restart_time(step_ns)
            if new_epoch:
                scheduler.reset('')

        self._slot.clear()
        return self.ask(restart, new_epoch=new_epoch)

    def begin_task(self, task: Task) -> Future[None]:
        """Work on a task, in a new epoch unless it keeps the memory; see `Task.result`."""
        return self.ask(
            lambda scheduler: scheduler.begin_task(task), new_epoch=not task.keep_memory)

    def wake(self) -> None:
        """End a wait: the cameras reach further, or the control mode is another."""
        self._clock.wake()

    def close(self, timeout: float) -> bool:
        """End the thread; return whether it has ended within `timeout` seconds."""
        self._closing = True
        self._requests.ask(lambda: None)  # wakes it, also from a prediction
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        _lower_priority()
        scheduler = self._scheduler
        while not self._closing:
            if self._requests.serve():
                scheduler.allow_retry()
            if not scheduler.active:
                if not scheduler.encode_waiting():
                    self._clock.wait(IDLE_SECONDS)
                continue
            try:
                scheduler.advance()
            except PredictionAborted:
                continue
            except Exception:  # any exception must stop the arm and be reported
                trace = traceback.format_exc()
                scheduler.fail(trace.strip().splitlines()[-1])
                self._events.fault(trace)


def _in_thread(work: Callable[[], None]) -> Future[None]:
    """Have work done in a thread of its own, which inherits the niceness of this one."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            work()
            future.set_result(None)
        except BaseException as error:  # raised where the result is read
            future.set_exception(error)

    threading.Thread(target=run, name='text encoding', daemon=True).start()
    return future


def _lower_priority() -> None:
    """Let the control thread go first where both want a core (Linux: niceness is per thread)."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), INFERENCE_NICENESS)
    except (AttributeError, OSError):
        pass
