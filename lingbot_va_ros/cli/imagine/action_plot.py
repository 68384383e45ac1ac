"""Plot predicted actions over time, one panel for each channel."""

from collections.abc import Sequence
from pathlib import Path
import textwrap
import warnings

import matplotlib

matplotlib.use('Agg')  # before pyplot: a display may be missing
import matplotlib.pyplot as plt
import numpy as np

COLUMNS = 2
TITLE_WIDTH = 140  # characters per line


def draw_actions(
    path: Path, times: np.ndarray, actions: np.ndarray, chunk_of: np.ndarray,
    channels: Sequence[tuple[str, str]], ranges: tuple[np.ndarray, np.ndarray], title: str,
    warning: str = '',
) -> None:
    """
    Write the plot as PNG.

    :param times: [n] due times of the actions, s.
    :param actions: [n, channels] in robot units.
    :param chunk_of: [n] chunk number of each action.
    :param channels: name and unit of each channel.
    :param ranges: q01 and q99 of each channel, both [channels] in robot units.
    :param warning: printed below the title, which becomes red.
    """
    rows = -(-len(channels) // COLUMNS)
    figure, grid = plt.subplots(
        rows, COLUMNS, figsize=(13, 1.9 * rows + 1.6), sharex=True, squeeze=False,
        layout='constrained')
    begins = times[np.flatnonzero(np.diff(chunk_of, prepend=-1))]
    for index, (axes, (name, unit)) in enumerate(zip(grid.flat, channels)):
        axes.axhspan(ranges[0][index], ranges[1][index], color='tab:green', alpha=0.12,
                     label='q01 to q99 of the training data')
        for number, begin in enumerate(begins):
            axes.axvline(begin, color='0.75', linewidth=0.8, zorder=0,
                         label=None if number else 'first action of a chunk')
        axes.plot(times, actions[:, index], color='tab:blue', linewidth=1.1, marker='.',
                  markersize=3, label='predicted')
        axes.set_title(name, fontsize=10, loc='left')
        axes.set_ylabel(unit, fontsize=9)
        axes.margins(x=0.01)
        axes.grid(axis='y', alpha=0.3)
        if index >= len(channels) - COLUMNS:
            axes.set_xlabel('seconds after the image')
            axes.tick_params(labelbottom=True)
    for axes in grid.flat[len(channels):]:
        axes.set_visible(False)
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc='outside lower center', ncols=3)
    lines = [*textwrap.wrap(title, TITLE_WIDTH), *([warning] if warning else [])]
    figure.suptitle(
        '\n'.join(lines), fontsize=12, x=0.01, horizontalalignment='left', parse_math=False,
        color='tab:red' if warning else 'black')
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph .* missing')  # instructions in any script
        figure.savefig(path, dpi=90, format='png')
    plt.close(figure)
