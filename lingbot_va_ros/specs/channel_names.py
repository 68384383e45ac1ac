"""Names and units of the channels of a policy's actions."""

from lingbot_va_ros.specs.policy_file import PolicyFile

SIDES = ('left', 'right')
POSE = (('x', 'm'), ('y', 'm'), ('z', 'm'), ('qx', '1'), ('qy', '1'), ('qz', '1'), ('qw', '1'))
JOINTS = 7  # of each arm; a pose has 7 components too
GRIPPER = '0 closed, 1 open'
# The deltas of LIBERO's controller, in its units of -1 to 1, the only ones in a public checkpoint.
DELTA = ('dx', 'dy', 'dz', 'rotation_x', 'rotation_y', 'rotation_z', 'gripper')
UNKNOWN = 'as in the training data'


def describe_channels(policy: PolicyFile) -> list[tuple[str, str]]:
    """
    Return name and unit of each used channel, in their order.

    In the layout of the public checkpoints, channels 0 to 6 and 7 to 13 are the poses of the left
    and right end effector, 14 to 20 and 21 to 27 the joints, 28 and 29 the grippers. A policy with
    another layout (joints in the channels of a pose, other deltas than LIBERO's) gets numbers of
    channels in place of names.
    """
    used = policy.used_channels
    poses = [channel for channel in used if channel < len(SIDES) * JOINTS]
    if policy.action_frame == 'eef_delta':
        if set(used) <= set(range(len(DELTA))):
            return [(f'left_{DELTA[channel]}', 'controller units') for channel in used]
        return _numbered(used)
    if policy.action_frame == 'joints' and poses:
        return _numbered(used)
    return [_layout(channel) for channel in used]


def _layout(channel: int) -> tuple[str, str]:
    if channel < len(SIDES) * JOINTS:
        side, part = divmod(channel, JOINTS)
        name, unit = POSE[part]
        return f'{SIDES[side]}_{name}', unit
    if channel < 2 * len(SIDES) * JOINTS:
        side, joint = divmod(channel - len(SIDES) * JOINTS, JOINTS)
        return f'{SIDES[side]}_joint_{joint + 1}', 'rad'
    return f'{SIDES[channel - 2 * len(SIDES) * JOINTS]}_gripper', GRIPPER


def _numbered(used: tuple[int, ...]) -> list[tuple[str, str]]:
    return [(f'channel_{channel}', UNKNOWN) for channel in used]
