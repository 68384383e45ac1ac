"""The plan: it passes through the actions, stays between neighbours, and always ends at rest."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from lingbot_va_ros.motion.plan import MotionLimits, Plan, resting_at
from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.motion.splice import continued, plan_from_actions, resumed
from lingbot_va_ros.motion.time import NANOSECONDS

NOW = 1_700_000_000_123_456_789
PERIOD = 0.1
MAX_VELOCITY = np.array([2.0, 1.0])
LIMITS = MotionLimits(
    np.full(2, -100.0), np.full(2, 100.0), np.array([20.0, 10.0]), np.array([10.0, 4.0]))

joint_rows = st.lists(st.floats(-2, 2, width=32), min_size=2, max_size=2).map(np.array)
chunks = st.lists(joint_rows, min_size=1, max_size=12).map(np.stack)
quick = settings(max_examples=80, deadline=None)


def make_plan(start, actions):
    return plan_from_actions(start, actions, PERIOD, NOW, MAX_VELOCITY)


def ns(seconds: float) -> int:
    return NOW + round(seconds * NANOSECONDS)


def moments(first: int, last: int, count: int):
    """Return times from first to last; offsets, because floats cannot hold them to 1 ns."""
    return [int(first) + round(share * int(last - first)) for share in np.linspace(0, 1, count)]


@quick
@given(joint_rows, chunks)
def test_a_plan_passes_through_every_action_when_it_is_due(start, actions):
    plan, first_due = make_plan(start, actions)
    np.testing.assert_array_equal(plan.sample(NOW)[0], start)
    for place, action in enumerate(actions):
        due = first_due + round(place * PERIOD * NANOSECONDS)
        np.testing.assert_allclose(plan.sample(due)[0], action, atol=1e-6)


@quick
@given(joint_rows, chunks)
def test_a_plan_begins_and_ends_at_rest(start, actions):
    plan, _ = make_plan(start, actions)
    np.testing.assert_array_equal(plan.sample(NOW)[1], 0)
    for later in (0, 1, NANOSECONDS):
        position, velocity = plan.sample(plan.end_ns + later)
        np.testing.assert_allclose(position, actions[-1], atol=1e-12)
        np.testing.assert_array_equal(velocity, 0)


@quick
@given(joint_rows, chunks)
def test_positions_never_leave_the_range_of_neighbouring_actions(start, actions):
    plan, _ = make_plan(start, actions)
    rows = np.vstack((start, actions))
    for before, after, first, last in zip(rows, rows[1:], plan.times_ns, plan.times_ns[1:]):
        low, high = np.minimum(before, after) - 1e-9, np.maximum(before, after) + 1e-9
        for time in moments(first, last, 9):
            position, _ = plan.sample(time)
            assert np.all(position >= low) and np.all(position <= high)


@quick
@given(joint_rows, chunks, st.floats(0, 1.5))
def test_the_velocity_is_the_slope_of_the_position(start, actions, seconds):
    plan, _ = make_plan(start, actions)
    step, time = 1000, ns(seconds)
    ahead, behind = plan.sample(time + step)[0], plan.sample(time - step)[0]
    slope = (ahead - behind) / (2 * step / NANOSECONDS)
    np.testing.assert_allclose(plan.sample(time)[1], slope, atol=2e-2)


@quick
@given(joint_rows, joint_rows)
def test_the_way_to_the_first_action_keeps_the_speed_limit(start, action):
    plan, first_due = make_plan(start, action[None])
    assert first_due - NOW >= round(PERIOD * NANOSECONDS)
    for time in moments(NOW, first_due, 21):
        assert np.all(np.abs(plan.sample(time)[1]) <= MAX_VELOCITY * (1 + 1e-6))


def test_a_near_first_action_is_due_after_one_period():
    _, first_due = make_plan(np.zeros(2), np.full((3, 2), 0.01))
    assert first_due == ns(PERIOD)


def test_times_are_exact_to_the_nanosecond_at_todays_clock():
    plan, first_due = make_plan(np.zeros(2), np.full((16, 2), 0.01))
    assert plan.times_ns.dtype == np.int64
    assert plan.end_ns == first_due + 15 * 100_000_000


@quick
@given(joint_rows, chunks, st.floats(-0.1, 2.5))
def test_a_stop_keeps_the_acceleration_limits_and_ends_at_rest(start, actions, seconds):
    plan, _ = make_plan(start, actions)
    position, velocity = plan.sample(ns(seconds))
    velocity = np.clip(velocity, -LIMITS.velocity, LIMITS.velocity)
    stop = plan.braked(ns(seconds), LIMITS)
    at, speed = stop.sample(ns(seconds))
    np.testing.assert_allclose(at, position, atol=1e-12)
    # A joint slower than its limit takes to stop within a millisecond counts as resting.
    np.testing.assert_allclose(speed, velocity, atol=1e-3 * LIMITS.acceleration.max())
    times = moments(ns(seconds), stop.end_ns, 20)
    speeds = np.stack([stop.sample(time)[1] for time in times])
    for before, after, first, last in zip(speeds, speeds[1:], times, times[1:]):
        assert np.all(np.abs(after - before) <= (
            LIMITS.acceleration * (last - first) / NANOSECONDS * (1 + 1e-3) + 1e-6))
        assert np.all(np.abs(after) <= np.abs(before) + 1e-6), 'a joint sped up'
    np.testing.assert_array_equal(stop.sample(stop.end_ns + 1)[1], 0)
    np.testing.assert_array_equal(stop.velocities[-1], 0)


@quick
@given(st.floats(-0.99, 0.99), st.floats(-20.0, 20.0))
def test_a_stop_never_leads_out_of_the_position_limits(place, speed):
    position = np.full(2, place)
    bounds = MotionLimits(
        np.full(2, -1.0), np.full(2, 1.0), np.full(2, 3.0), np.full(2, 2.0))
    plan = Plan(
        np.array([0, NANOSECONDS]), np.stack((position, position)),
        np.array([[speed, -speed / 3], [0.0, 0.0]]))
    stop = plan.braked(0, bounds)
    for time in moments(0, stop.end_ns, 20):
        assert np.all(np.abs(stop.sample(time)[0]) <= 1.0 + 1e-9)


REACTION = 0.05
near_rows = st.lists(st.floats(-0.03, 0.03), min_size=2, max_size=2).map(np.array)
near_chunks = st.lists(near_rows, min_size=2, max_size=8).map(np.stack)
during = st.floats(0.0, 0.999)  # share of the running plan that is over


def continue_at(share, start, actions, further, since_ns=0):
    plan, _ = make_plan(start, actions)
    now = NOW + round(share * (plan.end_ns - NOW))
    return plan, now, *continued(
        plan, further, PERIOD, now, REACTION, MAX_VELOCITY, since_ns)


@quick
@given(near_rows, near_chunks, near_chunks, during)
def test_a_chunk_in_time_begins_one_period_after_the_last_action(start, actions, further, share):
    plan, now, longer, first_due = continue_at(share, start, actions, further)
    if now + round(REACTION * NANOSECONDS) > plan.end_ns - 1_000_000:
        assert first_due >= plan.end_ns + round(PERIOD * NANOSECONDS)
    else:
        assert first_due == plan.end_ns + round(PERIOD * NANOSECONDS)
    rows = np.concatenate((actions, further))
    dues = [plan.end_ns - round(i * PERIOD * NANOSECONDS) for i in range(len(actions))][::-1]
    dues += [first_due + round(i * PERIOD * NANOSECONDS) for i in range(len(further))]
    for action, due in zip(rows, dues):
        np.testing.assert_allclose(longer.sample(due)[0], action, atol=1e-6)
    np.testing.assert_array_equal(longer.velocities[-1], 0)


@quick
@given(joint_rows, chunks, chunks, during)
def test_nothing_changes_before_the_new_plan_is_heard_of(start, actions, further, share):
    plan, now, longer, _ = continue_at(share, start, actions, further)
    until = min(now + round(REACTION * NANOSECONDS), plan.end_ns)
    for time in moments(now, until, 11):
        np.testing.assert_allclose(longer.sample(time)[0], plan.sample(time)[0], atol=1e-9)
        if time < plan.end_ns:
            np.testing.assert_allclose(longer.sample(time)[1], plan.sample(time)[1], atol=1e-6)


@quick
@given(near_rows, near_chunks, near_chunks, during)
def test_position_and_velocity_are_continuous_at_the_seam(start, actions, further, share):
    _, now, longer, first_due = continue_at(share, start, actions, further)
    assert np.all(np.diff(longer.times_ns) > 0)
    for knot in longer.times_ns[longer.times_ns >= now]:
        before, after = longer.sample(int(knot) - 1000), longer.sample(int(knot) + 1000)
        np.testing.assert_allclose(after[0], before[0], atol=1e-4)
        np.testing.assert_allclose(after[1], before[1], atol=5e-2)


@quick
@given(near_rows, near_chunks, near_chunks, during)
def test_a_joined_plan_never_leaves_the_range_of_neighbouring_actions(
        start, actions, further, share):
    _, _, longer, _ = continue_at(share, start, actions, further)
    for index in range(len(longer.times_ns) - 1):
        rows = longer.positions[index:index + 2]
        for time in moments(longer.times_ns[index], longer.times_ns[index + 1], 9):
            position, _ = longer.sample(time)
            assert np.all(position >= rows.min(0) - 1e-9)
            assert np.all(position <= rows.max(0) + 1e-9)


def test_motion_in_one_direction_does_not_slow_down_at_the_seam():
    ramp = np.outer(np.arange(1, 9), [0.05, -0.02])
    plan, now, longer, first_due = continue_at(0.3, np.zeros(2), ramp, ramp + ramp[-1])
    np.testing.assert_allclose(plan.sample(plan.end_ns)[1], 0)
    np.testing.assert_allclose(longer.sample(plan.end_ns)[1], [0.5, -0.2], atol=1e-6)


@pytest.mark.parametrize('left, fastest', [(0.14, 0.51), (0.09, 0.51), (0.06, 0.2)])
def test_the_later_it_is_the_slower_the_seam_is_passed(left, fastest):
    ramp = np.outer(np.arange(1, 9), [0.05, -0.02])
    plan, _ = make_plan(np.zeros(2), ramp)
    now = plan.end_ns - round(left * NANOSECONDS)
    longer, _ = continued(plan, ramp + ramp[-1], PERIOD, now, REACTION, MAX_VELOCITY)
    speeds = np.stack([longer.sample(time)[1] for time in moments(now, plan.end_ns, 200)])
    assert longer.sample(plan.end_ns)[1][0] > 0.05
    assert speeds[-1][0] < fastest
    # rad/s^2; the stop itself asks for 20
    assert np.abs(np.diff(speeds, axis=0)).max() * 200 / left < 50


@quick
@given(near_rows, near_chunks, joint_rows, during)
def test_a_far_first_action_is_approached_within_the_speed_limits(start, actions, far, share):
    further = np.repeat(far[None], 40, 0)
    plan, now, longer, first_due = continue_at(share, start, actions, further)
    for time in moments(plan.end_ns, longer.end_ns, 100):
        assert np.all(np.abs(longer.sample(time)[1]) <= MAX_VELOCITY * (1 + 1e-6))
    np.testing.assert_allclose(longer.positions[-1], far, atol=1e-9)


@pytest.mark.parametrize('late, in_time', [(0.0, True), (0.04, True), (0.06, False)])
def test_a_chunk_that_is_a_little_late_still_begins_in_time(late, in_time):
    ramp = np.outer(np.arange(1, 9), [0.05, -0.02])
    plan, _ = make_plan(np.zeros(2), ramp)
    now = plan.end_ns + round((late - REACTION) * NANOSECONDS)
    longer, first_due = continued(plan, ramp + ramp[-1], PERIOD, now, REACTION, MAX_VELOCITY)
    assert (first_due == plan.end_ns + round(PERIOD * NANOSECONDS)) == in_time
    resting = longer.sample(min(now + round(REACTION * NANOSECONDS), first_due))
    assert in_time is False or np.allclose(resting[0], ramp[-1])
    np.testing.assert_allclose(longer.sample(first_due)[0], ramp[0] + ramp[-1], atol=1e-9)


def test_a_late_chunk_begins_from_rest_and_leaves_no_action_out():
    ramp = np.outer(np.arange(1, 9), [0.05, -0.02])
    plan, _ = make_plan(np.zeros(2), ramp)
    late = plan.end_ns + NANOSECONDS
    longer, first_due = continued(plan, ramp + ramp[-1], PERIOD, late, REACTION, MAX_VELOCITY)
    assert first_due == late + round(PERIOD * NANOSECONDS)
    np.testing.assert_array_equal(longer.sample(late)[0], ramp[-1])
    np.testing.assert_array_equal(longer.sample(late)[1], 0)
    np.testing.assert_allclose(longer.positions[-8:], ramp + ramp[-1])


def test_a_chunk_that_comes_while_a_stop_is_under_way_begins_where_the_stop_ends():
    ramp = np.outer(np.arange(1, 9), [0.05, -0.02])
    stop = make_plan(np.zeros(2), ramp)[0].braked(ns(0.35), LIMITS)
    assert stop.end_ns > ns(0.36)
    plan, first_due = resumed(stop, ramp, PERIOD, ns(0.36), MAX_VELOCITY)
    assert first_due >= stop.end_ns + round(PERIOD * NANOSECONDS)
    for time in range(ns(0.36), stop.end_ns + 1, 1_000_000):
        np.testing.assert_allclose(plan.sample(time)[0], stop.sample(time)[0], atol=1e-12)
        np.testing.assert_allclose(plan.sample(time)[1], stop.sample(time)[1], atol=1e-9)
    np.testing.assert_array_equal(plan.positions[-8:], ramp)


def test_knots_of_the_chunk_before_the_running_one_are_left_out():
    ramp = np.outer(np.arange(1, 9), [0.05, -0.02])
    plan, first_due = make_plan(np.zeros(2), ramp)
    longer, _ = continued(
        plan, ramp + ramp[-1], PERIOD, ns(0.5), REACTION, MAX_VELOCITY, first_due)
    assert longer.times_ns[0] == first_due and len(longer.times_ns) == 16


def test_a_stop_of_a_resting_plan_stays_where_it_is():
    stop = resting_at(NOW, np.array([0.3, 0.4])).braked(ns(1.0), LIMITS)
    np.testing.assert_array_equal(stop.sample(ns(2.0))[0], [0.3, 0.4])
    np.testing.assert_array_equal(stop.sample(ns(2.0))[1], 0)


@quick
@given(joint_rows, chunks, st.floats(-0.1, 2.5), st.sampled_from([0.005, 0.02, 0.2]))
def test_what_remains_has_rising_times_ahead_of_now_and_ends_at_rest(
        start, actions, seconds, period):
    plan, _ = make_plan(start, actions)
    times, positions, velocities = plan.remainder(ns(seconds), period)
    assert len(times) == len(positions) == len(velocities)
    assert times[0] > 0 and np.all(np.diff(times) > 0)
    assert np.all(velocities[-1] == 0)
    np.testing.assert_allclose(positions[-1], actions[-1], atol=1e-12)


@quick
@given(joint_rows, chunks, st.floats(0, 2.5))
def test_a_controller_that_interpolates_what_remains_does_what_was_planned(
        start, actions, seconds):
    plan, _ = make_plan(start, actions)
    period, now = 0.02, ns(seconds)
    times, positions, velocities = plan.remainder(now, period)
    message = Plan(
        now + np.round(times * NANOSECONDS).astype(np.int64), positions, velocities)
    # From the first point on until well after the next message would have come. A knot close
    # behind the first point is left out, which cuts its corner a little.
    step = np.abs(np.diff(plan.positions, axis=0)).max()
    for ahead in np.linspace(period, 0.3, 29):
        wanted, _ = plan.sample(now + round(ahead * NANOSECONDS))
        found, _ = message.sample(now + round(ahead * NANOSECONDS))
        np.testing.assert_allclose(found, wanted, atol=0.1 * step + 1e-9)


@pytest.mark.parametrize('before_end', [0.015, 0.021, 0.025, 0.0299, 0.035])
def test_a_controller_that_hears_no_more_stops_at_the_last_action(before_end):
    plan, _ = make_plan(np.zeros(2), np.full((1, 2), 0.1))
    now = plan.end_ns - round(before_end * NANOSECONDS)
    times, positions, velocities = plan.remainder(now, 0.02)
    message = Plan(
        now + np.round(times * NANOSECONDS).astype(np.int64), positions, velocities)
    for ahead in np.linspace(times[0], 1.0, 200):
        assert np.all(message.sample(now + round(ahead * NANOSECONDS))[0] <= 0.1 + 1e-9)


def test_a_plan_that_has_ended_is_a_hold():
    plan, _ = make_plan(np.zeros(2), np.ones((1, 2)))
    times, positions, velocities = plan.remainder(plan.end_ns + NANOSECONDS, 0.02)
    np.testing.assert_allclose(times, [0.02, 0.52])
    np.testing.assert_array_equal(positions, np.ones((2, 2)))
    np.testing.assert_array_equal(velocities, np.zeros((2, 2)))


def make_slot(now=NOW):
    slot = PlanSlot(lambda: now)
    slot.begin(LIMITS)
    return slot


def moving():
    return make_plan(np.zeros(2), np.ones((4, 2)))[0]


def test_a_slot_begins_in_epoch_one_without_a_plan():
    slot = make_slot()
    assert slot.epoch == 1 and slot.current() == (None, NOW)


def test_a_slot_takes_a_plan_of_the_present_epoch():
    slot, plan, told = make_slot(), moving(), []
    assert slot.put(plan, 1, lambda: told.append(1))
    assert slot.current()[0] is plan and told == [1]


def test_a_slot_refuses_a_plan_of_an_epoch_that_has_passed():
    slot, told = make_slot(), []
    slot.stop(new_epoch=True)
    assert not slot.put(moving(), 1, lambda: told.append(1))
    assert slot.current()[0] is None and told == []
    assert slot.put(moving(), 2)


def test_a_stop_replaces_the_plan_and_keeps_the_epoch_unless_asked():
    slot = make_slot(ns(0.5))
    slot.put(moving(), 1)
    stop, now = slot.stop()
    assert slot.epoch == 1
    assert slot.current() == (stop, now)
    np.testing.assert_allclose(stop.sample(ns(0.5))[0], moving().sample(ns(0.5))[0])
    np.testing.assert_array_equal(stop.velocities[-1], 0)
    slot.stop(new_epoch=True)
    assert slot.epoch == 2


def test_a_stop_without_a_plan_is_no_plan():
    slot = make_slot()
    slot.stop()
    assert slot.current()[0] is None


def test_a_cleared_slot_has_no_plan():
    slot = make_slot()
    slot.put(moving(), 1)
    slot.clear()
    assert slot.current()[0] is None


@pytest.mark.parametrize('lead', [0.5, 0.0])
def test_a_lead_joins_a_state_to_a_plan_that_has_not_begun(lead):
    plan = moving()
    q, v = np.array([0.2, -0.1]), np.array([0.1, 0.0])
    led = plan.led_to(ns(-lead), q, v)
    if lead == 0:
        assert led is plan
    else:
        np.testing.assert_allclose(led.sample(ns(-lead))[0], q)
        np.testing.assert_allclose(led.sample(ns(-lead))[1], v)
        np.testing.assert_allclose(led.sample(ns(0.05))[0], plan.sample(ns(0.05))[0])
