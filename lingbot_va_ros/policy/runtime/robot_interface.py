"""What a policy sees of the robot, and the choices that it works under."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lingbot_va_ros.policy.runtime.camera_buffer import Observations
from lingbot_va_ros.policy.runtime.executed_log import ExecutedLog


@dataclass(frozen=True)
class World:
    """
    What the schedule sees of the robot while the policy is active.

    :param clock: ROS time in nanoseconds.
    :param executed: what was really sent; None where the plan itself stands for it.
    :param to_rgb: converts a camera's picked image (as it came) to RGB uint8 [H, W, 3]; may raise
        CameraFault.
    :param to_joints: actions [n, used] and the joint positions [J] that they start from, to joint
        positions [n, J]; may raise NotExecutable. `from_joints` is its inverse.
    :param begin: told the joint positions [J] where an episode begins.
    :param obstacle: why the policy cannot work now (one line), or None.
    :param elsewhere: who else has the arm (one line), or None where the policy's plan moves it.
    :param person_since: ROS time in nanoseconds since when a person has the arm, or None.
    :param elsewhere_since: ROS time since when it is with whom `elsewhere` says.
    :param takeover_memory: `keep` what a person does, or `forget` everything when one takes over.
    :param measured: joint positions [J], or None before they are all known.
    :param start_tolerance: how far, [J], the arm may be from the plan before it counts as moved.
    :param poses: what the action map keeps of the episode; `restore_poses` puts it back.
    :param schedule: `sync`, `async` or `async_ungrounded`.
    :param reaction: seconds from a plan's swap until whoever executes it has heard of it.
    :param padded_latency: seconds that a prediction takes at least (for measurements).
    :param last_chunk_only: remember the last chunk alone (the ablation `last_chunk`).
    """

    clock: Callable[[], int]
    observations: Observations
    executed: ExecutedLog | None
    to_rgb: Callable[[str, Any], np.ndarray]
    to_joints: Callable[[np.ndarray, np.ndarray], np.ndarray]
    from_joints: Callable[[np.ndarray, np.ndarray], np.ndarray]
    begin: Callable[[np.ndarray], None]
    obstacle: Callable[[], str | None]
    elsewhere: Callable[[], str | None]
    measured: Callable[[], np.ndarray | None]
    max_velocity: np.ndarray
    start_tolerance: np.ndarray
    max_camera_skew: Callable[[], float]
    wants_imagined: Callable[[], bool]
    poses: Callable[[], Any] = lambda: None
    restore_poses: Callable[[Any], None] = lambda poses: None
    schedule: str = 'sync'
    reaction: float = 0.05
    padded_latency: Callable[[], float] = lambda: 0.0
    last_chunk_only: bool = False
    person_since: Callable[[], int | None] = lambda: None
    elsewhere_since: Callable[[], int] = lambda: 0
    takeover_memory: Callable[[], str] = lambda: 'keep'
