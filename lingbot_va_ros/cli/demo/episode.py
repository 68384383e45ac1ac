"""Recorded episodes of the demo, and the statistics computed from them; no ROS."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lingbot_va_ros.mux.modes import MuxMode

# s: the largest delay of a count, which the simulator publishes 5 times a second. No stroke can be
# counted this soon after the owner of the arm has changed.
COUNT_DELAY = 0.25
OVERVIEW = 'overview'  # a camera of the simulator, which the policy does not use


@dataclass(frozen=True)
class JointMotion:
    """Joint positions over time: `times` [n] s, `positions` [n, J] rad (m for prismatic)."""

    times: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True)
class ChunkTiming:
    """One action chunk: due times of its actions, and its inference time, s."""

    chunk_id: int
    start: float
    end: float
    inference_seconds: float


@dataclass(frozen=True)
class RecordedImage:
    """An image, RGB uint8 [H, W, 3], with the time (s) that it shows or predicts."""

    time: float
    image: np.ndarray


@dataclass(frozen=True)
class RecordedEpisode:
    """
    One recorded episode; all times are seconds of ROS time since the recording began.

    :param start: when the policy got the arm.
    :param end: when the policy lost the arm.
    :param published: [n] stamps of the trajectories that the policy published, s.
    :param control_period: nominal time between two of them, s.
    :param task_state: the simulator's last report about the task.
    :param holds: reason of each hold during the episode.
    :param stopped_by: why the episode ended early, or empty.
    :param seed: random seed of the scene; None if unknown.
    :param chunk_limit: number of chunks after which the episode ends; 0: unknown.
    :param counted: counts of the simulator, each with the time of its first report.
    :param modes: modes of the mux, each with the time of its beginning.
    :param takeover: whether a scripted operator was to take over.
    """

    joints: tuple[str, ...]
    start: float
    end: float
    commanded: JointMotion
    measured: JointMotion
    chunks: tuple[ChunkTiming, ...]
    cameras: Mapping[str, Sequence[RecordedImage]]
    imagined: Sequence[RecordedImage]
    published: np.ndarray
    control_period: float
    starved_ticks: int
    task_state: Mapping[str, Any]
    holds: tuple[str, ...] = ()
    stopped_by: str = ''
    seed: int | None = None
    chunk_limit: int = 0
    counted: tuple[tuple[float, Mapping[str, int]], ...] = ()
    modes: tuple[tuple[float, MuxMode], ...] = ()
    takeover: bool = False

    @property
    def task(self) -> str:
        """Return the name of the scene, as the simulator reports it."""
        return self.task_state.get('task', '')


def value_at(events: Sequence[tuple[float, Any]], time: float, before: Any) -> Any:
    """Return the value of ordered (time, value) pairs at a time; `before` the first time."""
    return next((value for since, value in reversed(events) if since <= time), before)


def teleop_spans(episode: RecordedEpisode) -> tuple[tuple[float, float], ...]:
    """Return the time spans (s) in mode TELEOP."""
    ends = [since for since, _ in episode.modes[1:]] + [episode.end]
    return tuple((since, until) for (since, mode), until in zip(episode.modes, ends)
                 if mode == MuxMode.TELEOP)


def counts_by_operator(episode: RecordedEpisode) -> dict[str, int]:
    """Return the part of each count that was added in mode TELEOP."""
    sums: dict[str, int] = {}
    before: Mapping[str, int] = {}
    for time, counts in episode.counted:
        theirs = value_at(episode.modes, time - COUNT_DELAY, None) == MuxMode.TELEOP
        for name, count in counts.items():
            more = count - before.get(name, 0)
            sums[name] = sums.get(name, 0) + (more if theirs else 0)
        before = counts
    return sums


def jitter_ms(stamps: np.ndarray, period: float) -> np.ndarray:
    """
    Return the absolute deviation of each interval from the period, [n - 1], ms.

    :param stamps: [n] s, in the order of publication.
    :param period: s.
    """
    return np.abs(np.diff(stamps) - period) * 1e3


def percentile(values: Sequence[float] | np.ndarray, share: float) -> float | None:
    """Return a percentile (linear between neighbors), or None if there are no values."""
    return float(np.percentile(values, share)) if len(values) else None


def publish_jitter_ms(episode: RecordedEpisode) -> np.ndarray:
    """Return the jitter of the policy's trajectories during the episode, ms."""
    stamps = episode.published
    during = (stamps >= episode.start) & (stamps <= episode.end)
    return jitter_ms(stamps[during], episode.control_period)


def tracking_error(episode: RecordedEpisode) -> np.ndarray:
    """
    Return the distance of each measured position from the command due then, [n, J], rad or m.

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


def _largest_range(episode: RecordedEpisode):
    """Return the largest commanded range of a joint, rad or m."""
    positions = episode.commanded.positions
    return float(np.ptp(positions, axis=0).max()) if positions.size else None


def outcome(episode: RecordedEpisode) -> tuple[bool, str]:
    """Return whether the task succeeded, and a description, as the simulator reports them."""
    state = episode.task_state
    success = bool(state.get('success', False))
    if not state:
        detail = 'the simulator reported no task state'
    elif not state.get('counts'):
        detail = f'the scene {state.get("task")} has no goal'
    else:
        detail = format_counts(state['counts'])
        if state.get('detail'):
            detail += f'; {state["detail"]}'
    if episode.stopped_by:
        detail = f'ended early: {episode.stopped_by}; {detail}'
    return success, detail


def format_counts(counts: Mapping[str, int]) -> str:
    """Return counts as text."""
    return ', '.join(f'{name}: {count}' for name, count in counts.items())


def _figures(episode: RecordedEpisode) -> dict[str, Any]:
    """Return the entry of one episode in summary.json."""
    success, detail = outcome(episode)
    counts = dict(episode.task_state.get('counts', {}))
    figures: dict[str, Any] = {
        'task': episode.task, 'success': success, 'detail': detail,
        'chunks': len(episode.chunks), 'seconds': round(episode.end - episode.start, 3),
        'seed': episode.seed, 'done': bool(episode.task_state.get('done', False)),
        'counts': counts,
        'chunk_limit': episode.chunk_limit, 'takeover': episode.takeover}
    spans = teleop_spans(episode)
    if spans:
        theirs = dict.fromkeys(counts, 0) | counts_by_operator(episode)
        figures['counts_by_person'] = theirs
        figures['counts_by_policy'] = {
            name: count - theirs.get(name, 0) for name, count in counts.items()}
        figures['seconds_by_person'] = round(sum(end - begin for begin, end in spans), 3)
    return figures


def summarize(
    episodes: Sequence[RecordedEpisode], checkpoint: str, trained: bool,
) -> dict[str, Any]:
    """Return the content of summary.json; times in s, jitter in ms, None if unknown."""
    latencies = [chunk.inference_seconds for episode in episodes for chunk in episode.chunks]
    jitter = np.concatenate([publish_jitter_ms(episode) for episode in episodes])
    errors = [float(error.max()) for error in map(tracking_error, episodes) if error.size]
    ranges = [value for value in map(_largest_range, episodes) if value is not None]
    return {
        'episodes': [_figures(episode) for episode in episodes],
        'inference_p50': percentile(latencies, 50),
        'inference_p95': percentile(latencies, 95),
        'publish_jitter_ms': {'p50': percentile(jitter, 50), 'p99': percentile(jitter, 99)},
        'publish_jitter_is': 'distance of the interval between two header stamps of the '
                             "policy's joint_trajectory from the control period",
        'control_period': episodes[0].control_period,
        'starved_ticks': sum(episode.starved_ticks for episode in episodes),
        'holds': [reason for episode in episodes for reason in episode.holds],
        'commanded_range': max(ranges, default=None),
        'max_tracking_error': max(errors, default=None),
        'checkpoint': checkpoint,
        'trained': trained,
    }
