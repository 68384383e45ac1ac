"""The launch files: required arguments, rejected arguments, and a policy that becomes active."""

import os
from pathlib import Path
import signal
import time

from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
import pytest
import rclpy

FOLDER = Path(__file__).resolve().parents[2] / 'launch'
COMMON = {
    'namespace', 'use_sim_time', 'params_file', 'autostart', 'log_level', 'use_respawn',
    'checkpoint', 'policy_config', 'embodiment', 'instruction'}
FILES = {
    'policy': COMMON | {'start_mux', 'start_policy'},
    'sim': COMMON | {'arms', 'task', 'seed'}}
REMAPS = {
    ('~/joint_trajectory', 'policy/joint_trajectory'), ('control_mode', 'command_mux/mode'),
    ('speed_scale', 'command_mux/speed_scale')}


@pytest.fixture
def launch():
    """Return the module launch; skip where this environment has none."""
    pytest.importorskip('launch_ros', reason='launch and launch_ros are not installed here')
    return pytest.importorskip('launch')


@pytest.fixture
def described(launch):
    """Return a function: launch file and arguments to (declared defaults, started actions)."""
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    def describe(name, **given):
        context = launch.LaunchContext()
        source = PythonLaunchDescriptionSource(str(FOLDER / f'{name}.launch.py'))
        *declarations, start = source.get_launch_description(context).entities
        context.launch_configurations.update(given)
        for declaration in declarations:
            declaration.execute(context)
        return {entry.name for entry in declarations}, context, start

    return describe


def actions_of(described, name, **given):
    """Return {executable: node action}, with their substitutions performed."""
    from launch_ros.actions import Node

    _, context, start = described(name, **given)
    nodes = [action for action in start.execute(context) if isinstance(action, Node)]
    for node in nodes:
        node._perform_substitutions(context)
    return {node.node_executable: node for node in nodes}


def fault_of(described, name, **given):
    """Return what a launch file says about arguments that it refuses."""
    _, context, start = described(name, **given)
    with pytest.raises(RuntimeError) as refused:
        start.execute(context)
    return str(refused.value)


@pytest.mark.parametrize('name', FILES)
def test_a_launch_file_compiles(name):
    compile((FOLDER / f'{name}.launch.py').read_text(), f'{name}.launch.py', 'exec')


@pytest.mark.parametrize('name', FILES)
def test_the_arguments_are_those_of_the_interface(described, name):
    assert described(name)[0] == FILES[name]


@pytest.mark.parametrize('name', FILES)
def test_the_policy_speaks_to_the_mux_in_any_namespace(described, untrained_checkpoint, name):
    for namespace in ('', 'cell/arm1'):
        nodes = actions_of(
            described, name, checkpoint=str(untrained_checkpoint), namespace=namespace)
        prefix = f'/{namespace}'.rstrip('/')
        assert {node.node_name for node in nodes.values()} == {
            f'{prefix}/{other}' for other in (
                ['lingbot_va_policy', 'command_mux'] + ['sim_robot'] * (name == 'sim'))}
        assert set(nodes['policy_node'].expanded_remapping_rules) == REMAPS


@pytest.mark.parametrize('arguments, words', [
    ({}, ['checkpoint is empty', 'autostart:=false']),
    ({'checkpoint': '/nowhere/weights'}, ['/nowhere/weights is not a folder']),
    ({'checkpoint': '{empty}'}, ['empty holds no policy.yaml']),
    ({'autostart': 'maybe'}, ["autostart is 'maybe'", 'true or false']),
    ({'use_sim_time': ''}, ["use_sim_time is ''", 'true or false']),
    ({'use_respawn': '2'}, ["use_respawn is '2'", 'true or false']),
    ({'log_level': 'loud'}, ["log_level is 'loud'", 'debug, info, warn']),
    ({'namespace': 'two words'}, ["namespace is 'two words'"]),
    ({'embodiment': 'unheard_of'}, ["'unheard_of'", 'sim_left']),
    ({'embodiment': '/nowhere/arm.yaml'}, ['/nowhere/arm.yaml']),
    ({'policy_config': 'unheard_of'}, ['unheard_of']),
    ({'params_file': '/nowhere/params.yaml'}, ['/nowhere/params.yaml']),
    ({'params_file': '{words}'}, ['words.yaml', 'ros__parameters']),
    ({'arms': 'three'}, ["arms is 'three'", 'left, right, both']),
    ({'seed': '-1'}, ["seed is '-1'", 'whole number']),
])
def test_a_bad_argument_is_refused_in_one_line(described, tmp_path, arguments, words):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'words.yaml').write_text('just words')
    places = {'empty': tmp_path / 'empty', 'words': tmp_path / 'words.yaml'}
    given = {name: value.format(**places) for name, value in arguments.items()}
    if 'checkpoint' not in arguments and arguments:
        given.setdefault('autostart', 'false')
    line = fault_of(described, 'sim', **given)
    assert all(word in line for word in words), line
    assert '\n' not in line


def test_all_bad_arguments_are_named_at_once(described):
    line = fault_of(described, 'sim', checkpoint='/nowhere', autostart='maybe', arms='three')
    assert all(word in line for word in ('checkpoint', 'autostart', 'arms')), line


@pytest.mark.parametrize('arms, embodiment', [
    ('left', 'sim_left'), ('right', 'sim_right'), ('both', 'sim_dual')])
def test_the_embodiment_follows_the_simulated_arms(described, arms, embodiment):
    from lingbot_va_ros.launching.arguments import read, SimArguments

    _, context, _ = described('sim', autostart='false', arms=arms)
    assert read(context, SimArguments).embodiment == embodiment


def test_a_checkpoint_in_the_parameter_file_is_enough(described, tmp_path):
    params = tmp_path / 'params.yaml'
    params.write_text('/**/lingbot_va_policy: {ros__parameters: {checkpoint: /somewhere}}')
    assert 'policy_node' in actions_of(described, 'policy', params_file=str(params))


def test_each_machine_starts_its_own_node(described, untrained_checkpoint):
    at_the_robot = actions_of(described, 'policy', start_policy='false')  # needs no checkpoint
    at_the_gpu = actions_of(
        described, 'policy', start_mux='false', checkpoint=str(untrained_checkpoint))
    assert (set(at_the_robot), set(at_the_gpu)) == ({'command_mux'}, {'policy_node'})
    line = fault_of(described, 'policy', start_mux='false', start_policy='false')
    assert 'start_mux and start_policy are both false' in line and '\n' not in line


def test_the_image_profile_is_set_unless_the_user_has_one(launch, monkeypatch):
    from lingbot_va_ros.launching.nodes import image_profile, PROFILE_VARIABLES

    for variable in PROFILE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert set(image_profile()) == set(PROFILE_VARIABLES)
    assert all(Path(path).is_file() for path in image_profile().values())
    for variable in PROFILE_VARIABLES:
        with monkeypatch.context() as patch:
            patch.setenv(variable, '/home/user/own.xml')
            assert image_profile() == {}


class Watcher:
    """A node that looks at what the launch has brought up."""

    def __init__(self):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('watcher', context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def wait_until(self, condition, seconds=60.0):
        """Spin until a condition holds and return whether it did."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.executor.spin_once(timeout_sec=0.05)
        return True

    def state(self, client):
        """Return the lifecycle state that the node answers, or None."""
        if not client.service_is_ready():
            return None
        future = client.call_async(GetState.Request())
        if not self.wait_until(future.done, 1.0):
            client.remove_pending_request(future)
            return None
        return future.result().current_state.id

    def value(self, node, name):
        """Return what a node's parameter is, as the message has it."""
        from rcl_interfaces.srv import GetParameters
        client = self.node.create_client(GetParameters, f'{node}/get_parameters')
        assert client.wait_for_service(10.0)
        future = client.call_async(GetParameters.Request(names=[name]))
        assert self.wait_until(future.done, 10.0)
        self.node.destroy_client(client)
        return future.result().values[0]


@pytest.fixture
def watcher():
    """Return a Watcher, in a context of its own."""
    made = Watcher()
    yield made
    made.node.destroy_node()
    rclpy.shutdown(context=made.context)


@pytest.mark.timeout(180)
def test_the_simulation_comes_up_survives_a_crash_and_ends_on_ctrl_c(
        launch, launch_file, watcher, untrained_checkpoint, tmp_path):
    params = tmp_path / 'params.yaml'
    # The last key names every node: rcl would let it win over the arguments.
    params.write_text(
        '/**/lingbot_va_policy: {ros__parameters: {control_rate: 20.0}}\n'
        '/**/sim_robot: {ros__parameters: {camera_rate: 10.0}}\n'
        '/**: {ros__parameters: {embodiment: sim_dual, instruction: in the file}}\n')
    states = watcher.node.create_client(GetState, '/cell/lingbot_va_policy/get_state')

    def active():
        return watcher.state(states) == State.PRIMARY_STATE_ACTIVE

    with launch_file(
            'sim', f'checkpoint:={untrained_checkpoint}', 'namespace:=cell', 'use_respawn:=true',
            f'params_file:={params}', 'embodiment:=sim_left', 'instruction:=no') as launched:
        assert watcher.wait_until(active), launched.output
        for topic in ('policy/joint_trajectory', 'command_mux/mode', 'executed',
                      'joint_trajectory_controller/joint_trajectory'):
            assert watcher.wait_until(
                lambda topic=topic: watcher.node.count_publishers(f'/cell/{topic}') == 1
                and watcher.node.count_subscribers(f'/cell/{topic}') == 1, 10), topic
        policy = '/cell/lingbot_va_policy'
        assert watcher.value(policy, 'instruction').string_value == 'no'
        assert watcher.value(policy, 'control_rate').double_value == 20.0
        assert watcher.value('/cell/command_mux', 'embodiment').string_value == 'sim_left'
        assert watcher.value('/cell/sim_robot', 'camera_rate').double_value == 10.0

        os.kill(launched.pid_of('policy_node'), signal.SIGKILL)
        launched.wait_for('lingbot_va_policy ended with exit code -9')
        launched.wait_for(r'policy_node-\d+\]: process started', times=2)
        assert watcher.wait_until(active), launched.output

        seconds = launched.interrupt()
        assert launched.process.returncode == 0, launched.output
        assert launched.running() == []
        assert seconds < 5.0


@pytest.mark.timeout(180)
def test_two_launches_in_one_namespace_work_together_and_the_mux_outlives_the_policy(
        launch, launch_file, watcher, untrained_checkpoint):
    states = watcher.node.create_client(GetState, '/cell/lingbot_va_policy/get_state')
    arguments = ('namespace:=cell', 'embodiment:=sim_left')
    with launch_file('policy', 'start_policy:=false', *arguments) as robot:
        with launch_file(
                'policy', 'start_mux:=false', f'checkpoint:={untrained_checkpoint}',
                'instruction:=go', *arguments) as gpu:
            assert watcher.wait_until(
                lambda: watcher.state(states) == State.PRIMARY_STATE_ACTIVE), gpu.output
            for topic in ('policy/joint_trajectory', 'command_mux/mode', 'executed'):
                assert watcher.wait_until(
                    lambda topic=topic: watcher.node.count_publishers(f'/cell/{topic}') == 1
                    and watcher.node.count_subscribers(f'/cell/{topic}') == 1, 10), topic
            gpu.interrupt()
            assert gpu.running() == []
        assert len(robot.running()) == 1
        robot.interrupt()
        assert robot.running() == []


@pytest.mark.timeout(120)
def test_a_policy_that_cannot_be_configured_is_told(launch, launch_file, watcher, tmp_path):
    (tmp_path / 'policy.yaml').write_text(
        (FOLDER.parent / 'config' / 'policies' / 'untrained.yaml').read_text())
    with launch_file('policy', f'checkpoint:={tmp_path}') as launched:
        launched.wait_for('/lingbot_va_policy could not be configured')
        states = watcher.node.create_client(GetState, '/lingbot_va_policy/get_state')
        assert watcher.wait_until(
            lambda: watcher.state(states) == State.PRIMARY_STATE_UNCONFIGURED, 10)
        launched.interrupt()
        assert launched.running() == []


def test_the_launch_ends_where_the_simulated_robot_cannot_start(launch, launch_file):
    with launch_file('sim', 'autostart:=false', 'task:=unheard_of') as launched:
        launched.process.wait(timeout=50)
        assert launched.process.returncode == 1, launched.output
        assert "parameter task is 'unheard_of'; expected one of table" in launched.output
        assert launched.running() == []
