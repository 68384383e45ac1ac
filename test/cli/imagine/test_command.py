"""`lingbot_va imagine`: video, actions and plot from stills, or one error line and no file."""

import json
import os
import signal
import subprocess
import sys
import time

import av
import cv2
import numpy as np
from PIL import Image
import pytest
from support.waiting import wait_for_end

from lingbot_va_ros.cli.common import mp4
from lingbot_va_ros.cli.main import INTERRUPTED, main

FILES = {'video.mp4', 'actions.npz', 'actions.png'}
INSTRUCTION = 'put the $cube$ on the brick'  # no formula, whatever draws it
START_SECONDS = 120.0


@pytest.fixture
def stills(tmp_path):
    """Two pictures, of other sizes than the policy's."""
    paths = []
    for place, name in enumerate(('head', 'left_wrist')):
        picture = np.full((48 + 16 * place, 80, 3), 40 + 80 * place, np.uint8)
        picture[10:30, 20:60] = (240, 200, 40)
        paths.append(tmp_path / f'{name}.png')
        Image.fromarray(picture).save(paths[-1])
    return paths


@pytest.fixture
def command(untrained_checkpoint, tmp_path):
    """Return the words of the command and its output folder."""
    output = tmp_path / 'new' / 'folder'
    return ['imagine', '--checkpoint', str(untrained_checkpoint), '--device', 'cpu',
            '--instruction', INSTRUCTION, '--output', str(output)], output


def decoded(path):
    """Return the pictures of a video [T, H, W, 3], its rate and metadata."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pictures = [frame.to_ndarray(format='rgb24') for frame in container.decode(stream)]
        return np.array(pictures), float(stream.average_rate), dict(container.metadata)


def test_two_stills_become_a_video_actions_and_a_plot(command, stills, tmp_path, capsys):
    words, output = command
    report_path = tmp_path / 'reports' / 'report.json'
    assert main([*words, *map(str, stills), '--chunks', '3', '--json', str(report_path)]) == 0
    printed = capsys.readouterr().out

    assert {path.name for path in output.iterdir()} == FILES
    pictures, rate, about = decoded(output / 'video.mp4')
    assert len(pictures) == 1 + 4 * (3 * 2 - 1)
    assert rate == 5.0  # 10 actions a second, an image after every second one
    assert pictures.shape[2] == 128 and pictures.shape[1] > 64  # two views, and the warning above
    assert about['title'] == INSTRUCTION and 'UNTRAINED' in about['comment']

    arrays = np.load(output / 'actions.npz')
    assert arrays['actions'].shape == (3 * 16 - 8, 7) and arrays['actions'].dtype == np.float32
    assert np.isfinite(arrays['actions']).all()
    np.testing.assert_allclose(arrays['times'], np.arange(40) / 10.0)
    assert np.bincount(arrays['chunks']).tolist() == [8, 16, 16]
    assert arrays['channels'].tolist() == [
        *(f'left_joint_{number}' for number in range(1, 7)), 'left_gripper']
    assert arrays['units'].tolist() == 6 * ['rad'] + ['0 closed, 1 open']
    assert arrays['model_channels'].tolist() == [14, 15, 16, 17, 18, 19, 28]
    assert (str(arrays['instruction']), str(arrays['action_frame']), bool(arrays['trained'])) == (
        INSTRUCTION, 'joints', False)

    plot = cv2.imread(str(output / 'actions.png'))
    assert plot.shape[1] > 800 and len(np.unique(plot.reshape(-1, 3), axis=0)) > 20

    report = json.loads(report_path.read_text())
    assert report['files'] == {
        'video': str(output / 'video.mp4'), 'actions': str(output / 'actions.npz'),
        'plot': str(output / 'actions.png')}
    assert len(report['chunk_seconds']) == 3 and min(report['chunk_seconds']) > 0
    assert report['decode_seconds'] > 0 and report['load_seconds'] > 0
    assert (report['pictures'], report['actions'], report['trained']) == (21, 40, False)

    assert 'UNTRAINED' in printed and '1/3' in printed and '3/3' in printed
    assert '\x1b' not in printed  # plain lines where there is no terminal


def test_cameras_can_be_named_and_come_in_any_order(command, stills):
    words, output = command
    head, wrist = map(str, stills)
    assert main([*words, head, wrist, '--chunks', '1']) == 0
    first = np.load(output / 'actions.npz')['actions']
    assert main([*words, '--image', f'left_wrist={wrist}', '--image', f'head={head}',
                 '--chunks', '1', '--fps', '12.5']) == 0
    np.testing.assert_array_equal(np.load(output / 'actions.npz')['actions'], first)
    assert decoded(output / 'video.mp4')[1] == 12.5
    assert main([*words, wrist, head, '--chunks', '1']) == 0
    assert not np.array_equal(np.load(output / 'actions.npz')['actions'], first)


def test_the_video_of_a_trained_policy_is_the_pictures_alone(
        command, stills, untrained_checkpoint, tmp_path, capsys):
    words, output = command
    policy = (untrained_checkpoint / 'policy.yaml').read_text()
    assert 'trained: false' in policy
    trained = tmp_path / 'trained.yaml'
    trained.write_text(policy.replace('trained: false', 'trained: true'))
    assert main([*words, *map(str, stills), '--chunks', '1', '--policy', str(trained)]) == 0
    pictures, _, about = decoded(output / 'video.mp4')
    assert pictures.shape == (5, 64, 128, 3)
    assert 'UNTRAINED' not in about['comment'] + capsys.readouterr().out


def test_seed_steps_and_guidance_change_what_is_imagined(command, stills):
    words, output = command
    seen = []
    for more in ([], ['--seed', '3'], ['--video-steps', '2'], ['--action-steps', '3'],
                 ['--guidance-scale', '5']):
        assert main([*words, *map(str, stills), '--chunks', '1', *more]) == 0
        seen.append(np.load(output / 'actions.npz')['actions'])
    assert len(np.unique(seen, axis=0)) == len(seen)


def refuse(words, capsys, *parts):
    """Run a command that cannot work and return the one line that it says."""
    try:
        code = main(words)
    except SystemExit as ended:
        code = ended.code
    printed = capsys.readouterr()
    assert code in (1, 2), printed
    assert printed.err.count('\n') == 1, printed.err
    for part in parts:
        assert part in printed.err
    return printed.err


def test_what_is_wrong_with_the_images_is_said_in_one_line(command, stills, tmp_path, capsys):
    words, output = command
    head, wrist = map(str, stills)
    missing, text, cut = tmp_path / 'none.png', tmp_path / 'text.png', tmp_path / 'cut.jpg'
    deep, folder = tmp_path / 'deep.png', tmp_path / 'a_folder'
    text.write_text('no picture')
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(cut)
    cut.write_bytes(cut.read_bytes()[:1500])
    cv2.imwrite(str(deep), np.full((8, 8), 1000, np.uint16))
    folder.mkdir()
    for given, parts in (
            ([], ['0 images', 'head, left_wrist']),
            ([head], ['1 images', '2 cameras', 'head, left_wrist']),
            ([head, wrist, wrist], ['3 images']),
            (['--image', f'head={head}'], ['0 images for camera left_wrist']),
            (['--image', f'head={head}', '--image', f'head={head}'], ['2 images for camera head']),
            (['--image', f'chest={head}', '--image', f'head={head}'],
             ['chest', 'no such camera', 'head, left_wrist']),
            ([head, '--image', f'left_wrist={wrist}'], ['give all of them in the same way']),
            (['--image', 'head.png'], ["'head.png' is not ROLE=FILE"]),
            ([head, str(missing)], [str(missing), 'No such file']),
            ([head, str(text)], [str(text), 'no image format']),
            ([head, str(cut)], [str(cut), 'truncated']),
            ([head, str(deep)], [str(deep), '8 bits']),
            ([head, str(folder)], [str(folder), 'directory'])):
        refuse([*words, *given], capsys, *parts)
        assert not output.parent.exists()


def test_other_mistakes_are_said_in_one_line(command, stills, tmp_path, capsys):
    words, output = command
    images = list(map(str, stills))
    (tmp_path / 'file').write_text('kept')
    (tmp_path / 'taken' / 'video.mp4').mkdir(parents=True)
    damaged = tmp_path / 'damaged'
    damaged.mkdir()
    for given, parts in (
            (['--checkpoint', str(tmp_path / 'nowhere')], [f'{tmp_path}/nowhere is not a folder']),
            (['--checkpoint', str(damaged), '--policy', 'untrained'],
             [str(damaged), 'does not exist']),
            (['--policy', 'unknown'], ["'unknown'", 'shipped']),
            (['--policy', 'franka'], ['2 images', '3 cameras']),
            (['--video-exec-steps', '99'], ['--video-exec-steps 99']),
            (['--chunks', '0'], ["--chunks: '0'"]),
            (['--instruction', ' '], ['--instruction', 'empty']),
            (['--fps', '0'], ['--fps']),
            (['--output', str(tmp_path / 'file')], [str(tmp_path / 'file')]),
            (['--output', str(tmp_path / 'file' / 'below')], [str(tmp_path / 'file')]),
            (['--output', str(tmp_path / 'taken')], [str(tmp_path / 'taken' / 'video.mp4')]),
            (['--json', str(tmp_path / 'file' / 'r.json')], [str(tmp_path / 'file')])):
        refuse([*words, *images, *given], capsys, *parts)
        assert not output.parent.exists()
    assert (tmp_path / 'file').read_text() == 'kept'
    assert [path.name for path in (tmp_path / 'taken').iterdir()] == ['video.mp4']


def test_without_a_checkpoint_it_says_how_to_get_one(stills, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        'lingbot_va_ros.cli.common.engine_options.share_folder', lambda: tmp_path / 'share')
    refuse(['imagine', *map(str, stills), '--instruction', 'x', '--output', str(tmp_path / 'o')],
           capsys, 'no checkpoint', '--checkpoint FOLDER')
    assert not (tmp_path / 'o').exists()


def test_without_a_codec_it_says_so_before_it_loads(command, stills, capsys, monkeypatch):
    words, output = command
    monkeypatch.setattr(mp4, 'CODECS', {'no_such_codec': {}})
    refuse([*words, *map(str, stills)], capsys, 'no_such_codec')
    assert not output.parent.exists()


def test_what_fails_at_the_end_leaves_the_earlier_results(
        command, stills, tmp_path, capsys, monkeypatch):
    words, output = command
    assert main([*words, *map(str, stills), '--chunks', '1']) == 0
    capsys.readouterr()
    before = {path.name: path.read_bytes() for path in output.iterdir()}

    def full(file, **_arrays):
        file.write(b'half of it')
        raise OSError(28, 'No space left on device', file.name)
    monkeypatch.setattr(np, 'savez', full)
    line = refuse([*words, *map(str, stills), '--chunks', '2'], capsys, 'No space left')
    assert str(output / 'actions.npz') in line and 'unfinished' not in line
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


@pytest.mark.parametrize('moment', ['phase loading', 'done 1/', 'phase decoding'])
def test_ctrl_c_ends_it_soon_and_leaves_nothing(command, stills, tmp_path, moment):
    words, output = command
    chunks = '150' if moment == 'phase decoding' else '5000'
    with open(tmp_path / 'log', 'w') as log:
        process = subprocess.Popen(
            [sys.executable, '-u', '-m', 'lingbot_va_ros.cli.main', *words, *map(str, stills),
             '--chunks', chunks, '--json', str(tmp_path / 'report.json')],
            stdout=log, stderr=subprocess.STDOUT, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    try:
        deadline = time.monotonic() + START_SECONDS
        while moment not in (tmp_path / 'log').read_text():
            assert process.poll() is None and time.monotonic() < deadline, (
                tmp_path / 'log').read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert wait_for_end(process, 10.0) == 130, (tmp_path / 'log').read_text()
    finally:
        process.kill()
        process.wait()
    printed = (tmp_path / 'log').read_text()
    assert printed.splitlines()[-1] == f'lingbot_va imagine: {INTERRUPTED}'
    assert 'Traceback' not in printed
    assert not output.parent.exists()
    assert not (tmp_path / 'report.json').exists()
