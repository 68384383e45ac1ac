"""Plot the rows of an evaluation over the latency: success, time, seams, starved ticks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')  # before pyplot: a display may be missing
import matplotlib.pyplot as plt

from lingbot_va_ros.atomic_files import atomic_file

PANELS = (
    ('successes', 'success, with its exact 95 % interval'),
    ('episode_seconds', 'time of an episode, s'),
    ('max_seam_step', 'largest joint step at seams, rad in 20 ms'),
    ('max_seam_acceleration', 'largest acceleration at seams, rad/s²'),
    ('starved_ticks', 'starved control ticks an episode'),
    ('inference_p95', 'inference p95, s'))
COLUMNS = 3
MARKS = (('o', '-'), ('s', '--'), ('^', ':'), ('D', '-.'))  # lines that coincide stay visible
APART = 0.012  # chunk lengths between intervals of the same latency


def write_plot(path: Path, rows: Sequence[Mapping[str, Any]], label: str) -> None:
    """
    Write the plot atomically, in the format of the file's suffix.

    :param rows: entries of the JSON.
    :param label: the checkpoint's name, marked if UNTRAINED.
    """
    figure, axes = plt.subplots(
        -(-len(PANELS) // COLUMNS), COLUMNS, figsize=(15, 7.5), layout='constrained')
    lines = _lines(rows)
    for panel, (name, title) in zip(axes.flat, PANELS):
        for place, (words, own) in enumerate(lines.items()):
            _draw(panel, name, words, own, place)
        panel.set_xlabel('latency, chunk lengths')
        panel.set_title(title, fontsize=10, loc='left')
        panel.grid(alpha=0.3)
        top = 1.03 if name == 'successes' else 1.05 * panel.dataLim.y1
        panel.set_ylim(-0.03 if name == 'successes' else 0, top if 0 < top < 1e9 else 1)
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc='outside lower center', ncols=3)
    where = 'in process, simulated time' if rows[0]['in_process'] else 'over ROS, wall-clock time'
    figure.suptitle(
        f'checkpoint: {label} · episodes a row: {rows[0]["episodes"]} · {where}', fontsize=12,
        x=0.01, horizontalalignment='left')
    with atomic_file(path) as unfinished:
        figure.savefig(unfinished, dpi=90, format=path.suffix[1:])
    plt.close(figure)


def _lines(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the rows of each line, which differ only in latency, by the label of the line."""
    names = [name for name in ('task', 'schedule', 'memory')
             if name == 'schedule' or len({row[name] for row in rows}) > 1]
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row['latency_chunks']):
        lines.setdefault(', '.join(row[name] for name in names), []).append(row)
    return lines


def _draw(
    panel, name: str, words: str, rows: Sequence[Mapping[str, Any]], place: int,
) -> None:
    """Draw one line; `place` is its number among the lines of the panel."""
    places = [row['latency_chunks'] for row in rows]
    marker, line = MARKS[place % len(MARKS)]
    if name == 'successes':
        shares, errors = _shares(rows)
        panel.errorbar(
            [each + place * APART for each in places], shares, errors, marker=marker,
            linestyle=line, capsize=3, label=words)
        return
    values = [row[name] for row in rows]
    if name == 'starved_ticks':
        values = [row[name] / max(1, row['episodes']) for row in rows]
    known = [(each, value) for each, value in zip(places, values) if value is not None]
    panel.plot([each for each, _ in known], [value for _, value in known], marker=marker,
               linestyle=line)


def _shares(rows: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[list[float]]]:
    shares = [row['successes'] / max(1, row['episodes']) for row in rows]
    return shares, [
        [share - row['success_low'] for share, row in zip(shares, rows)],
        [row['success_high'] - share for share, row in zip(shares, rows)]]
