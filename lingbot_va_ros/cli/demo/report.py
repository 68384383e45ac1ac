"""Plot report.png: counts, commanded and measured joints, inference latency, jitter."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')  # before pyplot: a display may be missing
import matplotlib.pyplot as plt
import numpy as np

from lingbot_va_ros.cli.demo.episode import (
    outcome,
    percentile,
    publish_jitter_ms,
    RecordedEpisode,
    teleop_spans,
    tracking_error,
)

ROW, COUNTS_ROW, LAST_ROW = 1.9, 1.5, 2.9  # heights in inches


def write_report(path: Path, episodes: Sequence[RecordedEpisode], label: str) -> None:
    """
    Write the plot: one column for each episode; two columns of joints for a single episode.

    :param label: the checkpoint's name, marked if UNTRAINED.
    """
    columns = max(2, len(episodes))
    side_by_side = len(episodes) > 1
    with_counts = any(counts for episode in episodes for _, counts in episode.counted)
    joints = max(len(episode.joints) for episode in episodes)
    heights = [COUNTS_ROW] * with_counts + [ROW] * (
        joints if side_by_side else -(-joints // columns)) + [LAST_ROW]
    figure = plt.figure(figsize=(7.5 * columns, sum(heights) + 1.2), layout='constrained')
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    legend: dict[str, Any] = {}
    for place, episode in enumerate(episodes):
        if with_counts:
            _draw_counts(figure.add_subplot(grid[0, place if side_by_side else slice(None)]),
                         episode, f'{episode.task}: ' if side_by_side else '')
        for index, joint in enumerate(episode.joints):
            row, column = (index, place) if side_by_side else divmod(index, columns)
            axes = figure.add_subplot(grid[row + with_counts, column])
            _draw_joint(axes, episode, index)
            axes.set_title(joint, fontsize=10, loc='left')
            lowest = index == joints - 1 if side_by_side else index >= joints - columns
            axes.tick_params(labelbottom=lowest)
            if lowest:
                axes.set_xlabel('seconds since the policy got the arm')
            handles, names = axes.get_legend_handles_labels()
            legend.update(zip(names, handles))
    figure.legend(list(legend.values()), list(legend), loc='outside lower center', ncols=4)
    latencies = [chunk.inference_seconds * 1e3
                 for episode in episodes for chunk in episode.chunks]
    half = columns // 2
    _draw_histogram(
        figure.add_subplot(grid[-1, :half]), latencies, 'inference latency of a chunk, ms',
        'chunks')
    _draw_histogram(
        figure.add_subplot(grid[-1, half:]),
        np.concatenate([publish_jitter_ms(episode) for episode in episodes]),
        'jitter: publication interval (header stamps) off '
        f'{episodes[0].control_period * 1e3:g} ms, ms', 'messages (logarithmic)',
        logarithmic=True)
    figure.suptitle(
        '\n'.join([f'checkpoint: {label}', *map(_line, episodes)]), fontsize=12, x=0.01,
        horizontalalignment='left')
    figure.savefig(path, dpi=90, format='png')
    plt.close(figure)


def _line(episode: RecordedEpisode) -> str:
    """Return a description of an episode and its result, in two lines."""
    error = tracking_error(episode)
    furthest = f'{error.max():.3f}' if error.size else 'unknown'
    seed = '' if episode.seed is None else f', seed {episode.seed}'
    success, detail = outcome(episode)
    return (f'{episode.task or "unknown task"}{seed}: {"success" if success else "no success"} '
            f'({detail})\n'
            f'    {len(episode.chunks)} chunks in {episode.end - episode.start:.1f} s · starved '
            f'ticks: {episode.starved_ticks} · holds: {len(episode.holds)} · largest tracking '
            f'error: {furthest} (rad or m)')


def _draw_counts(axes, episode: RecordedEpisode, title: str) -> None:
    """Plot the counts of the simulator over time."""
    times = np.array([0.0] + [max(0.0, time - episode.start) for time, _ in episode.counted]
                     + [episode.end - episode.start])
    for place, name in enumerate(dict.fromkeys(
            name for _, counts in episode.counted for name in counts)):
        values = [counts.get(name, 0) for _, counts in episode.counted]
        # An offset separates lines with the same values.
        axes.plot(times, np.array([values[0], *values, values[-1]]) + 0.03 * place,
                  drawstyle='steps-post', label=name)
    _shade(axes, episode)
    axes.set_title(f'{title}counted by the simulator', fontsize=10, loc='left')
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.margins(x=0.01)
    axes.grid(axis='y', alpha=0.3)
    if axes.lines:
        axes.legend(loc='upper left', fontsize=8)


def _shade(axes, episode: RecordedEpisode) -> None:
    """Mark the time spans in mode TELEOP."""
    for number, (begin, end) in enumerate(teleop_spans(episode)):
        axes.axvspan(begin - episode.start, end - episode.start, color='tab:green', alpha=0.15,
                     zorder=0, label=None if number else 'operator controls the arm (TELEOP)')


def _draw_joint(axes, episode: RecordedEpisode, index: int) -> None:
    for number, chunk in enumerate(episode.chunks):
        axes.axvline(chunk.start - episode.start, color='0.75', linewidth=0.8, zorder=0,
                     label=None if number else 'first action of a chunk')
    for motion, style in (
            (episode.measured, dict(color='tab:orange', linewidth=2.2, label='measured')),
            (episode.commanded, dict(
                color='tab:blue', linewidth=0.9, label='commanded (executed)'))):
        times = motion.times - episode.start
        shown = (times >= -0.5) & (motion.times <= episode.end + 0.5)
        axes.plot(times[shown], motion.positions[shown, index], **style)
    _shade(axes, episode)
    axes.set_ylabel('rad or m' if 'gripper' in episode.joints[index] else 'rad', fontsize=9)
    axes.margins(x=0.01)
    axes.grid(axis='y', alpha=0.3)


def _draw_histogram(axes, values, title: str, what: str, logarithmic: bool = False) -> None:
    axes.set_xlabel(title)
    axes.set_ylabel(what)
    if not len(values):
        axes.text(0.5, 0.5, 'nothing recorded', transform=axes.transAxes, ha='center')
        return
    bins = int(np.clip(len(values), 8, 60))
    axes.hist(np.asarray(values), bins=bins, color='tab:blue', alpha=0.7, log=logarithmic)
    for share, style in ((50, '-'), (95, '--'), (99, ':')):
        value = percentile(values, share)
        axes.axvline(value, color='tab:red', linestyle=style, linewidth=1.2,
                     label=f'p{share} {value:.2f} ms')
    axes.legend()
