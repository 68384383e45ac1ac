"""Images for monitoring a training run: a plot of losses, predicted video."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lingbot_va_ros.policy.inference.engine import Engine
from lingbot_va_ros.robot.action_map import ActionMap
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME
from lingbot_va_ros.training.episode_files import Recording

LOSSES = ('total', 'dynamics', 'forward_dynamics', 'inverse', 'events', 'places')
SMOOTH = 20  # log entries in a running mean
ENLARGED = 2


def plot_losses(log: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the network's losses and the closed-loop success over the steps, as a PNG file."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    lines = [line for line in log if line.get('stage') == 'network' and 'total' in line]
    checks = [line for line in log if line.get('stage') == 'check']
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout='constrained')
    for name in LOSSES:
        found = [(line['step'], line[name]) for line in lines
                 if isinstance(line.get(name), (int, float)) and np.isfinite(line[name])]
        if found:
            steps, values = np.array(found).T
            width = min(SMOOTH, len(values))
            means = np.convolve(values, np.ones(width) / width, 'valid')
            left.plot(steps[width - 1:], means, label=name.replace('_', ' '))
    left.set(xlabel='step', ylabel='loss', yscale='log' if lines else 'linear')
    if lines:
        left.legend()
    for task in sorted({line['task'] for line in checks}):
        found = [(line['step'], line['successes'] / line['episodes']) for line in checks
                 if line['task'] == task]
        right.plot(*np.array(found).T, 'o-', label=task)
    right.set(xlabel='step', ylabel='closed-loop success', ylim=(-0.02, 1.02))
    if checks:
        right.legend()
    figure.savefig(path, dpi=90, format='png')
    plt.close(figure)


def predicted_beside_recorded(
    engine: Engine, recording: Recording, instruction: str, actions: ActionMap, chunks: int,
) -> np.ndarray:
    """
    Return an engine's predicted video of a recording beside the recorded images.

    Each chunk is predicted from all recorded frames before it.

    :returns: uint8 [H, W, 3], one row for each chunk: recorded left, predicted right.
    """
    cameras = engine.policy.cameras
    images = {name: recording.images[name] for name in cameras}
    engine.set_instruction(instruction)
    engine.reset()
    engine.begin_episode({name: images[name][0] for name in cameras})
    rows: list[np.ndarray] = []
    at = 0
    for _ in range(chunks):
        chunk = engine.predict()
        taken = len(chunk.actions)
        if at + taken > len(recording.commands):
            break
        span = slice(at + 1, at + taken + 1)
        shown = [IMAGES_PER_FRAME * frame - 1 for frame in (1, 2)][:taken // IMAGES_PER_FRAME]
        real = np.concatenate([images[name][span] for name in cameras], 2)[shown]
        predicted = engine.imagined_video(chunk)[shown]
        row = np.concatenate([*real, *predicted], 1)
        rows.append(np.pad(row, ((0, 0), (0, 2 * real.shape[2] * 2 - row.shape[1]), (0, 0))))
        for first in range(at + 1, at + taken + 1, IMAGES_PER_FRAME):
            engine.observe({
                name: list(images[name][first:first + IMAGES_PER_FRAME]) for name in cameras})
        engine.commit(actions.from_joints(recording.commands[at:at + taken]))
        at += taken
    engine.reset()
    return np.concatenate(rows).repeat(ENLARGED, 0).repeat(ENLARGED, 1)


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an RGB image, uint8 [H, W, 3], as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])
