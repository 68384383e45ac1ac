"""The instruction over real DDS, while the text encoder is held up: nothing else waits."""

from lifecycle_msgs.msg import Transition
import pytest
from rcl_interfaces.srv import GetParameters
from support.policy_world import altered_policy_at_work
from support.spinning import spinning_node
from support.waiting import wait_for

from lingbot_va_ros.msg import PolicyStatus
from lingbot_va_ros.srv import SetInstruction

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope='module')
def node():
    with spinning_node('test_instruction') as node:
        yield node


@pytest.fixture(scope='module')
def running(node, tmp_path_factory, untrained_checkpoint):
    """The policy at work, and a function that holds up the encoding of a text, or of none."""
    folder = tmp_path_factory.mktemp('instruction')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(folder))
        with altered_policy_at_work(
                node, folder, untrained_checkpoint, 'LINGBOT_VA_TEST_TEXT_FILE', '') as running:
            yield running


@pytest.fixture
def world(running):
    """The policy at work on the instruction `go`, whose text is known; other texts are not."""
    world, hold = running
    assert world.instruct('go').success
    wait_for(lambda: world.status.memory_frames and world.status.instruction == 'go', 'a memory')
    yield world
    hold('')


@pytest.fixture
def hold(running):
    return running[1]


def parameter(world, name='instruction'):
    answer = world.call(GetParameters, 'get_parameters', GetParameters.Request(names=[name]))
    return answer.values[0]


def encoding(world):
    return world.status.reason.startswith('encoding the instruction')


def test_a_parameter_is_taken_at_once_and_its_text_is_encoded_apart(world, hold):
    epoch = world.status.epoch
    hold('towel')
    result, = world.set(instruction='fold the towel')
    assert result.successful
    assert parameter(world).string_value == 'fold the towel'
    wait_for(lambda: encoding(world), 'the encoding')
    statuses, plans = len(world.statuses), len(world.plans)
    assert world.status.mode == PolicyStatus.WAITING
    assert world.status.instruction == 'fold the towel'
    result, = world.set(video_steps=2)
    assert result.successful and parameter(world, 'video_steps').integer_value == 2
    # The executor goes on: statuses and plans come while the text is encoded.
    wait_for(lambda: len(world.statuses) > statuses + 2 and len(world.plans) > plans + 20,
             'statuses and plans')
    assert encoding(world)
    chunks = len(world.chunks)
    hold('')
    wait_for(lambda: len(world.chunks) > chunks, 'a chunk for the new instruction')
    assert world.status.instruction == parameter(world).string_value == 'fold the towel'
    # Images came meanwhile: no camera is at fault, and no epoch began.
    assert not [status for status in world.statuses[statuses:] if 'camera' in status.reason]
    assert world.status.epoch == epoch
    assert 'Traceback' not in world.log()


def test_a_service_waits_for_its_text_and_parameter_and_status_say_it_meanwhile(world, hold):
    hold('bowls')
    client = world.node.create_client(SetInstruction, f'{world.name}/set_instruction')
    assert client.wait_for_service(10.0)
    answer = client.call_async(SetInstruction.Request(instruction='stack the bowls'))
    wait_for(lambda: encoding(world), 'the encoding')
    assert parameter(world).string_value == world.status.instruction == 'stack the bowls'
    assert not answer.done()
    world.set(instruction='wipe the plate')
    assert parameter(world).string_value == 'wipe the plate'
    hold('plate')
    wait_for(answer.done, 'the answer')
    assert answer.result().success
    wait_for(lambda: encoding(world) and 'wipe' in world.status.reason, 'the other encoding')
    chunks = len(world.chunks)
    hold('')
    wait_for(lambda: len(world.chunks) > chunks, 'a chunk for the last instruction')
    assert world.status.instruction == parameter(world).string_value == 'wipe the plate'
    world.node.destroy_client(client)


def test_reset_and_deactivate_do_not_wait_for_an_encoding(world, hold):
    epoch = world.status.epoch
    hold('screws')
    world.set(instruction='sort the screws')
    wait_for(lambda: "encoding 'sort the screws'" in world.log(), 'the encoding')
    assert world.reset().success  # answers come while the text is held up
    assert world.change(Transition.TRANSITION_DEACTIVATE)
    hold('')
    assert world.change(Transition.TRANSITION_ACTIVATE)
    chunks = len(world.chunks)
    wait_for(lambda: len(world.chunks) > chunks, 'a chunk for the new instruction')
    assert world.status.instruction == 'sort the screws' and world.status.epoch == epoch + 1


def test_guidance_that_the_memory_cannot_take_is_refused_at_once(world):
    result, = world.set(guidance_scale=5.0)
    assert not result.successful and 'two halves' in result.reason
    result, = world.set(video_exec_steps=50)
    assert not result.successful and 'video_exec_steps is 50' in result.reason
    for value in (-1, 1001, 10 ** 12):
        result, = world.set(video_steps=value)
        assert not result.successful and 'video_steps' in result.reason
    result, = world.set(video_steps=0)
    assert result.successful
