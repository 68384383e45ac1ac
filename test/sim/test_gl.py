"""The choice of the library for offscreen rendering."""

import os

import pytest

from lingbot_va_ros.sim import gl


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setenv('MUJOCO_GL', '')
    files = set()
    monkeypatch.setattr(gl, '_loads', files.__contains__)
    return files


@pytest.mark.parametrize('files, chosen', [
    ({'libOSMesa.so.8', 'libEGL.so.1', 'libOpenGL.so.0'}, 'osmesa'),
    ({'libEGL.so.1', 'libOpenGL.so.0'}, 'egl'),
    ({'libEGL.so.1'}, 'disable'),
    (set(), 'disable')])
def test_chooses_the_installed_library(installed, files, chosen):
    installed |= files
    assert gl.choose_gl() == chosen
    assert os.environ['MUJOCO_GL'] == chosen


def test_leaves_the_choice_of_the_user(installed, monkeypatch):
    installed.add('libOSMesa.so.8')
    monkeypatch.setenv('MUJOCO_GL', 'egl')
    assert gl.choose_gl() == 'egl'


def test_names_the_command_where_nothing_is_installed(installed):
    assert not installed
    message = str(gl.no_renderer())
    assert 'apt-get install libosmesa6' in message
    assert '\n' not in message
