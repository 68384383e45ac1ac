"""Draw report.png: commanded against measured joints, inference latency, control-rate jitter."""

from pathlib import Path

import matplotlib
matplotlib.use('Agg')  # before pyplot: there may be no screen
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from lingbot_va_ros.cli.episode import (  # noqa: E402
    Episode, percentile, publish_jitter_ms, tracking_error)

COLUMNS = 2


def write_report(path: Path, episode: Episode, label: str) -> None:
    """
    Write the picture.

    :param label: the checkpoint's name, with UNTRAINED where it is.
    """
    count = len(episode.joints)
    rows = -(-count // COLUMNS)
    figure = plt.figure(figsize=(15, 2.1 * rows + 4.2), layout='constrained')
    grid = figure.add_gridspec(
        rows + 1, COLUMNS, height_ratios=[1.0] * rows + [1.5])
    first = None
    for index, joint in enumerate(episode.joints):
        axes = figure.add_subplot(grid[index // COLUMNS, index % COLUMNS], sharex=first)
        first = first or axes
        _draw_joint(axes, episode, index)
        axes.set_title(joint, fontsize=10, loc='left')
        if index >= count - COLUMNS:
            axes.set_xlabel('seconds since the policy got the arm')
        else:
            axes.tick_params(labelbottom=False)
    figure.legend(*first.get_legend_handles_labels(), loc='outside upper right', ncols=3)
    latencies = [chunk.inference_seconds * 1e3 for chunk in episode.chunks]
    _draw_histogram(
        figure.add_subplot(grid[rows, 0]), latencies, 'inference latency of a chunk, ms',
        'chunks')
    _draw_histogram(
        figure.add_subplot(grid[rows, 1]), publish_jitter_ms(episode),
        'jitter: publication interval (header stamps) off '
        f'{episode.control_period * 1e3:g} ms, ms', 'messages (logarithmic)', logarithmic=True)
    error = tracking_error(episode)
    furthest = f'{error.max():.3f}' if error.size else 'unknown'
    task = episode.task_state.get('task', 'unknown')
    figure.suptitle(
        f'checkpoint: {label} · task: {task} · {len(episode.chunks)} chunks in '
        f'{episode.end - episode.start:.1f} s\n'
        f'starved ticks: {episode.starved_ticks} · holds: {len(episode.holds)} · '
        f'largest distance from the command: {furthest} (rad or m)'
        + (f'\nended early: {episode.stopped_by}' if episode.stopped_by else ''),
        fontsize=12, x=0.01, horizontalalignment='left')
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _draw_joint(axes, episode: Episode, index: int) -> None:
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
