"""What one run of the demo left behind, and the figures that are read from it; no ROS here."""

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Sequence, Tuple

import numpy as np


@dataclass(frozen=True)
class Motion:
    """Joint positions over time: `times` [n] s, `positions` [n, J] rad (m for prismatic)."""

    times: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True)
class ChunkFigures:
    """One action chunk: when its actions are due (s), how long it was thought about (s)."""

    chunk_id: int
    start: float
    end: float
    inference_seconds: float


@dataclass(frozen=True)
class Picture:
    """A picture, RGB uint8 [H, W, 3], of the time (s) that it shows or foretells."""

    time: float
    image: np.ndarray


@dataclass(frozen=True)
class Episode:
    """
    One recorded episode; all times are seconds of ROS time since the recording began.

    :param start: when the policy was given the arm; `end`: when it was taken back.
    :param published: [n] stamps of the trajectories that the policy published.
    :param control_period: the nominal time between two of them.
    :param task_state: what the simulator said last about the task.
    :param holds: why the arm was held in between, once for each time.
    :param stopped_by: why the episode ended early, or empty.
    """

    joints: Tuple[str, ...]
    start: float
    end: float
    commanded: Motion
    measured: Motion
    chunks: Tuple[ChunkFigures, ...]
    cameras: Mapping[str, Sequence[Picture]]
    imagined: Sequence[Picture]
    published: np.ndarray
    control_period: float
    starved_ticks: int
    task_state: Mapping[str, Any]
    holds: Tuple[str, ...] = ()
    stopped_by: str = ''


def jitter_ms(stamps: np.ndarray, period: float) -> np.ndarray:
    """
    Return how far each interval between two stamps is off the period, [n - 1], milliseconds >= 0.

    :param stamps: [n] seconds, in the order of publication; `period` in seconds.
    """
    return np.abs(np.diff(stamps) - period) * 1e3


def percentile(values: Sequence[float], share: float):
    """Return a percentile (linear between neighbours) as a float; None of no values."""
    return float(np.percentile(values, share)) if len(values) else None


def publish_jitter_ms(episode: Episode) -> np.ndarray:
    """Return the jitter of the trajectories that were published while the policy had the arm."""
    stamps = episode.published
    during = (stamps >= episode.start) & (stamps <= episode.end)
    return jitter_ms(stamps[during], episode.control_period)


def tracking_error(episode: Episode) -> np.ndarray:
    """
    Return how far each measured position is off the command due then, [n, J], rad or m.

    Commands are interpolated to the stamps of the measurements; only those during the episode.
    """
    times = episode.measured.times
    known = episode.commanded.times
    if not len(known):
        return np.empty((0, len(episode.joints)))
    during = (times >= max(episode.start, known[0])) & (times <= min(episode.end, known[-1]))
    commanded = np.stack([
        np.interp(times[during], known, column) for column in episode.commanded.positions.T], 1)
    return np.abs(episode.measured.positions[during] - commanded)


def _largest_range(episode: Episode):
    """Return the distance between the extremes of the joint that was moved most, rad or m."""
    positions = episode.commanded.positions
    return float(np.ptp(positions, axis=0).max()) if positions.size else None


def outcome(episode: Episode) -> Tuple[bool, str]:
    """Return whether the simulator says that the task succeeded, and what there is to say."""
    state = episode.task_state
    success = bool(state.get('success', False))
    if not state:
        detail = 'the simulator said nothing about the task'
    elif not state.get('counts'):
        detail = f'the scene {state.get("task")} has no goal: there is nothing to succeed at'
    else:
        detail = ', '.join(f'{name}: {count}' for name, count in state['counts'].items())
    if episode.stopped_by:
        detail = f'ended early: {episode.stopped_by}; {detail}'
    return success, detail


def summarise(episode: Episode, checkpoint: str, trained: bool) -> Dict[str, Any]:
    """Return what summary.json holds; seconds, jitter in milliseconds, null where unknown."""
    success, detail = outcome(episode)
    latencies = [chunk.inference_seconds for chunk in episode.chunks]
    jitter = publish_jitter_ms(episode)
    error = tracking_error(episode)
    return {
        'episodes': [{
            'task': episode.task_state.get('task', ''), 'success': success, 'detail': detail,
            'chunks': len(episode.chunks), 'seconds': round(episode.end - episode.start, 3)}],
        'inference_p50': percentile(latencies, 50),
        'inference_p95': percentile(latencies, 95),
        'publish_jitter_ms': {'p50': percentile(jitter, 50), 'p99': percentile(jitter, 99)},
        'publish_jitter_is': 'distance of the interval between two header stamps of the '
                             "policy's joint_trajectory from the control period",
        'control_period': episode.control_period,
        'starved_ticks': episode.starved_ticks,
        'holds': list(episode.holds),
        'commanded_range': _largest_range(episode),
        'max_tracking_error': float(error.max()) if error.size else None,
        'checkpoint': checkpoint,
        'trained': trained,
    }
