"""The controllers and the topics of joint states of an embodiment file."""

import pytest
from specs.test_embodiment import mistakes_of, write_robot

from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.specs.joint_state_topics import topic_of_joint


def change_of(first=None, second=None, **top):
    """Return a change of the arm's and the hand's controllers, and of keys at the top."""
    def change(data):
        data['controllers'][0].update(first or {})
        data['controllers'][1].update(second or {})
        for controller in data['controllers']:
            for key in [key for key, value in controller.items() if value is None]:
                del controller[key]
        data.update(top)
    return change


def states(*entries):
    return change_of(joint_states=list(entries))


def test_every_kind_is_read_with_its_keys(tmp_path):
    robot = load_embodiment(str(write_robot(tmp_path, change_of(
        {'kind': 'forward_velocity', 'topic': '/arm/velocities', 'gain': 0.5},
        {'kind': 'joint_group', 'names': {'grip': 'gripper'}}))))
    arm, hand = robot.controllers
    assert (arm.kind, arm.topic, arm.gain) == ('forward_velocity', '/arm/velocities', 0.5)
    assert arm.driver_names == ['j1', 'j2'] and hand.driver_names == ['gripper']
    robot = load_embodiment(str(write_robot(tmp_path, change_of(
        {'kind': 'trajectory_action', 'goal_rate': 10},
        {'kind': 'plugin', 'plugin': 'a.b:C', 'options': {'port': 3}, 'topic': None}))))
    arm, hand = robot.controllers
    assert arm.goal_rate == 10.0
    assert (hand.plugin, hand.options, hand.topic) == ('a.b:C', {'port': 3}, '')


def test_left_out_joint_states_are_one_topic(tmp_path):
    topic, = load_embodiment(str(write_robot(tmp_path))).joint_states
    assert topic.topic == 'joint_states' and topic.timeout is None
    assert topic.our_names(['j1', 'x']) == ['j1', 'x']


def test_topics_of_joint_states_give_their_names_and_timeouts(tmp_path):
    robot = load_embodiment(str(write_robot(tmp_path, states(
        {'topic': '/arm/joint_states', 'prefix': 'j', 'timeout': 0.3},
        {'topic': 'hand/states', 'names': {'grip': 'finger'}, 'timeout': 1.0}))))
    arm, hand = robot.joint_states
    assert list(arm.our_names(['1', '2'])) == ['j1', 'j2']
    assert list(hand.our_names(['thumb', 'finger', 'j1'])) == ['', 'grip', '']
    assert topic_of_joint(robot.joint_states, 'grip') is hand
    assert topic_of_joint(robot.joint_states, 'j1') is arm


def test_a_text_is_a_topic_alone(tmp_path):
    robot = load_embodiment(str(write_robot(tmp_path, states('/arm/states', 'hand/states'))))
    assert [topic.topic for topic in robot.joint_states] == ['/arm/states', 'hand/states']


@pytest.mark.parametrize(('change', 'expected'), [
    (change_of({'kind': 'forward'}), 'controllers[0].kind:'),
    (change_of({'gain': 1.0}), 'controllers[0].gain: only a forward_velocity or joint_jog has'),
    (change_of({'kind': 'forward_velocity', 'gain': -1.0}), 'controllers[0].gain: -1.0 is less'),
    (change_of({'kind': 'joint_group'}), 'controllers[0]: a joint_group of several joints needs'),
    (change_of({'kind': 'forward_position', 'group': 'arm'}),
     'controllers[0].group: only a joint_group'),
    (change_of({'kind': 'trajectory_action', 'goal_rate': 0.5}), 'controllers[0].goal_rate:'),
    (change_of({'goal_rate': 5.0}), 'controllers[0].goal_rate: only a trajectory_action'),
    (change_of({'velocities': False}), 'controllers[0].velocities: only a joint_state'),
    (change_of({'kind': 'joint_state', 'velocities': 'no'}), 'controllers[0].velocities:'),
    (change_of({'topic': None}), 'controllers[0]: a trajectory needs a topic'),
    (change_of({'kind': 'plugin', 'topic': None}), 'controllers[0]: a plugin needs plugin:'),
    (change_of({'kind': 'plugin', 'plugin': 'driver'}), 'controllers[0].plugin:'),
    (change_of({'plugin': 'a:B'}), 'controllers[0].plugin: only a plugin has'),
    (change_of({'options': {}}), 'controllers[0].options: only a plugin has'),
    (change_of({'names': {'j7': 'x'}}), "controllers[0].names.j7: 'j7' is not a joint"),
    (change_of({'names': {'j1': 'j2'}}), "controllers[0].names: the driver's name 'j2' stands"),
    (change_of({'names': {'j1': ''}}), 'controllers[0].names.j1:'),
    (change_of({'names': {}}), 'controllers[0].names:'),
    (change_of({'kind': 'joint_state', 'topic': '/joint_states'}),
     "controllers[0].topic: '/joint_states' is a topic of joint_states"),
    (change_of({'topic': 'policy/joint_trajectory'}),
     "controllers[0].topic: 'policy/joint_trajectory' is a topic of the mux itself"),
    (change_of({'topic': '/executed'}), 'controllers[0].topic:'),
    (change_of({'kind': 'joint_state', 'topic': 'teleop/joint_states'}), 'controllers[0].topic:'),
    (states(), 'joint_states:'),
    (states({'topic': 'a b'}), 'joint_states[0].topic:'),
    (states('a b'), 'joint_states[0]:'),
    (states(3), 'joint_states[0]:'),
    (states({'topic': 's', 'timeout': 0}), 'joint_states[0].timeout:'),
    (states({'topic': 's', 'colour': 1}), 'joint_states[0]: Additional'),
    (states({'topic': 's'}, {'topic': 's'}), "joint_states[1].topic: topic 's' appears twice"),
    (states({'topic': 's', 'prefix': 'j'}), "joint_states: no topic brings joint 'grip'"),
    (states({'topic': 's'}, {'topic': 't', 'names': {'j9': 'x'}}),
     "joint_states[1].names.j9: 'j9' is not a joint"),
    (states({'topic': 's'}, {'topic': 't', 'names': {'j1': 'x', 'j2': 'x'}}),
     "joint_states[1].names: the driver's name 'x' stands for two joints"),
    (states({'topic': 's', 'names': {'j1': 'a'}}, {'topic': 't', 'names': {'j1': 'b'}},
            {'topic': 'u'}), "joint_states[1].names.j1: joint 'j1' comes on another"),
    (states({'topic': 's'}, {'topic': 't', 'prefix': 'x'}),
     "joint_states[1].prefix: no joint begins with 'x'"),
    (states({'topic': 's'}, {'topic': 't', 'prefix': 'j', 'names': {'j1': 'x'}}),
     'joint_states[1].prefix: give prefix or names'),
])
def test_each_mistake_is_one_line_with_its_key(tmp_path, change, expected):
    lines = mistakes_of(tmp_path, change)
    assert len(lines) == 1, lines
    assert expected in lines[0]


def test_held_joints_belong_to_controllers_and_to_no_arm(tmp_path):
    def held(data):
        # j2 is the torso of this arm of one joint.
        data['arms'][0]['joints'].remove('j2')
        for section in ('limits', 'home'):
            del data[section]['j2']
        data['held_joints'] = {'j2': 'where_it_is'}

    robot = load_embodiment(str(write_robot(tmp_path, held)))
    assert robot.joints == ('j1', 'grip')
    joint, = robot.held_joints
    assert (joint.name, joint.position, joint.lower, joint.upper) == ('j2', None, -1.0, 1.5)

    def mistakes(*changes):
        def change(data):
            held(data)
            for each in changes:
                each(data)
        return mistakes_of(tmp_path, change)

    for change, expected in (
            (lambda d: d['held_joints'].update(j2=9.0), 'held_joints.j2: 9 is outside the limits'),
            (lambda d: d['held_joints'].update(j2='there'), 'held_joints.j2:'),
            (lambda d: d['held_joints'].update(j2=True), 'held_joints.j2:'),
            (lambda d: d['held_joints'].update(j1=0.0), 'held_joints.j1: is a joint of an arm'),
            (lambda d: d.update(held_joints={}), 'held_joints:'),
            (lambda d: d['controllers'][0]['joints'].remove('j2'),
             "controllers: no controller takes joint 'j2'")):
        lines = mistakes(change)
        assert len(lines) == 1 and expected in lines[0], lines
