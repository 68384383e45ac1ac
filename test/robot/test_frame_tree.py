"""The tree of frames: chains, age, loops, and what is no transform."""

import numpy as np
import pytest

from lingbot_va_ros.robot.frame_tree import FrameTree, MOST_FRAMES, UnknownFrame


def shifted(x):
    pose = np.eye(4)
    pose[0, 3] = x
    return pose


def test_frames_are_found_over_their_common_root():
    tree = FrameTree(1.0)
    tree.put('map', 'base', shifted(1.0), 0.0, True)
    tree.put('base', 'tool', shifted(0.5), 5.0, False)
    tree.put('map', 'room', shifted(4.0), 0.0, True)
    np.testing.assert_allclose(tree.pose('base', 'room', 5.0)[0, 3], 3.0)
    np.testing.assert_allclose(tree.pose('room', 'tool', 5.0)[0, 3], -2.5)
    np.testing.assert_allclose(tree.pose('base', 'map', 99.0)[0, 3], -1.0)
    with pytest.raises(UnknownFrame, match=r"the tf of 'tool' is 2\.0 s old"):
        tree.pose('base', 'tool', 7.0)


def test_what_is_no_tree_is_refused():
    tree = FrameTree(1.0)
    tree.put('a', 'b', shifted(1.0), 0.0, True)
    tree.put('b', 'a', shifted(1.0), 0.0, True)
    with pytest.raises(UnknownFrame, match='loop'):
        tree.pose('a', 'c', 0.0)
    tree.put('x', 'x', shifted(1.0), 0.0, True)
    tree.put('x', 'y', shifted(np.nan), 0.0, True)
    with pytest.raises(UnknownFrame, match="no frame 'y'"):
        tree.pose('x', 'y', 0.0)


def test_the_number_of_frames_is_bounded():
    tree = FrameTree(1.0)
    for number in range(MOST_FRAMES + 5):
        tree.put('map', f'f{number}', np.eye(4), 0.0, True)
    tree.pose('map', f'f{MOST_FRAMES - 1}', 0.0)
    with pytest.raises(UnknownFrame):
        tree.pose('map', f'f{MOST_FRAMES + 1}', 0.0)
