"""
Say how far lower precisions are off the golden rollouts.

    python test/golden_precision.py DIR

A line a precision: the root mean square and the largest difference of normalized actions (which
lie between -1 and 1) and of normalized latents, over all chunks of all rollouts in DIR. The
networks are small and their weights random, so this ranks precisions; what a precision costs a
trained policy its episodes say (`lingbot_va eval --dtype --weights`).
"""

from pathlib import Path
import sys

from golden_replay import GoldenFolder, rollout, TIES_MATTER, TOLERANCE
import torch

PRECISIONS = (
    ('float32', 'full'), ('bfloat16', 'full'), ('float32', 'int8'), ('bfloat16', 'int8'),
    ('float32', 'int8_dynamic'), ('bfloat16', 'int8_dynamic'), ('bfloat16', 'float8'))


def differences(golden: GoldenFolder) -> tuple:
    """Return all differences of normalized actions and of latents, each one tensor."""
    actions: list[torch.Tensor] = []
    latents: list[torch.Tensor] = []
    for settings in golden.manifest['rollouts'].values():
        if settings.get(TIES_MATTER, 0) > TOLERANCE:
            continue
        for pairs, _ in rollout(golden, settings['file'], settings):
            for kept, (ours, theirs) in zip((latents, actions), pairs):
                kept.append((ours.float() - theirs.float()).flatten())
    return torch.cat(actions), torch.cat(latents)


if __name__ == '__main__':
    if len(sys.argv) != 2 or not Path(sys.argv[1], 'manifest.json').is_file():
        sys.exit('usage: python test/golden_precision.py DIR (a folder with a manifest.json)')
    for dtype, weights in PRECISIONS:
        figures = ', '.join(
            f'{name} rms {float(off.square().mean().sqrt()):.2g} max {float(off.abs().max()):.2g}'
            for name, off in zip(('actions', 'latents'), differences(
                GoldenFolder(Path(sys.argv[1]), getattr(torch, dtype), weights))))
        print(f'{dtype} {weights}: {figures}', flush=True)
