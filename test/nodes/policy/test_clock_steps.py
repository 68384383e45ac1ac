"""The policy node while the system clock is set, without /clock: it goes on by itself."""

import time

import numpy as np
import pytest
from support.messages import nanoseconds
from support.policy_world import altered_policy_at_work, NS
from support.spinning import spinning_node
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope='module')
def node():
    with spinning_node('test_clock_steps') as node:
        yield node


@pytest.fixture(scope='module')
def stepped(node, tmp_path_factory, untrained_checkpoint):
    """The policy at work, and a function that sets the clock of it and of its robot."""
    with altered_policy_at_work(
            node, tmp_path_factory.mktemp('clock'), untrained_checkpoint,
            'LINGBOT_VA_TEST_CLOCK_FILE', '0.0') as (world, write):
        offset = [0.0]
        world.clock = lambda: time.time_ns() + round(offset[0] * NS)

        def step(seconds):
            offset[0] += seconds
            now = world.clock()
            write(str(offset[0]))
            return now

        wait_for(lambda: world.status.memory_frames, 'a memory')
        yield world, step


@pytest.mark.parametrize('steps', [(-600.0,), (-8.0,), (-1.5,), (5.0,), (-8.0, -1.5), (5.0, -8.0)])
def test_chunks_begin_again_in_the_new_time(stepped, steps):
    """After a step back a new epoch begins, with an image; after one forward the memory holds."""
    world, step = stepped
    wait_for(lambda: world.chunks and any(
        any(point.velocities) for point in world.plans[-1].points), 'motion')
    epoch, lines = world.status.epoch, world.log().count('the clock stepped by')
    for index, seconds in enumerate(steps):
        now = step(seconds)
        wait_for(lambda: world.log().count('the clock stepped by') > lines + index, 'a step found')
    statuses, frames = len(world.statuses), world.status.memory_frames
    expected = epoch + sum(seconds < 0 for seconds in steps)
    wait_for(lambda: world.status.epoch == expected, f'epoch {expected}')
    chunks = len(world.chunks)
    wait_for(lambda: len(world.chunks) >= chunks + 2, 'two chunks')
    for chunk in world.chunks[chunks:]:
        assert chunk.epoch == expected
        assert nanoseconds(chunk.observation_stamp) <= world.clock()
        assert now <= nanoseconds(chunk.observation_stamp) or expected == epoch
        assert now <= nanoseconds(chunk.header.stamp) <= world.clock() + NS
    assert not [status for status in world.statuses[statuses:] if 'off the time' in status.reason]
    assert expected > epoch or world.status.memory_frames >= frames
    times = np.array([nanoseconds(plan.header.stamp) for plan in world.new_plans(20)])
    assert (np.diff(times) > 0).all() and abs(times[-1] - world.clock()) < 60 * NS
    assert 'Traceback' not in world.log()
