"""Rows of an evaluation: their conditions, and the statistics of their episodes; no ROS."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from rich.console import JustifyMethod
from rich.table import Table

from lingbot_va_ros.evaluation.intervals import exact_interval


@dataclass(frozen=True)
class Condition:
    """Condition of a row; the inference latency is padded to `latency_chunks` chunk lengths."""

    task: str
    schedule: str
    memory: str
    latency_chunks: float

    @property
    def words(self) -> str:
        """Description of the condition in words."""
        return (f'{self.task}, {self.schedule}, memory {self.memory}, '
                f'latency {self.latency_chunks:g} chunks')


@dataclass(frozen=True)
class EpisodeOutcome:
    """
    Outcome of one episode.

    :param seconds: duration; wall-clock time over ROS, simulated time in process.
    :param max_seam_step: largest step at seams, rad within a control period.
    :param max_seam_acceleration: rad/s²; `max_step` and `max_acceleration` are those of the whole
        episode.
    :param inference_seconds: inference time of each chunk, s.
    :param holds: reason of each hold during the episode.
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
    """Return the JSON entry of a row; s and rad, None if nothing was measured."""
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
    """Return for each count of the task the number of episodes by their final value."""
    names = sorted({name for outcome in outcomes for name in outcome.counts})
    return {name: {
        str(number): episodes for number, episodes in sorted(
            Counter(outcome.counts[name] for outcome in outcomes
                    if name in outcome.counts).items())} for name in names}


def table_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the rows as a table for display."""
    table = Table(title='episodes', title_justify='left')
    columns: tuple[tuple[str, JustifyMethod], ...] = (
            ('task', 'left'), ('schedule', 'left'), ('memory', 'left'),
            ('latency\n(chunks)', 'right'), ('success', 'right'), ('95 % interval', 'right'),
            ('episode\n(s)', 'right'), ('chunks', 'right'), ('seam step\n(rad)', 'right'),
            ('seam accel.\n(rad/s²)', 'right'), ('starved\nticks', 'right'),
            ('inference\np95 (s)', 'right'), ('chunk\n(s)', 'right'), ('counts', 'left'))
    for name, justify in columns:
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
    """Return histograms of counts as text, for example `strokes 5: 1×, 6: 19×`."""
    return '; '.join(
        f'{name} ' + ', '.join(f'{number}: {times}×' for number, times in numbers.items())
        for name, numbers in counts.items())
