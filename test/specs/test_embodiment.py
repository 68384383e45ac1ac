"""The embodiment file: its fields, and that all mistakes are reported with line and key."""

import numpy as np
import pytest
from support.embodiment_file import mistakes_of, write_robot

from lingbot_va_ros.specs.embodiment import EmbodimentError, load_embodiment


def test_limits_come_from_the_urdf_tightened_by_the_file(tmp_path):
    embodiment = load_embodiment(str(write_robot(tmp_path)))
    assert embodiment.joints == ('j1', 'j2', 'grip')
    np.testing.assert_array_equal(embodiment.limits.lower, [-2, -1, 0])
    np.testing.assert_array_equal(embodiment.limits.upper, [1, 1.5, 0.04])
    np.testing.assert_array_equal(embodiment.limits.velocity, [3, 2, 0.2])
    np.testing.assert_array_equal(embodiment.limits.acceleration, [5, 6, 1])
    np.testing.assert_array_equal(embodiment.home, [0.5, 0, 0.04])


def test_a_following_error_is_read_for_the_joints_that_have_one(tmp_path):
    path = write_robot(tmp_path, lambda data: data['limits']['j2'].update(following_error=0.1))
    np.testing.assert_array_equal(
        load_embodiment(str(path)).limits.following_error, [np.nan, 0.1, np.nan])


def test_grippers_come_after_the_joints_of_all_arms():
    embodiment = load_embodiment('sim_dual')
    assert embodiment.joints[-2:] == ('left_gripper_joint', 'right_gripper_joint')
    assert [arm.side for arm in embodiment.arms] == ['left', 'right']


@pytest.mark.parametrize('name, wrists', [
    ('sim_left', {'left_wrist'}), ('sim_right', {'right_wrist'}),
    ('sim_dual', {'left_wrist', 'right_wrist'})])
def test_shipped_embodiments_load(name, wrists):
    embodiment = load_embodiment(name)
    assert embodiment.name == name
    assert set(embodiment.cameras) == {'head'} | wrists


def test_every_mistake_is_named_at_once_with_its_line(tmp_path):
    def change(data):
        data['home']['j1'] = 1.7
        data['limits']['j2']['velocity'] = 9.0
        data['arms'][0]['joints'][1] = 'j9'
        data['controllers'][1]['joints'] = ['j1']
    lines = mistakes_of(tmp_path, change)
    text = '\n'.join(lines)
    assert "arms[0].joints[1]: the URDF arm.urdf has no joint 'j9'" in text
    assert 'home.j1: 1.7 is outside the limits -2 … 1' in text
    assert "controllers[1].joints[0]: joint 'j1' is in a controller already" in text
    assert "no controller takes joint 'grip'" in text
    source = (tmp_path / 'arm.yaml').read_text().splitlines()
    for line in lines:
        assert line.startswith(str(tmp_path / 'arm.yaml'))
    number = int(next(line for line in lines if 'home.j1' in line).split(':')[1])
    assert source[number - 1].strip() == 'j1: 1.7'


@pytest.mark.parametrize('change, expected', [
    (lambda d: d.update(colour='red'), "'colour' was unexpected"),
    (lambda d: d['arms'][0]['joints'].append('j1'), "joint 'j1' is used twice"),
    (lambda d: d['limits']['j1'].update(upper=2.5), "2.5 is looser than the URDF's 2"),
    (lambda d: d['limits']['j1'].update(lower=1.5), 'lower 1.5 is not below upper 1'),
    (lambda d: d['limits'].pop('j1'), "joint 'j1' has no acceleration"),
    (lambda d: d['limits']['j1'].update(acceleration=float('inf')), 'inf is not a finite'),
    (lambda d: d['home'].pop('j2'), "joint 'j2' has no home position"),
    (lambda d: d['home'].update(j7=0.0), 'home.j7: is not a joint'),
    (lambda d: d['arms'][0]['gripper'].update(open=0.0), 'the same position'),
    (lambda d: d['arms'][0]['gripper'].update(open=0.08), 'outside the limits'),
    (lambda d: d.update(urdf='none.urdf'), 'none.urdf is neither in'),
    (lambda d: d['controllers'][0].update(topic='//absolute'), 'does not match'),
    (lambda d: d['controllers'][1].update(topic='arm/joint_trajectory'), 'appears twice'),
    (lambda d: d['controllers'][1].update(topic='/arm/joint_trajectory'), 'appears twice'),
    (lambda d: d['controllers'][0].update(kind='gripper_action'), 'moves one joint'),
    (lambda d: d['controllers'][0].update(max_effort=5.0), 'only a gripper_action has'),
    (lambda d: d.update(base_frame='nowhere'), "no link 'nowhere'"),
    (lambda d: d.update(workspace={'lower': [0, 0, 0], 'upper': [1, 1, 1]}), 'needs base_frame'),
    (lambda d: d['arms'][0].update(pose_weights=[0] * 6), 'arms[0].pose_weights: every weight'),
    (lambda d: d['arms'][0].update(pose_weights=[1, 1, 1, 1e-5, 1, 1]), 'rx: a weight is 0 or'),
    (lambda d: d['arms'][0].update(pose_weights=[1, 1, -1, 0, 0, 0]), 'minimum of 0'),
    (lambda d: d['arms'][0].update(pose_weights=[1, 1, 1, 0, 0, float('nan')]), 'not a finite'),
    (lambda d: d['arms'][0].update(pose_weights=[1, 1, 1]), 'pose_weights: [1, 1, 1] is too'),
    (lambda d: d['arms'][0].update(pose_weights='xyz'), "pose_weights: 'xyz' is not of type"),
    (lambda d: d['arms'][0].update(pose_tolerance={'rotation': 0.1}), 'without pose_weights'),
    (lambda d: d['arms'][0].update(
        pose_weights=[1] * 6, pose_tolerance={'translation': 0}), 'minimum of 0.0001'),
])
def test_one_mistake_gives_one_line(tmp_path, change, expected):
    lines = mistakes_of(tmp_path, change)
    assert len(lines) == 1, lines
    assert expected in lines[0]


@pytest.mark.parametrize('place, value, words', [
    (place, value, words) for place in (
        ('limits', 'j1', 'lower'), ('limits', 'j1', 'upper'), ('limits', 'j1', 'velocity'),
        ('limits', 'j1', 'acceleration'), ('limits', 'grip', 'jerk'), ('home', 'j1'))
    for value, words in (
        (float('nan'), 'nan is not a finite number'), (float('inf'), 'inf is not a finite number'),
        (1e308, 'greater than the maximum of'), (-1e308, 'less than the minimum of'))])
def test_a_number_that_no_robot_has_is_named(tmp_path, place, value, words):
    def change(data):
        section = data
        for key in place[:-1]:
            section = section[key]
        section[place[-1]] = value
    line, = mistakes_of(tmp_path, change)
    assert f'{".".join(place)}: ' in line and words in line


@pytest.mark.parametrize('change, words', [
    (lambda d: d['limits']['j1'].update(acceleration=1e300), 'maximum of 1000'),
    (lambda d: d['limits']['j1'].update(acceleration=1e-320), 'minimum of 0.01'),
    (lambda d: d['limits']['j1'].update(velocity=1e-320), 'minimum of 0.001'),
    (lambda d: d['limits']['j1'].update(velocity=150), 'maximum of 100'),
    (lambda d: d['limits']['j1'].update(jerk=1e6), 'maximum of 100000'),
    (lambda d: d['limits']['j1'].update(following_error=0.0), 'minimum of 0.0001'),
    (lambda d: d['limits']['j1'].update(following_error=11), 'maximum of 10'),
    (lambda d: d['limits']['j1'].update(lower=0.999999999), 'is not below upper'),
    (lambda d: d['arms'][0]['gripper'].update(closed=0.04 - 1e-9), 'the same position'),
    (lambda d: d['controllers'][1].update(kind='gripper_action', max_effort=1e300),
     'maximum of 10000'),
    (lambda d: d['cameras']['head'].update(crop=[0, 0, 2 ** 31, 2]), 'maximum of 65535'),
    (lambda d: d['cameras']['head'].update(rotate=45), '45 is not one of [0, 90, 180, 270]'),
    (lambda d: d['cameras']['head'].update(flip=True, rotate=90), 'flip is rotate: 180'),
    (lambda d: d.update(urdf=[{'file': 'arm.urdf', 'xyz': [0, 1e300, 0]}]), 'maximum of 100')])
def test_a_number_outside_its_range_gives_one_line(tmp_path, change, words):
    line, = mistakes_of(tmp_path, change)
    assert words in line


@pytest.mark.parametrize('key, value', [
    (key, value) for key in ('lower', 'upper', 'velocity')
    for value in ('nan', 'inf', '-inf', '1e308', '-1e308')] + [('velocity', '1e-320')])
def test_a_number_of_the_urdf_that_no_robot_has_is_named(tmp_path, key, value):
    path = write_robot(tmp_path, lambda data: data['limits']['j1'].pop('upper'))
    urdf = tmp_path / 'arm.urdf'
    good = {'lower': 'lower="-2"', 'upper': 'upper="2"', 'velocity': 'velocity="3"'}[key]
    urdf.write_text(urdf.read_text().replace(good, f'{key}="{value}"', 1))
    with pytest.raises(EmbodimentError) as caught:
        load_embodiment(str(path))
    line, = str(caught.value).splitlines()
    assert f"limits.j1: the URDF's {key} is {float(value):g}; expected " in line


@pytest.mark.parametrize('value, accepted', [('1e308', True), ('nan', False), ('inf', False)])
def test_the_file_may_replace_a_number_of_the_urdf_that_is_finite(tmp_path, value, accepted):
    path = write_robot(tmp_path, lambda data: data['limits']['j1'].update(velocity=1.0))
    urdf = tmp_path / 'arm.urdf'
    urdf.write_text(urdf.read_text().replace('velocity="3"', f'velocity="{value}"', 1))
    if accepted:
        assert load_embodiment(str(path)).limits.velocity[0] == 1.0
        return
    with pytest.raises(EmbodimentError, match="the URDF's velocity is"):
        load_embodiment(str(path))


@pytest.mark.parametrize('settings, rotate', [
    ({}, 0), ({'flip': True}, 180), ({'flip': False}, 0), ({'rotate': 90}, 90),
    ({'rotate': 270}, 270)])
def test_how_a_camera_is_turned(tmp_path, settings, rotate):
    path = write_robot(tmp_path, lambda data: data['cameras']['head'].update(settings))
    assert load_embodiment(str(path)).cameras['head'].rotate == rotate


def test_a_mimic_joint_cannot_be_commanded(tmp_path):
    lines = mistakes_of(tmp_path, lambda d: d['arms'][0]['joints'].append('grip_2'))
    assert "arms[0].joints[2]: joint 'grip_2' mimics 'grip'; command that one" in lines[0]


def test_looser_limits_are_accepted_with_looser_than_urdf(tmp_path):
    path = write_robot(
        tmp_path, lambda d: d['limits']['j1'].update(upper=2.5, looser_than_urdf=True))
    assert load_embodiment(str(path)).limits.upper[0] == 2.5


def test_a_key_that_appears_twice_is_refused(tmp_path):
    path = write_robot(tmp_path)
    path.write_text(path.read_text() + 'name: other\n')
    with pytest.raises(EmbodimentError, match='name: appears twice'):
        load_embodiment(str(path))


def test_text_that_is_no_yaml_gives_one_line(tmp_path):
    path = tmp_path / 'x.yaml'
    path.write_text('a: [1\nb: 2')
    with pytest.raises(EmbodimentError, match='cannot be read as YAML') as caught:
        load_embodiment(str(path))
    assert len(str(caught.value).splitlines()) == 1


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(EmbodimentError, match="'sim_middle'; expected one of .*sim_left"):
        load_embodiment('sim_middle')


def test_checks_without_the_urdf_still_run_if_it_is_missing(tmp_path):
    def change(data):
        data['urdf'] = {'file': 'package://vendor/arm.urdf', 'install': 'apt install vendor'}
        data['controllers'].pop()
        data['home'].pop('j1')
    lines = mistakes_of(tmp_path, change)
    assert len(lines) == 3
    assert "'vendor'" in lines[0] and 'apt install vendor' in lines[0]
    assert "joint 'j1' has no home position" in lines[1]
    assert "no controller takes joint 'grip'" in lines[2]


def test_the_unit_of_a_gripper_is_that_of_its_joint(tmp_path):
    lines = mistakes_of(tmp_path, lambda d: d['arms'][0]['gripper'].update(unit='rad'))
    assert len(lines) == 1
    assert "arms[0].gripper.unit: joint 'grip' is prismatic: its positions are in m" in lines[0]


def test_a_wrong_key_in_the_description_is_named(tmp_path):
    lines = mistakes_of(tmp_path, lambda d: d.update(urdf={'file': 'arm.urdf', 'argument': {}}))
    assert len(lines) == 1 and "'argument' was unexpected" in lines[0]
