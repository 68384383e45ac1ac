"""`lingbot_va bench`: rows and keys of its JSON, ratios, a stand-in for the peer, and errors."""

import json
import subprocess
import sys

import pytest
import torch

from lingbot_va_ros.cli.bench.engine import add_roofline
from lingbot_va_ros.cli.bench.import_stubs import rearrange
from lingbot_va_ros.cli.bench.roofline import (
    chunk_forwards,
    chunk_seconds,
    Forward,
    forward_seconds,
    ItemBytes,
    MachineRates,
)
from lingbot_va_ros.cli.bench.session import check_memory, NotEnoughMemory
from lingbot_va_ros.cli.bench.settings import load_setting, NAMES
from lingbot_va_ros.cli.main import main

HALF = ItemBytes(2, 2)
NAMES_OF_A_ROW = {
    'setting', 'device', 'dtype', 'memory_tokens', 'video_forward_ms', 'action_forward_ms',
    'chunk_ms', 'peer_chunk_ms', 'roofline_share', 'peak_bytes'}
QUICK = ['bench', '--setting', 'tiny', '--device', 'cpu', '--no-ros', '--repeats', '1',
         '--video-steps', '1', '--action-steps', '1', '--threads', '1']


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """The file that a quick run has written; its process has no memory of other tests to reuse."""
    path = tmp_path_factory.mktemp('bench') / 'new' / 'results.json'
    program = 'import sys; from lingbot_va_ros.cli.main import main; sys.exit(main())'
    subprocess.run([sys.executable, '-c', program, *QUICK, '--json', str(path)], check=True)
    return path


def test_the_names_that_scripts_rely_on_are_there(results):
    found = json.loads(results.read_text())
    assert {'machine', 'engine', 'ros'} <= found.keys() and found['ros'] is None
    assert found['machine']['threads'] == 1 and len(found['machine']['load_average_before']) == 3
    empty, full = found['engine']
    for row in (empty, full):
        assert NAMES_OF_A_ROW <= row.keys()
        assert (row['setting'], row['device'], row['dtype']) == ('tiny', 'cpu', 'float32')
        assert min(row[name] for name in (
            'video_forward_ms', 'action_forward_ms', 'chunk_ms', 'encode_ms')) > 0
        assert row['peer_chunk_ms'] is None
        lowest, highest = row['roofline_share_range']
        assert 0 < lowest <= highest < 1 and 0 < row['roofline_share'] < 1
        assert row['weights'] == 'full' and not row['graphs']
        assert row['attention_ms']['sdpa'].keys() == {'video', 'action'}
        assert min(row['attention_ms']['sdpa'].values()) > 0
        assert min(rate for rates in row['linear_gflops'].values()
                   for rate in rates.values()) > 0
        assert row['part_bytes']['memory'] > 0 and row['peak_bytes'] > 0
        # a chunk is a forward of each kind, the video written, and both committed
        assert row['chunk_ms'] > row['video_forward_ms'] + row['action_forward_ms']
    assert (empty['memory_tokens'], full['memory_tokens']) == (0, 30 * 32)


def test_an_earlier_run_is_compared(results, tmp_path, capsys):
    earlier = json.loads(results.read_text())
    for row in earlier['engine']:
        row['chunk_ms'] = 1e6
    old, new = tmp_path / 'old.json', tmp_path / 'new.json'
    old.write_text(json.dumps(earlier))
    assert main([*QUICK, '--compare', str(old), '--json', str(new)]) == 0
    found = json.loads(new.read_text())
    for row, ratios in zip(found['engine'], found['compared']['engine']):
        assert ratios['chunk_ms'] == pytest.approx(1e6 / row['chunk_ms'])
    assert 'speed-up since the earlier file' in capsys.readouterr().out


def test_other_steps_are_not_compared(results, tmp_path, capsys):
    words = [*QUICK, '--action-steps', '2', '--compare', str(results)]
    assert main(words) == 0
    assert f'{results} has no row with the same' in capsys.readouterr().out


@pytest.mark.parametrize('words, part', [
    (['--setting', 'huge'], "invalid choice: 'huge'"),
    (['--repeats', '0'], "--repeats: '0' is not a whole number of at least 1"),
    (['--device', 'tpu'], "invalid choice: 'tpu'"),
])
def test_an_option_that_cannot_be_read_gets_one_line(words, part, capsys):
    with pytest.raises(SystemExit) as ended:
        main(['bench', *words])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert part in error and error.count('\n') == 1


def test_a_peer_without_the_public_code_gets_one_line(tmp_path, capsys):
    lookalike = tmp_path / 'lingbot-va'
    (lookalike / 'wan_va').mkdir(parents=True)
    (lookalike / 'wan_va' / 'wan_va_server.py').touch()
    for path, part in (
            (tmp_path / 'nowhere', 'is not a folder'),
            (tmp_path, 'has no wan_va/wan_va_server.py'),
            (lookalike, 'has no wan_va/modules/model.py')):
        assert main([*QUICK, '--peer', str(path)]) == 1
        error = capsys.readouterr().err
        assert str(path) in error and part in error
        assert error.count('\n') == 1


def test_a_peer_that_cannot_be_imported_gets_its_reason(tmp_path, capsys):
    for name in ('modules/model.py', 'modules/utils.py', 'utils/scheduler.py'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'wan_va_server.py').write_text('import flash_attn\nimport a_package_of_mars\n')
    assert main([*QUICK, '--peer', str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "cannot be imported: No module named 'a_package_of_mars'" in error
    assert error.count('\n') == 1


@pytest.mark.parametrize('words, part', [
    (['--no-engine', '--no-ros'], 'leave nothing to measure'),
    (['--no-engine', '--peer', '.'], 'remove --no-engine'),
    (['--peer', '.', '--weights', 'int8'], 'remove --weights int8'),
])
def test_options_that_exclude_each_other_get_one_line(words, part, capsys):
    assert main(['bench', *words]) == 1
    error = capsys.readouterr().err
    assert part in error and error.count('\n') == 1


@pytest.mark.parametrize('content, part', [
    (None, 'cannot be read'), ('{', 'is not JSON'), ('{"rows": []}', 'has no results')])
def test_a_file_that_holds_no_results_gets_one_line(tmp_path, content, part, capsys):
    path = tmp_path / 'old.json'
    if content is not None:
        path.write_text(content)
    assert main([*QUICK, '--compare', str(path)]) == 1
    error = capsys.readouterr().err
    assert part in error and str(path) in error and error.count('\n') == 1


def test_weights_of_8_bits_are_measured_and_take_less(results, tmp_path, capsys):
    path = tmp_path / 'int8.json'
    assert main([*QUICK, '--weights', 'int8', '--json', str(path), '--compare',
                 str(results)]) == 0
    row, whole = (json.loads(file.read_text())['engine'][1] for file in (path, results))
    assert row['weights'] == 'int8' and 'float32 int8' in capsys.readouterr().out
    assert row['part_bytes']['weights'] < 0.7 * whole['part_bytes']['weights']
    assert json.loads(path.read_text())['compared']['engine'] == []  # not the same thing


def test_the_share_is_that_of_the_best_and_its_range_that_of_single_samples():
    setting = load_setting('mid-cpu')
    slow, fast = MachineRates(1e11, 1e10), MachineRates(2e11, 2e10)
    single = ItemBytes(4, 4)
    floors = [1e3 * chunk_seconds(setting, 0, single, rates) for rates in (slow, fast)]

    def row(**times):
        return {'memory_tokens': 0, 'device': 'cpu', 'rates': [slow, fast],
                'samples_ms': {'chunk': [10 * floors[0], 4 * floors[1]]},
                'processor_samples_ms': {'chunk': [2 * floors[1], 3 * floors[1]]}}

    for threads, share, lowest in ((2, 1 / 4, 1 / 10), (1, 1 / 2, 1 / 3)):
        measured = row()
        add_roofline([measured], setting, single, fast, threads)
        assert measured['floor_ms'] == pytest.approx(floors[1])
        assert measured['roofline_share'] == pytest.approx(share)
        assert measured['roofline_share_range'][0] == pytest.approx(lowest)
        assert 'rates' not in measured


def test_a_setting_that_does_not_fit_is_told_before_anything_is_made(monkeypatch):
    monkeypatch.setattr(
        'lingbot_va_ros.cli.bench.session.free_bytes', lambda _device: 12 * 10 ** 9)
    with pytest.raises(NotEnoughMemory, match=r'robotwin needs \d\d GB on cpu, of which 12 GB'):
        check_memory(load_setting('robotwin'), torch.device('cpu'), 4, networks=1)
    check_memory(load_setting('tiny'), torch.device('cpu'), 4, networks=1)


@pytest.mark.parametrize('name', NAMES)
def test_every_setting_has_the_sizes_it_names(name):
    setting = load_setting(name)
    assert (setting.video_tokens, setting.action_tokens, setting.window) == {
        'mid-cpu': (240, 32, 9792), 'tiny': (16, 16, 960), 'robotwin': (240, 32, 9792),
        'robotwin-fast': (240, 32, 9792), 'franka': (840, 80, 13800)}[name]
    if name.startswith('robotwin'):
        assert (setting.video.steps, setting.action.steps) == (
            (3, 10) if name.endswith('fast') else (25, 50))


def test_the_floor_is_that_of_the_public_sizes():
    """790 TFLOP/s and 4.3 TB/s, bfloat16: the figures of the design."""
    rates = MachineRates(790e12, 4.3e12)
    setting = load_setting('robotwin')
    video = forward_seconds(setting.network, Forward(2, 240, 9792, 192), HALF, rates)
    action = forward_seconds(setting.network, Forward(1, 32, 9792, 30), HALF, rates)
    assert video == pytest.approx(7.6e-3, rel=0.1)
    assert action == pytest.approx(2.9e-3, rel=0.1)
    assert chunk_seconds(setting, 9792, HALF, rates) == pytest.approx(0.354, rel=0.1)
    rows = [forward.rows for forward in chunk_forwards(setting, 9792)]
    assert sum(rows) == 105


@pytest.mark.parametrize('pattern, sizes', [
    ('b c (f p) (h q) -> b (f h) (c p q)', {'p': 1, 'q': 2}),
    ('b c f h -> (b f) c h', {}),
    ('(x b) c f h -> b c f x h', {'x': 2}),
    ('b c f h -> b f h c 1', {}),
])
def test_axes_are_rearranged_as_they_are_named(pattern, sizes):
    tensor = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    ours = rearrange(tensor, pattern, **sizes)
    if pattern.startswith('b c (f'):
        expected = tensor.reshape(2, 3, 4, 3, 2).permute(0, 2, 3, 1, 4).reshape(2, 12, 6)
    elif pattern.startswith('(x'):
        expected = tensor.reshape(2, 1, 3, 4, 6).permute(1, 2, 3, 0, 4)
    elif '(b f)' in pattern:
        expected = tensor.permute(0, 2, 1, 3).reshape(8, 3, 6)
    else:
        expected = tensor.permute(0, 2, 3, 1).unsqueeze(-1)
    assert torch.equal(ours, expected)
