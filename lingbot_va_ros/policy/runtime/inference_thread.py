"""The inference thread: it owns the engine, answers requests between denoising steps, and runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
import dataclasses
import os
import threading
import traceback
from typing import TYPE_CHECKING

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.policy.errors import PredictionAborted
from lingbot_va_ros.policy.runtime.active_chunk import PublishedChunk
from lingbot_va_ros.policy.runtime.requests import Requests
from lingbot_va_ros.policy.runtime.robot_interface import World
from lingbot_va_ros.policy.runtime.scheduler import Schedule
from lingbot_va_ros.policy.runtime.status import Progress
from lingbot_va_ros.policy.runtime.task import Task

if TYPE_CHECKING:  # torch is imported when a checkpoint is loaded, not when a node starts
    from lingbot_va_ros.policy.inference.engine import Engine

INFERENCE_NICENESS = 5


class Worker:
    """
    The inference thread and what other threads may ask of it.

    Every method may be called from any thread; what touches the engine is done by the inference
    thread (`Schedule`) and answered through a future. A request stops a running prediction at its
    next denoising step, and an aborted prediction changes nothing.

    :param slot: where plans go.
    :param on_change, on_chunk, on_imagined: see `Schedule`.
    :param on_fault: called with a traceback when the policy cannot go on.
    """

    def __init__(
        self, slot: PlanSlot, on_change: Callable[[], None],
        on_chunk: Callable[[PublishedChunk], None],
        on_imagined: Callable[[np.ndarray, int], None], on_fault: Callable[[str], None],
    ):
        self.slot = slot
        self.starved_ticks = 0
        self._requests = Requests()
        self._schedule = Schedule(slot, self._requests, on_change, on_chunk, on_imagined)
        self._on_fault = on_fault
        self._closing = False
        self._thread = threading.Thread(target=self._run, name='inference', daemon=True)
        self._thread.start()

    @property
    def thread_id(self) -> int:
        """The system's number of the inference thread."""
        return self._thread.native_id

    @property
    def progress(self) -> Progress:
        """What is being done."""
        return dataclasses.replace(
            self._schedule.progress, starved_ticks=self.starved_ticks)

    def load(self, make_engine: Callable[[], Engine], max_snapshots: int = 0) -> Future:
        """Make the engine; the future carries what `make_engine` raises."""
        def work() -> None:
            self._schedule.load(make_engine(), max_snapshots)
            self.starved_ticks = 0
        return self._requests.ask(work)

    def unload(self) -> Future:
        """Release the engine and what it holds on the device."""
        return self._requests.ask(self._schedule.unload)

    def start(self, world: World, instruction: str) -> Future:
        """Begin to work; with an empty instruction it waits for one."""
        return self._requests.ask(lambda: self._schedule.start(world, instruction))

    def stop(self, reason: str) -> Future:
        """Stop working; what is complete of the running chunk is remembered."""
        return self._requests.ask(lambda: self._schedule.stop(reason))

    def reset(self, instruction: str = '') -> Future:
        """
        Begin a new epoch at once and forget the episode; the future gives the forgotten frames.

        :param instruction: the next task; empty keeps it.
        """
        return self._requests.ask(
            lambda: self._schedule.reset(instruction), first=self._begin_epoch)

    def set_instruction(self, instruction: str) -> Future:
        """Change the task without forgetting."""
        return self._requests.ask(lambda: self._schedule.set_instruction(instruction))

    def set_sampling(self, video, action, imagine_steps: int) -> Future:
        """Change steps and guidance; the future carries a ValueError where it cannot be."""
        return self._requests.ask(
            lambda: self._schedule.set_sampling(video, action, imagine_steps))

    def save(self, name: str) -> Future:
        """Keep a snapshot; the future gives its frames, or a ValueError. No prediction stops."""
        return self._requests.ask(lambda: self._schedule.save(name), gentle=True)

    def restore(self, name: str) -> Future:
        """Go back to a snapshot in a new epoch; the future gives its frames, or a ValueError."""
        return self._requests.ask(lambda: self._schedule.restore(name))

    def begin_task(self, task: Task) -> Future:
        """Work on a task; how it ends is in `task.result`."""
        return self._requests.ask(
            lambda: self._schedule.begin_task(task),
            first=(lambda: None) if task.keep_memory else self._begin_epoch)

    def cancel_task(self, task: Task) -> Future:
        """End a task, if it has not ended."""
        return self._requests.ask(lambda: self._schedule.cancel_task(task))

    def look(self) -> None:
        """Look now instead of a little later: the cameras reach further, or the mode is new."""
        self._requests.wake()

    def count_tick(self, plan: Plan, now_ns: int) -> None:
        """Count a control tick whose plan had ended although the motion was to go on."""
        if self._schedule.flowing and now_ns > plan.end_ns:
            self.starved_ticks += 1

    def close(self, timeout: float) -> bool:
        """End the thread; returns whether it has ended within `timeout` seconds."""
        self._closing = True
        self._requests.ask(lambda: None)  # wakes it, also from a prediction
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _begin_epoch(self) -> None:
        self.slot.stop(new_epoch=True)

    def _run(self) -> None:
        _step_back()
        schedule = self._schedule
        while not self._closing:
            if self._requests.serve():
                schedule.forgive()
            if not schedule.active:
                self._requests.wait(0.5)
                continue
            try:
                schedule.advance()
            except PredictionAborted:
                continue
            except Exception:  # whatever it is, the arm must stop and the node must say so
                trace = traceback.format_exc()
                schedule.fail(trace.strip().splitlines()[-1])
                self._on_fault(trace)


def _step_back() -> None:
    """Let the control thread go first where both want a core (Linux: niceness is per thread)."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), INFERENCE_NICENESS)
    except (AttributeError, OSError):
        pass
