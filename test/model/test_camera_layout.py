"""Camera layouts: how the latents of several cameras are joined."""

import pytest
import torch

from lingbot_va_ros.model.camera_layout import camera_groups, join_latents, latent_size


def latents(value, cameras, rows, columns):
    """Return latents of which every camera has a number of its own."""
    return (value + torch.arange(cameras).view(-1, 1, 1, 1, 1).float()).expand(
        cameras, 3, 2, rows, columns)


def test_side_by_side_is_one_group_of_all_cameras():
    group, = camera_groups('side_by_side', ['head', 'wrist'], 64, 96)
    assert (group.cameras, group.height, group.width) == (('head', 'wrist'), 64, 96)


def test_tshape_has_the_first_camera_at_full_and_two_at_half_size():
    head, wrists = camera_groups('tshape', ['head', 'left', 'right'], 64, 96)
    assert (head.cameras, head.height, head.width) == (('head',), 64, 96)
    assert (wrists.cameras, wrists.height, wrists.width) == (('left', 'right'), 32, 48)


def test_side_by_side_joins_in_the_order_of_the_cameras():
    joined = join_latents('side_by_side', [latents(1, 3, 2, 2)])
    assert joined.shape == (1, 3, 2, 2, 6)
    assert joined[0, 0, 0, 0].tolist() == [1, 1, 2, 2, 3, 3]


def test_tshape_has_the_wrists_on_top_of_the_head():
    joined = join_latents('tshape', [latents(1, 1, 4, 4), latents(2, 2, 2, 2)])
    assert joined.shape == (1, 3, 2, 6, 4)
    assert joined[0, 0, 0].tolist() == 2 * [[2, 2, 3, 3]] + 4 * [[1, 1, 1, 1]]


@pytest.mark.parametrize('layout, cameras', [
    ('side_by_side', ['head']), ('side_by_side', ['head', 'left', 'right']),
    ('tshape', ['head', 'left', 'right'])])
def test_the_predicted_latent_size_is_that_of_the_joined_latents(layout, cameras):
    groups = camera_groups(layout, cameras, 64, 96)
    joined = join_latents(layout, [
        latents(0, len(group.cameras), group.height // 16, group.width // 16)
        for group in groups])
    assert latent_size(layout, len(cameras), 64, 96) == tuple(joined.shape[-2:])


@pytest.mark.parametrize('layout, cameras, size, message', [
    ('pyramid', ['head'], (64, 64), "unknown layout 'pyramid'; expected one of side_by_side, ts"),
    ('tshape', ['head', 'left'], (64, 64), 'layout tshape takes 3 cameras, got 2'),
    ('side_by_side', ['head'], (60, 64), '60x64 do not fit layout side_by_side.* multiples of 16'),
    ('tshape', ['a', 'b', 'c'], (48, 64), '48x64 do not fit layout tshape: .* multiples of 32'),
    ('side_by_side', ['head'], (0, 64), '0x64 do not fit')])
def test_unsupported_cameras_or_sizes_of_a_layout_are_named(layout, cameras, size, message):
    with pytest.raises(ValueError, match=message):
        camera_groups(layout, cameras, *size)
