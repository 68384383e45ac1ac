"""The channel layout of the public LingBot-VA checkpoints, and checks against it."""

from collections.abc import Mapping, Sequence

CHANNELS = 30
# End-effector poses xyz, quaternion xyzw: left 0 to 6, right 7 to 13. Joints: left 14 to 20, right
# 21 to 27.
POSE_CHANNELS = range(0, 14)
JOINT_CHANNELS = range(14, 28)
GRIPPER_CHANNELS = range(28, 30)
FIRST_POSE_CHANNEL = {'left': 0, 'right': 7}
FIRST_JOINT_CHANNEL = {'left': 14, 'right': 21}
GRIPPER_CHANNEL = {'left': 28, 'right': 29}


def unknown_channels(used: Sequence[int]) -> str:
    """Return a line for channels that do not exist, or ''."""
    unknown = sorted({channel for channel in used if not 0 <= channel < CHANNELS})
    return f'channels {unknown} do not exist; there are 0 … {CHANNELS - 1}' if unknown else ''


def misfit(used: Sequence[int], wanted: Mapping[int, str]) -> str:
    """
    Return every mistake in the used channels in one line, or ''.

    :param wanted: name of the joint or pose component of each channel that the embodiment needs.
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
