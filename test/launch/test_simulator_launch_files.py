"""The launch files for Gazebo and Isaac Sim: started processes and rejected arguments."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
import xml.etree.ElementTree as ElementTree

import pytest
import rclpy
import yaml

from lingbot_va_ros.launching.bridges import check_gazebo_bridge, read_isaac_topics
from lingbot_va_ros.launching.description import describe
from lingbot_va_ros.specs.embodiment import load_embodiment

CHECKOUT = Path(__file__).resolve().parents[2]
EMBODIMENTS = {'left': 'sim_left', 'right': 'sim_right', 'both': 'sim_dual'}
COMMON = {
    'namespace', 'use_sim_time', 'params_file', 'autostart', 'log_level', 'use_respawn',
    'checkpoint', 'policy_config', 'embodiment', 'instruction'}
FILES = {
    'gazebo': COMMON | {'arms', 'world', 'headless', 'bridge_config'},
    'isaac': COMMON | {'arms', 'bridge_config', 'start_controllers'}}
PACKAGES = (
    'ros_gz_sim', 'ros_gz_bridge', 'ros_gz_image', 'gz_ros2_control', 'controller_manager',
    'robot_state_publisher', 'xacro', 'joint_state_broadcaster', 'joint_trajectory_controller',
    'joint_state_topic_hardware_interface')


@pytest.fixture
def launch():
    """Return the module launch; skip where this environment has none."""
    pytest.importorskip('launch_ros', reason='launch and launch_ros are not installed here')
    return pytest.importorskip('launch')


@pytest.fixture
def known_packages(tmp_path, monkeypatch):
    """Let ament's index know the simulators' packages; nothing of them is there to be run."""
    prefix = tmp_path / 'prefix'
    index = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages'
    index.mkdir(parents=True)
    for package in PACKAGES:
        (index / package).write_text('')
        (prefix / 'share' / package).mkdir()
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(prefix), prepend=':')


@pytest.fixture
def started(launch):
    """Return a function: launch file and arguments to what it would start."""
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    def start(name, **given):
        context = launch.LaunchContext()
        source = PythonLaunchDescriptionSource(str(CHECKOUT / 'launch' / f'{name}.launch.py'))
        *declarations, opaque = source.get_launch_description(context).entities
        assert {entry.name for entry in declarations} == FILES[name]
        context.launch_configurations.update(given)
        for declaration in declarations:
            declaration.execute(context)
        return context, opaque.execute(context)

    return start


def nodes_of(context, actions):
    """Return {executable: node} with substitutions performed, command line and parameters too."""
    from launch.actions import RegisterEventHandler
    from launch.event_handlers import OnProcessExit
    from launch_ros.actions import Node

    actions = list(actions)
    context.extend_locals({'event': SimpleNamespace(returncode=0)})
    for action in list(actions):  # what follows when a process has ended well
        if isinstance(action, RegisterEventHandler) and isinstance(
                action.event_handler, OnProcessExit):
            for entity in action.event_handler.describe()[1]:
                actions += entity.execute(context) or []
    found = [action for action in actions if isinstance(action, Node)]
    for node in found:
        node._perform_substitutions(context)
    return {node.node_executable: node for node in found}


def words_of(node):
    """Return the arguments of a node's command line."""
    return node._Node__arguments


def parameters_of(node):
    """Return the parameters of a node as one dictionary; files are read."""
    merged = {}
    for entry, is_file in node._Node__expanded_parameter_arguments:
        text = Path(entry).read_text() if is_file else entry
        for section in yaml.safe_load(text).values():
            merged.update(section['ros__parameters'])
    return merged


# Gazebo


@pytest.mark.parametrize('arms', EMBODIMENTS)
def test_gazebo_gets_the_robot_its_bridges_and_its_controllers(
        started, known_packages, untrained_checkpoint, arms):
    context, actions = started(
        'gazebo', checkpoint=str(untrained_checkpoint), arms=arms, namespace='cell')
    nodes = nodes_of(context, actions)
    assert set(nodes) == {
        'robot_state_publisher', 'parameter_bridge', 'image_bridge', 'create', 'spawner',
        'command_mux', 'policy_node'}
    assert all(node.node_name.startswith('/cell/') for node in nodes.values()
               if 'unspecified' not in node.node_name)
    embodiment = load_embodiment(EMBODIMENTS[arms])
    images = words_of(nodes['image_bridge'])
    assert all(source.topic in images for source in embodiment.cameras.values())
    for name in ('policy_node', 'command_mux'):
        parameters = parameters_of(nodes[name])
        assert parameters['use_sim_time'] is True
        assert parameters['embodiment'] == EMBODIMENTS[arms]
    bridge = parameters_of(nodes['parameter_bridge'])['config_file']
    assert '/clock' in [entry['ros_topic_name'] for entry in yaml.safe_load(open(bridge))]
    spawned = words_of(nodes['spawner'])
    assert {'joint_state_broadcaster', 'joint_trajectory_controller'} <= set(spawned)


def test_gazebo_runs_the_world_and_ends_the_launch_when_it_ends(
        launch, started, known_packages, tmp_path):
    from launch.actions import IncludeLaunchDescription

    world = tmp_path / 'my world.sdf'
    world.write_text('<sdf/>')
    context, actions = started(
        'gazebo', autostart='false', headless='true', world=str(world))
    included, = [action for action in actions if isinstance(action, IncludeLaunchDescription)]
    given = dict(included.launch_arguments)
    assert given['gz_args'] == f"-r -s --headless-rendering '{world}'"
    assert given['on_exit_shutdown'] == 'true'


# Isaac Sim


@pytest.mark.parametrize('arms', EMBODIMENTS)
def test_isaac_gets_controllers_between_its_joint_topics_and_the_mux(
        started, known_packages, untrained_checkpoint, arms):
    context, actions = started(
        'isaac', checkpoint=str(untrained_checkpoint), arms=arms, namespace='cell')
    nodes = nodes_of(context, actions)
    assert set(nodes) == {
        'robot_state_publisher', 'ros2_control_node', 'spawner', 'command_mux', 'policy_node'}
    robot = ElementTree.fromstring(
        parameters_of(nodes['robot_state_publisher'])['robot_description'])
    topics = {entry.get('name'): entry.text for entry in robot.iter('param')}
    assert topics['joint_states_topic'] == '/cell/isaac_joint_states'
    assert topics['joint_commands_topic'] == '/cell/isaac_joint_commands'
    # Humble's manager listens there.
    assert ('~/robot_description', 'robot_description') in (
        nodes['ros2_control_node'].expanded_remapping_rules)
    remaps = set(nodes['policy_node'].expanded_remapping_rules)
    assert ('camera/head/image_raw', 'head/rgb') in remaps
    assert ('control_mode', 'command_mux/mode') in remaps


def test_isaac_leaves_the_controllers_to_others_where_asked(started):
    context, actions = started('isaac', autostart='false', start_controllers='false')
    assert set(nodes_of(context, actions)) == {'command_mux', 'policy_node'}


# What both share


@pytest.mark.parametrize('arms', EMBODIMENTS)
@pytest.mark.parametrize('simulator', ['gazebo', 'isaac'])
def test_ros2_control_has_the_joints_of_the_embodiment_at_home(simulator, arms):
    pytest.importorskip('xacro', reason='xacro is not installed here')
    embodiment = load_embodiment(EMBODIMENTS[arms])
    robot = ElementTree.fromstring(describe(arms, simulator, controllers='/some/file.yaml'))
    commanded = {
        joint.get('name'): float(joint.find('state_interface/param').text)
        for joint in robot.find('ros2_control').iter('joint')
        if joint.find('command_interface') is not None}
    assert commanded == dict(zip(embodiment.joints, embodiment.home))
    links = {link.get('name') for link in robot.iter('link')}
    joints = {joint.get('name') for joint in robot.findall('joint')}
    assert {joint.get('name') for joint in robot.find('ros2_control').iter('joint')} <= joints
    sensors = {sensor.find('topic').text: sensor.find('gz_frame_id').text
               for sensor in robot.iter('sensor')}
    assert all(gazebo.get('reference') in links for gazebo in robot.iter('gazebo')
               if gazebo.get('reference'))
    assert sensors == ({} if simulator == 'isaac' else {
        f'/{source.topic}': f'{name}_camera_optical_frame'
        for name, source in embodiment.cameras.items()})


@pytest.mark.parametrize('name', EMBODIMENTS.values())
def test_the_controllers_are_those_that_the_embodiment_names(name):
    controller, = load_embodiment(name).controllers
    data = yaml.safe_load(
        (CHECKOUT / 'config' / 'bridges' / 'controllers' / f'{name}.yaml').read_text())
    node, topic = controller.topic.split('/')
    assert node in data['/**/controller_manager']['ros__parameters'] and (
        topic == 'joint_trajectory')
    parameters = data[f'/**/{node}']['ros__parameters']
    assert parameters['joints'] == list(controller.joints)
    assert parameters['interpolate_from_desired_state'] is True


def test_the_shipped_bridges_know_every_camera_of_the_simulated_robot():
    folder = CHECKOUT / 'config' / 'bridges'
    roles = set(load_embodiment('sim_dual').cameras)
    assert set(read_isaac_topics(str(folder / 'isaac.yaml')).cameras) == roles
    check_gazebo_bridge(str(folder / 'gazebo.yaml'))
    bridged = {entry['ros_topic_name']: entry
               for entry in yaml.safe_load((folder / 'gazebo.yaml').read_text())}
    assert set(bridged) == {'/clock'} | {f'camera/{role}/camera_info' for role in roles}
    assert all(entry['direction'] == 'GZ_TO_ROS' for entry in bridged.values())


def test_the_shipped_world_draws_cameras_and_takes_robots():
    world = ElementTree.parse(CHECKOUT / 'config' / 'bridges' / 'gazebo_world.sdf').find('world')
    systems = {plugin.get('name').rsplit('::')[-1] for plugin in world.findall('plugin')}
    assert {'Physics', 'UserCommands', 'Sensors', 'SceneBroadcaster'} <= systems


@pytest.mark.parametrize('name, arguments, words', [
    ('gazebo', {'world': '/nowhere/world.sdf'}, ['world /nowhere/world.sdf is not a file']),
    ('gazebo', {'headless': 'maybe'}, ["headless is 'maybe'", 'true or false']),
    ('gazebo', {'arms': 'three'}, ["arms is 'three'"]),
    ('gazebo', {'bridge_config': '/nowhere/bridge.yaml'}, ['bridge_config', '/nowhere/bridge']),
    ('gazebo', {'bridge_config': '{words}'}, ['words.yaml', 'list of bridged topics']),
    ('gazebo', {'bridge_config': '{entry}'},
     ['entry 1 has no gz_type_name', "direction is 'SIDEWAYS'", 'unknown key colour', '/clock']),
    ('isaac', {'start_controllers': '2'}, ["start_controllers is '2'"]),
    ('isaac', {'bridge_config': '{words}'}, ['words.yaml', 'joint_states']),
    ('isaac', {'bridge_config': '{topics}'},
     ["cameras.head is 'two words'", 'joint_commands is 3']),
])
def test_a_bad_argument_is_refused_in_one_line(started, tmp_path, name, arguments, words):
    (tmp_path / 'words.yaml').write_text('just words')
    (tmp_path / 'entry.yaml').write_text(
        '- {ros_topic_name: a, gz_topic_name: a, ros_type_name: t, direction: SIDEWAYS, '
        'colour: 1}')
    (tmp_path / 'topics.yaml').write_text(
        'joint_states: a\njoint_commands: 3\ncameras: {head: two words}')
    places = {path.stem: path for path in tmp_path.glob('*.yaml')}
    given = {key: value.format(**places) for key, value in arguments.items()}
    with pytest.raises(RuntimeError) as refused:
        started(name, autostart='false', **given)
    assert all(word in str(refused.value) for word in words), refused.value
    assert '\n' not in str(refused.value)


# As processes


@pytest.mark.parametrize('name, package', [
    ('gazebo', 'ros_gz_sim'), ('isaac', 'joint_state_topic_hardware_interface')])
def test_a_missing_package_is_named_in_one_line(launch, launch_file, name, package):
    from ament_index_python.packages import get_package_prefix
    with contextlib.suppress(LookupError, OSError):
        pytest.skip(f'{package} is installed here, in {get_package_prefix(package)}')
    with launch_file(name, 'autostart:=false') as launched:
        launched.process.wait(timeout=30)
        assert launched.process.returncode == 1, launched.output
        line, = [line for line in launched.output.splitlines() if 'not installed:' in line]
        assert package in line
        assert launched.running() == []


@pytest.mark.timeout(120)
def test_the_policy_comes_up_for_isaac_and_reads_its_cameras(
        launch, launch_file, untrained_checkpoint):
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('watcher', context=context)
    try:
        with launch_file(
                'isaac', f'checkpoint:={untrained_checkpoint}', 'start_controllers:=false',
                'namespace:=cell') as launched:
            launched.wait_for('configured in')
            assert node.count_subscribers('/cell/head/rgb') == 1
            assert node.count_subscribers('/cell/left_wrist/rgb') == 1
            launched.interrupt()
            assert launched.process.returncode == 0, launched.output
            assert launched.running() == []
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
