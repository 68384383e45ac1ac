"""Positions of tokens, and their rotary tables."""

import pytest
import torch

from lingbot_va_ros.model.rope import action_positions, rotary_table, rotate, video_positions

CPU = torch.device('cpu')


def test_video_tokens_are_ordered_by_frame_then_row_then_column():
    assert video_positions(2, 1, 2, 5).tolist() == [[5, 0, 0], [5, 0, 1], [6, 0, 0], [6, 0, 1]]


def test_actions_lie_between_their_frame_and_the_next_and_on_no_pixel():
    assert action_positions(2, 3, 4).tolist() == [
        [4.25, -1, -1], [4.5, -1, -1], [4.75, -1, -1],
        [5.25, -1, -1], [5.5, -1, -1], [5.75, -1, -1]]


@pytest.mark.parametrize('head_dim', [24, 32, 128])
def test_a_rotary_table_has_one_angle_for_each_pair_of_features(head_dim):
    table = rotary_table(video_positions(1, 2, 3, 0), head_dim, CPU)
    assert table.shape == (6, 1, head_dim // 2) and table.dtype == torch.complex64
    torch.testing.assert_close(table.abs(), torch.ones(6, 1, head_dim // 2))


def test_the_origin_turns_nothing():
    features = torch.randn(1, 1, 2, 24)
    assert torch.equal(rotate(features, rotary_table(torch.zeros(1, 3).double(), 24, CPU)),
                       features)


def test_a_turn_keeps_lengths_and_dtype():
    features = torch.randn(2, 4, 2, 24).bfloat16()
    turned = rotate(features, rotary_table(video_positions(2, 1, 2, 7), 24, CPU))
    assert turned.dtype == torch.bfloat16 and turned.shape == features.shape
    torch.testing.assert_close(
        turned.float().norm(dim=-1), features.float().norm(dim=-1), rtol=2e-2, atol=1e-2)


def test_only_the_difference_of_positions_counts_in_a_product():
    query, key = torch.randn(1, 1, 1, 24), torch.randn(1, 1, 1, 24)

    def product(at, other):
        return (rotate(query, rotary_table(torch.tensor([at]).double(), 24, CPU))
                * rotate(key, rotary_table(torch.tensor([other]).double(), 24, CPU))).sum()
    torch.testing.assert_close(product([3, 1, 2], [1, 0, 4]), product([13, 5, 7], [11, 4, 9]),
                               rtol=1e-4, atol=1e-4)
