"""The rows of an evaluation: what is asked of each, and the figures of its episodes; no ROS."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from rich.table import Table

from lingbot_va_ros.evaluation.intervals import exact_interval


@dataclass(frozen=True)
class Condition:
    """What a row is about; the latency is padded to `latency_chunks` chunk lengths."""

    task: str
    schedule: str
    memory: str
    latency_chunks: float

    @property
    def words(self) -> str:
        """The condition in a few words."""
        return (f'{self.task}, {self.schedule}, memory {self.memory}, '
                f'latency {self.latency_chunks:g} chunks')


@dataclass(frozen=True)
class EpisodeOutcome:
    """
    What became of one episode.

    :param seconds: how long it took; wall-clock time over ROS, simulated time in process.
    :param max_seam_step: rad within a control period, `max_seam_acceleration` rad/s²; `max_step`
        and `max_acceleration` those of the whole episode.
    :param inference_seconds: of each chunk.
    :param holds: why the arm was held in between, once for each time.
    """

    seed: int
    success: bool
    done: bool
    counts: Mapping[str, Any]
    ended_by: str
    chunks: int
    seconds: float
    max_seam_step: float
    max_seam_acceleration: float
    max_step: float
    max_acceleration: float
    starved_ticks: int
    inference_seconds: tuple[float, ...]
    holds: tuple[str, ...] = ()


def conditions_of(
    tasks: Sequence[str], schedules: Sequence[str], memories: Sequence[str],
    latencies: Sequence[float],
) -> tuple[Condition, ...]:
    """Return every combination, the latencies changing fastest."""
    return tuple(Condition(*values) for values in product(tasks, schedules, memories, latencies))


def row_of(
    condition: Condition, outcomes: Sequence[EpisodeOutcome], chunk_seconds: float,
    in_process: bool,
) -> dict[str, Any]:
    """Return what the JSON says of a row; seconds and radians, None where nothing was measured."""
    successes = sum(outcome.success for outcome in outcomes)
    low, high = exact_interval(successes, len(outcomes))
    inference = [seconds for outcome in outcomes for seconds in outcome.inference_seconds]
    return {
        'task': condition.task, 'schedule': condition.schedule, 'memory': condition.memory,
        'latency_chunks': condition.latency_chunks, 'in_process': in_process,
        'episodes': len(outcomes), 'successes': successes,
        'success_low': low, 'success_high': high,
        'counts': _histograms(outcomes),
        'episode_seconds': _mean([outcome.seconds for outcome in outcomes]),
        'chunks': _mean([outcome.chunks for outcome in outcomes]),
        **{name: max((getattr(outcome, name) for outcome in outcomes), default=None)
           for name in ('max_seam_step', 'max_seam_acceleration', 'max_step', 'max_acceleration')},
        'starved_ticks': sum(outcome.starved_ticks for outcome in outcomes),
        'inference_p95': float(np.percentile(inference, 95)) if inference else None,
        'chunk_seconds': chunk_seconds,
        'holds': sum(len(outcome.holds) for outcome in outcomes),
        'results': [{
            'seed': outcome.seed, 'success': outcome.success, 'done': outcome.done,
            'counts': dict(outcome.counts), 'ended_by': outcome.ended_by,
            'chunks': outcome.chunks, 'seconds': outcome.seconds,
            'starved_ticks': outcome.starved_ticks, 'holds': list(outcome.holds),
        } for outcome in outcomes],
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _histograms(outcomes: Sequence[EpisodeOutcome]) -> dict[str, dict[str, int]]:
    """Return, for each count of the task, how many episodes ended with which number."""
    names = sorted({name for outcome in outcomes for name in outcome.counts})
    return {name: {
        str(number): episodes for number, episodes in sorted(
            Counter(outcome.counts[name] for outcome in outcomes
                    if name in outcome.counts).items())} for name in names}


def table_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the rows as people read them; columns that say nothing are left out."""
    table = Table(title='episodes', title_justify='left')
    for name, justify in (
            ('task', 'left'), ('schedule', 'left'), ('memory', 'left'),
            ('latency\n(chunks)', 'right'), ('success', 'right'), ('95 % interval', 'right'),
            ('episode\n(s)', 'right'), ('chunks', 'right'), ('seam step\n(rad)', 'right'),
            ('seam accel.\n(rad/s²)', 'right'), ('starved\nticks', 'right'),
            ('inference\np95 (s)', 'right'), ('chunk\n(s)', 'right'), ('counts', 'left')):
        table.add_column(name, justify=justify)
    for row in rows:
        table.add_row(
            row['task'], row['schedule'], row['memory'], f'{row["latency_chunks"]:g}',
            f'{row["successes"]}/{row["episodes"]}',
            f'{row["success_low"]:.1%} to {row["success_high"]:.1%}',
            _figure(row['episode_seconds'], 1), _figure(row['chunks'], 1),
            _figure(row['max_seam_step'], 4), _figure(row['max_seam_acceleration'], 1),
            str(row['starved_ticks']), _figure(row['inference_p95'], 3),
            _figure(row['chunk_seconds'], 2), histogram_words(row['counts']))
    return table


def _figure(value: float | None, digits: int) -> str:
    return '–' if value is None else f'{value:.{digits}f}'


def histogram_words(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return histograms of counts in words, as `strokes 5: 1×, 6: 19×`."""
    return '; '.join(
        f'{name} ' + ', '.join(f'{number}: {times}×' for number, times in numbers.items())
        for name, numbers in counts.items())
