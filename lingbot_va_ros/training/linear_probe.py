"""Linear probe of the latents: errors of body positions on held-out episodes, mm."""

from collections.abc import Sequence

import numpy as np

from lingbot_va_ros.training.latents import EncodedEpisode

RIDGE = 1e-2  # ridge penalty, as a share of the inputs' mean square


def probe_body_positions(
    fit: Sequence[EncodedEpisode], held_out: Sequence[EncodedEpisode],
) -> dict[str, dict[str, float]]:
    """
    Fit one linear map from latents to body positions for each task; return its held-out errors.

    :returns: per task and body the mean distance, mm, over all frames of the held-out episodes.
    """
    found: dict[str, dict[str, float]] = {}
    for task in sorted({each.task for each in held_out}):
        seen = [each for each in fit if each.task == task]
        unseen = [each for each in held_out if each.task == task]
        if not seen:
            continue
        inputs, places = _rows(seen)
        middle, spread = inputs.mean(0), inputs.std(0) + 1e-6
        inputs = (inputs - middle) / spread
        target = places.reshape(len(places), -1)
        mean = target.mean(0)
        gram = inputs.T @ inputs
        gram[np.diag_indices_from(gram)] += RIDGE * len(inputs)
        weights = np.linalg.solve(gram, inputs.T @ (target - mean))
        inputs, places = _rows(unseen)
        guess = ((inputs - middle) / spread @ weights + mean).reshape(places.shape)
        distance = np.linalg.norm(guess - places, axis=-1).mean(0) * 1000
        found[task] = {
            body: float(value) for body, value in zip(unseen[0].bodies, distance)}
    return found


def probe_lines(found: dict[str, dict[str, float]]) -> list[str]:
    """Return a line for each task."""
    return [f'linear probe, {task}: ' + ', '.join(
        f'{body} {error:.1f} mm' for body, error in errors.items())
        for task, errors in found.items()]


def _rows(episodes: Sequence[EncodedEpisode]) -> tuple:
    """Return inputs [n, C * h * w] float64 and places [n, bodies, 3] of all frames."""
    inputs = np.concatenate([
        each.latents.transpose(1, 0, 2, 3).reshape(each.latents.shape[1], -1)
        for each in episodes]).astype(np.float64)
    return inputs, np.concatenate([each.places for each in episodes]).astype(np.float64)
