"""The policy file: shipped ones load, and all mistakes are reported with their keys."""

from pathlib import Path
import shutil

import numpy as np
import pytest
import yaml

from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.policy_file import find_policy_file, load_policy_file, PolicyFileError

GOOD = shared_file('config', 'policies', 'untrained.yaml')
SHIPPED = sorted(GOOD.parent.glob('*.yaml'))


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a good policy file with changes, given as dotted places."""
    def write(changes=()) -> Path:
        raw = yaml.safe_load(GOOD.read_text())
        for place, value in dict(changes).items():
            *folders, name = place.split('.')
            part = raw
            for folder in folders:
                part = part[folder]
            if value is ...:
                del part[name]
            else:
                part[name] = value
        path = tmp_path / 'policy.yaml'
        path.write_text(yaml.safe_dump(raw))
        return path
    return write


def mistakes(path) -> list:
    with pytest.raises(PolicyFileError) as refused:
        load_policy_file(path)
    lines = str(refused.value).split('\n')
    assert all(str(path) in line for line in lines)
    return lines


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_policy_file_loads(path):
    policy = load_policy_file(path)
    assert policy.name and len(policy.q01) == len(policy.q99) == 30
    assert np.all(policy.q99 >= policy.q01)


def test_the_fields_of_the_file_are_loaded(write):
    policy = load_policy_file(write({'video.exec_steps': 3, 'video.guidance': 5}))
    assert (policy.cameras, policy.layout) == (('head', 'left_wrist'), 'side_by_side')
    assert (policy.height, policy.width) == (64, 64)
    assert (policy.frames_per_chunk, policy.actions_per_frame) == (2, 8)
    assert policy.action_period == pytest.approx(0.1) and policy.images_every == 2
    assert policy.used_channels == (14, 15, 16, 17, 18, 19, 28)
    assert policy.video.exec_steps == 3 and policy.video.guidance == 5
    assert policy.trained is False and policy.forward_dynamics is False


def test_the_starting_noise_is_whole_unless_the_file_scales_it(write):
    policy = load_policy_file(write({'video.noise_scale': 0.5}))
    assert (policy.video.noise_scale, policy.action.noise_scale) == (0.5, 1.0)
    [line] = mistakes(write({'action.noise_scale': -1}))
    assert 'action.noise_scale: -1 is less than' in line


def test_quantiles_go_to_their_channels(write):
    policy = load_policy_file(write({
        'used_channels': [28, 14], 'quantiles': {'q01': [0.1, -2.0], 'q99': [0.9, 2.0]}}))
    assert policy.q01[[28, 14]].tolist() == pytest.approx([0.1, -2.0])
    assert policy.q99[[28, 14]].tolist() == pytest.approx([0.9, 2.0])
    assert np.count_nonzero(policy.q01) == 2 and policy.q01.dtype == np.float32


def test_a_file_that_does_not_say_so_is_trained_and_has_no_forward_dynamics(write):
    policy = load_policy_file(write({'trained': ...}))
    assert policy.trained is True and policy.forward_dynamics is False


def test_every_wrong_and_missing_field_is_named_at_once_with_its_place(write):
    lines = mistakes(write({
        'name': ..., 'image.height': ..., 'cameras': 'head', 'video.steps': 0,
        'action.shift': 'five', 'quantiles.q01': [1, 'a'], 'actions_per_frame': 6, 'colour': 1}))
    for part in ("'name' is a required property", "image: 'height' is a required property",
                 "cameras: 'head' is not of type 'array'", 'video.steps: 0 is less than',
                 "action.shift: 'five' is not", "quantiles.q01.1: 'a'",
                 'actions_per_frame: 6 is not a multiple of 4', "'colour' was unexpected"):
        assert any(part in line for line in lines), part
    assert len(lines) == 8


@pytest.mark.parametrize('field', sorted(
    set(yaml.safe_load(GOOD.read_text())) - {'trained', 'forward_dynamics', 'observation_keys'}))
def test_a_missing_field_is_named(write, field):
    line, = mistakes(write({field: ...}))
    assert f"'{field}' is a required property" in line


@pytest.mark.parametrize('changes, part', [
    ({'image.height': 40}, 'image.height: 40 is not a multiple of 16'),
    ({'layout': 'tshape', 'cameras': ['a', 'b', 'c'], 'image.width': 48},
     'image.width: 48 is not a multiple of 32'),
    ({'layout': 'tshape'}, 'cameras: layout tshape takes 3, got 2'),
    ({'quantiles.q01': [0.0]}, 'quantiles.q01: 1 numbers for 7 used channels'),
    ({'quantiles.q99': [-9.0] * 7}, 'quantiles: channel 14 has q01 -0.03 above q99 -9.0'),
    ({'video.exec_steps': 0}, 'video.exec_steps: 0; expected -1, or 1 to 5'),
    ({'video.exec_steps': 6}, 'video.exec_steps: 6; expected -1, or 1 to 5'),
    ({'used_channels': [14, 14, 16, 17, 18, 19, 28]}, 'used_channels: '),
    ({'used_channels': [30, 15, 16, 17, 18, 19, 28]}, 'used_channels.0: 30 is greater'),
    ({'cameras': ['head', 'head']}, 'cameras: '),
    ({'cameras': ['Head/1', 'b']}, "cameras.0: 'Head/1' does not match"),
    ({'layout': 'pyramid'}, "layout: 'pyramid' is not one of"),
    ({'action_frame': 'polar'}, "action_frame: 'polar' is not one of"),
    ({'delta_scale': {'translation': 0.05, 'rotation': 0.5}},
     'delta_scale: the action_frame is joints, not eef_delta'),
    ({'action_frame': 'eef_delta', 'delta_scale': {'translation': 0, 'rotation': 0.5}},
     'delta_scale.translation: 0 is less than'),
    ({'frames_per_chunk': 1}, 'frames_per_chunk: 1 is less than'),
    ({'frames_per_chunk': True}, "frames_per_chunk: True is not of type 'integer'"),
    ({'action_rate': 0}, 'action_rate: 0 is less than the minimum of 0.1'),
    ({'memory_chunks': 0}, 'memory_chunks: 0 is less than'),
    ({'observation_keys': {'head': 'a'}}, 'observation_keys: '),
    ({'observation_keys': {'head': 'a', 'left_wrist': 'a'}}, 'observation_keys: ')])
def test_a_value_that_cannot_be_is_named_with_its_place(write, changes, part):
    assert any(part in line for line in mistakes(write(changes)))


@pytest.mark.parametrize('place', [
    'action_rate', 'video.shift', 'video.guidance', 'action.shift'])
@pytest.mark.parametrize('value', [float('nan'), float('inf'), float('-inf')])
def test_a_number_that_is_not_finite_is_named(write, place, value):
    line, = mistakes(write({place: value}))
    assert f'{place}: ' in line


@pytest.mark.parametrize('place, value', [
    ('image.height', 2 ** 31), ('image.width', 8192), ('frames_per_chunk', 10 ** 9),
    ('actions_per_frame', 4 * 10 ** 9), ('action_rate', 1e300), ('action_rate', 1e-320),
    ('memory_chunks', 10 ** 15), ('memory_chunks', 10 ** 400), ('video.steps', 10 ** 9),
    ('action.steps', 1001), ('video.exec_steps', 10 ** 9), ('video.shift', 1e-320),
    ('action.shift', 1e308), ('video.guidance', 1e308), ('video.guidance', -1),
    ('action.noise_scale', 1e308)])
def test_a_number_that_no_checkpoint_has_is_named(write, place, value):
    lines = mistakes(write({place: value}))
    assert any(f'{place}: ' in line and 'imum of' in line for line in lines)
    assert all(len(line) < 600 for line in lines)


def test_a_quantile_that_no_robot_has_is_named(write):
    line, = mistakes(write({'quantiles.q99': [0.1, 0.1, 1e308, 0.1, 1.5, 0.1, 0.9]}))
    assert 'quantiles.q99.2: 1e+308 is greater than the maximum of 10000' in line


@pytest.mark.parametrize('line, place', [
    ('memory_chunks: 3', 'memory_chunks'), ('image: {height: 64, width: 64}', 'image'),
    ('video: {steps: 4, steps: 5, shift: 3.0, guidance: 1.0}', 'video.steps')])
def test_a_key_that_appears_twice_is_named_with_its_line(tmp_path, line, place):
    path = tmp_path / 'policy.yaml'
    path.write_text(GOOD.read_text() + f'{line}\n')
    last = len(path.read_text().splitlines())
    assert f'{path}:{last}: {place}: appears twice' in mistakes(path)


@pytest.mark.parametrize('text, words', [
    ('[' * 100_000, 'nested deeper than 50 levels'),
    ('a: &a [*a]', 'nested deeper than 50 levels'),
    ('a: &a [x, x, x, x, x, x, x, x, x]\n' + ''.join(
        f'{b}: &{b} [{", ".join(["*" + a] * 9)}]\n' for a, b in zip('abcdefgh', 'bcdefghi')),
     'more than 20000 values'),
    ('name: ' + 'x' * 2_000_000, 'expected at most 1000000'),
    ('name: ' + '9' * 5000, 'cannot be read as YAML'), ('? [a]\n: b', 'a key is a list')])
def test_a_file_made_to_exhaust_the_reader_gives_one_line(tmp_path, text, words):
    path = tmp_path / 'policy.yaml'
    path.write_text(text)
    line, = mistakes(path)
    assert words in line and len(line) < 600


def test_a_quantile_that_is_not_finite_is_named(write):
    line, = mistakes(write({'quantiles.q99': [0.1, 0.1, float('nan'), 0.1, 1.5, 0.1, 0.9]}))
    assert 'quantiles.q99.2: ' in line


@pytest.mark.parametrize('place', [
    'frames_per_chunk', 'actions_per_frame', 'video.steps', 'memory_chunks', 'image.height'])
def test_a_whole_number_written_as_a_float_is_named(write, place):
    line, = mistakes(write({place: 64.0}))
    assert f"{place}: 64.0 is not of type 'integer'" in line


@pytest.mark.parametrize('text', ['', '[]', 'policy', '3'])
def test_a_file_that_holds_no_fields_is_refused(tmp_path, text):
    path = tmp_path / 'policy.yaml'
    path.write_text(text)
    assert 'top level' in mistakes(path)[0]


@pytest.mark.parametrize('content', [b'a: [', b'\xff\xfe\x00', b'a: b: c'])
def test_a_file_that_is_no_yaml_is_named(tmp_path, content):
    path = tmp_path / 'policy.yaml'
    path.write_bytes(content)
    with pytest.raises(PolicyFileError, match='policy.yaml: cannot be read as YAML'):
        load_policy_file(path)


def test_no_name_means_the_file_of_the_checkpoint(tmp_path):
    shutil.copy(GOOD, tmp_path / 'policy.yaml')
    assert find_policy_file('', tmp_path) == tmp_path / 'policy.yaml'


def test_a_bare_name_means_a_shipped_file(tmp_path):
    assert find_policy_file('untrained', tmp_path) == GOOD


@pytest.mark.parametrize('folder', [
    'lingbot-va-posttrain-robotwin',
    'models--robbyant--lingbot-va-posttrain-robotwin/snapshots/1a2b'])
def test_a_public_checkpoint_without_a_file_takes_the_shipped_one_and_logs_it(tmp_path, folder):
    said = []
    path = find_policy_file('', tmp_path / folder, said.append)
    assert path == GOOD.parent / 'robotwin.yaml'
    assert len(said) == 1 and 'robotwin' in said[0]


def test_a_path_means_that_file(tmp_path):
    path = shutil.copy(GOOD, tmp_path / 'mine.yaml')
    assert find_policy_file(str(path), tmp_path / 'checkpoint') == Path(path)


@pytest.mark.parametrize('name, part', [
    ('', 'holds no policy.yaml'), ('no_such_policy', "policy_config 'no_such_policy'"),
    ('./mine.yaml', 'mine.yaml does not exist')])
def test_a_file_that_does_not_exist_is_named(tmp_path, name, part):
    with pytest.raises(PolicyFileError) as refused:
        find_policy_file(name, tmp_path)
    assert part in str(refused.value) and '\n' not in str(refused.value)
