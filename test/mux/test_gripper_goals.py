"""Goals for a gripper's action: few, bounded in rate, none without a motion."""

from hypothesis import given, settings
from hypothesis import strategies as st

from lingbot_va_ros.mux.gripper_goals import GripperGoals


def test_a_motion_begins_without_a_goal():
    goals = GripperGoals(0.001, 0.2)
    goals.begin(0.04)
    assert goals.due(0.0) is None


def test_a_goal_is_sent_once_where_the_command_has_moved_far_enough():
    goals = GripperGoals(0.001, 0.2)
    goals.begin(0.04)
    goals.want(0.0395)
    assert goals.due(0.0) is None
    goals.want(0.03)
    assert goals.due(0.01) == 0.03
    assert goals.due(9.0) is None


def test_between_goals_lies_the_period_and_the_last_command_is_not_lost():
    goals = GripperGoals(0.001, 0.2)
    goals.begin(0.04)
    goals.want(0.03)
    assert goals.due(1.0) == 0.03
    goals.want(0.0)
    assert goals.due(1.1) is None
    assert goals.due(1.21) == 0.0


def test_at_rest_nothing_is_sent_though_a_goal_was_pending():
    goals = GripperGoals(0.001, 0.2)
    goals.begin(0.04)
    goals.want(0.0)
    goals.rest()
    assert goals.due(1.0) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 0.04), min_size=1, max_size=300))
def test_the_rate_is_bounded_and_the_end_is_reached_within_the_threshold(commands):
    goals = GripperGoals(0.001, 0.2)
    goals.begin(0.02)
    sent = [(-1.0, 0.02)]
    for tick, command in enumerate([*commands, *commands[-1:] * 25]):
        goals.want(command)
        position = goals.due(tick * 0.01)
        if position is not None:
            assert abs(position - sent[-1][1]) > 0.001
            assert tick * 0.01 - sent[-1][0] >= 0.2 - 1e-9
            sent.append((tick * 0.01, position))
    assert abs(sent[-1][1] - commands[-1]) <= 0.001
