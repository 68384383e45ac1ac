"""The channel layout of the public LingBot-VA checkpoints, and what does not fit it."""

from collections.abc import Mapping, Sequence

CHANNELS = 30
POSE_CHANNELS = range(0, 14)
FIRST_JOINT_CHANNEL = {'left': 14, 'right': 21}
GRIPPER_CHANNEL = {'left': 28, 'right': 29}


def unknown_channels(used: Sequence[int]) -> str:
    """Return a line for channels that do not exist, or ''."""
    unknown = sorted({channel for channel in used if not 0 <= channel < CHANNELS})
    return f'channels {unknown} do not exist; there are 0 … {CHANNELS - 1}' if unknown else ''


def misfit(used: Sequence[int], wanted: Mapping[int, str]) -> str:
    """
    Return in one line all that is wrong with the used channels, or ''.

    :param wanted: what each channel moves that the embodiment needs.
    """
    mistakes = []
    repeated = sorted({channel for channel in used if used.count(channel) > 1})
    if repeated:
        mistakes.append(f'channels used twice: {repeated}')
    useless = [channel for channel in used if channel not in wanted]
    if useless:
        mistakes.append(f'channels without a joint: {useless}')
    missing = [
        f'{name} (channel {channel})' for channel, name in wanted.items() if channel not in used]
    if missing:
        mistakes.append(f'joints without a channel: {", ".join(missing)}')
    return '; '.join(mistakes)
