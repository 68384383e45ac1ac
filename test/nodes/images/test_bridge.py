"""cv_bridge: tried in a process of its own, and used where it is asked for and works."""

from pathlib import Path
import sys

import numpy as np
import pytest
from sensor_msgs.msg import Image

from lingbot_va_ros.nodes.images import bridge
from lingbot_va_ros.nodes.images.bridge import probe_bridge
from lingbot_va_ros.nodes.images.conversion import choose_converter
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault

STAND_INS = Path(__file__).parent / 'bridges'


@pytest.fixture
def stand_in(monkeypatch):
    """Return a function that makes one of the stand-ins the cv_bridge of this process."""
    def use(kind):
        for name in [name for name in sys.modules if name.split('.')[0] == 'cv_bridge']:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(str(STAND_INS / kind))
    yield use
    sys.modules.pop('cv_bridge', None)


def message_of(encoding, rows, width, big=False):
    message = Image(
        encoding=encoding, width=width, height=len(rows), step=rows.shape[1],
        is_bigendian=int(big))
    message.data.frombytes(rows.astype(np.uint8).tobytes())
    return message


def test_one_that_works(stand_in):
    stand_in('working')
    report = probe_bridge()
    assert report.works
    assert report.installed
    assert report.message == f'works, in {STAND_INS / "working" / "cv_bridge"}'


@pytest.mark.parametrize('kind, words', [
    ('aborting', 'ends its process by SIGABRT: built for another NumPy? (RuntimeError: module '
                 'compiled against another NumPy)'),
    ('raising', 'fails: ImportError: libopencv_core.so.406: cannot open shared object file')])
def test_one_that_fails_does_no_harm(stand_in, kind, words):
    stand_in(kind)
    report = probe_bridge()
    assert (report.works, report.installed, report.message) == (False, True, words)
    converter, line = choose_converter('auto')
    assert line == f'images are converted by this package; cv_bridge {words}'
    with pytest.raises(CameraFault, match="'gbr8' is not supported; .* cv_bridge, which may know"):
        converter.to_rgb(message_of('gbr8', np.zeros((2, 6)), 2))
    with pytest.raises(ValueError, match='image_converter is cv_bridge, but cv_bridge'):
        choose_converter('cv_bridge')


def test_without_one(monkeypatch):
    monkeypatch.setattr(bridge.importlib.util, 'find_spec', lambda name: None)
    report = probe_bridge()
    assert (report.works, report.installed, report.message) == (False, False, 'is not installed')
    assert choose_converter('auto')[1].endswith('cv_bridge is not installed')


def test_one_that_hangs(stand_in, tmp_path, monkeypatch):
    (tmp_path / 'cv_bridge.py').write_text('import time\ntime.sleep(60)\n')
    monkeypatch.setattr(bridge, 'TRIAL_SECONDS', 1.0)
    assert probe_bridge([str(tmp_path), *sys.path]).message == 'does not answer within 1 s'


def test_one_that_changes_colors(stand_in, tmp_path):
    text = (STAND_INS / 'working' / 'cv_bridge' / '__init__.py').read_text()
    (tmp_path / 'cv_bridge.py').write_text(text.replace("'bgr8': [2, 1, 0]", "'bgr8': [0, 1, 2]"))
    report = probe_bridge([str(tmp_path), *sys.path])
    assert report.message == 'fails: RuntimeError: cv_bridge changes the colors of bgr8'


def test_auto_asks_it_for_what_this_package_does_not_know(stand_in):
    stand_in('working')
    converter, line = choose_converter('auto')
    assert line.startswith(
        'images are converted by cv_bridge (those that this package does not know), which works')
    rows = np.arange(2 * 8).reshape(2, 8)  # two pixels and a padding of two bytes
    image = converter.to_rgb(message_of('gbr8', rows, 2))
    np.testing.assert_array_equal(image, rows[:, :6].reshape(2, 2, 3)[..., [2, 0, 1]])
    mono = converter.to_rgb(message_of('mono8', rows, 8))  # which the stand-in does not know
    np.testing.assert_array_equal(mono, rows[..., None].repeat(3, -1))


def test_it_converts_all_where_it_is_asked_to(stand_in):
    stand_in('working')
    converter, line = choose_converter('cv_bridge')
    assert line.startswith('images are converted by cv_bridge (all raw), which works')
    with pytest.raises(CameraFault, match=r"'mono8' to rgb8: Unrecognized image encoding"):
        converter.to_rgb(message_of('mono8', np.zeros((2, 8)), 8))


def test_own_does_not_try_it(stand_in):
    stand_in('aborting')
    assert choose_converter('own')[1] == 'images are converted by this package'


@pytest.mark.parametrize('padding', [0, 1, 2, 4, 5, 6, 32])
@pytest.mark.parametrize('big', [False, True])
def test_padding_and_byte_order_are_taken_out_before(stand_in, padding, big):
    stand_in('working')
    converter = choose_converter('cv_bridge')[0]
    samples = np.random.default_rng(padding).integers(0, 65536, (3, 5))
    rows = samples.astype('>u2' if big else '<u2').view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    image = converter.to_rgb(message_of('mono16', rows, 5, big))
    np.testing.assert_array_equal(
        image, np.rint(samples / 257).astype(np.uint8)[..., None].repeat(3, -1))


@pytest.mark.parametrize('encoding, words', [
    ('32FC1', 'is not a color format'), ('rot13', 'Unrecognized image encoding')])
def test_what_it_refuses_is_a_camera_fault(stand_in, encoding, words):
    stand_in('working')
    converter = choose_converter('auto')[0]
    with pytest.raises(CameraFault, match=f"cannot convert '{encoding}' to rgb8: .*{words}"):
        converter.to_rgb(message_of(encoding, np.zeros((2, 8)), 2))


def test_too_little_data_is_refused_before_it_sees_it(stand_in):
    stand_in('working')
    message = message_of('gbr8', np.zeros((2, 6)), 2)
    message.height = 3
    with pytest.raises(CameraFault, match='12 bytes of data, expected 18'):
        choose_converter('auto')[0].to_rgb(message)
