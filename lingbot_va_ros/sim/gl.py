"""Chooses the library for offscreen rendering, before mujoco is imported."""

import ctypes
import os

# Software rendering first: it gives the same images on every machine and needs no setup.
_LIBRARIES = {'osmesa': ('libOSMesa.so.8',), 'egl': ('libEGL.so.1', 'libOpenGL.so.0')}
_INSTALL = 'apt-get install libosmesa6 (or: libegl1 libgl1-mesa-dri libopengl0)'


class NoRenderer(RuntimeError):
    """No library for offscreen rendering works; the message is one line and names the remedy."""


def choose_gl() -> str:
    """
    Set the environment variable MUJOCO_GL where the user has not, and return its value.

    :returns: osmesa, egl, or disable where neither is installed: MuJoCo then does not render.
    """
    if not os.environ.get('MUJOCO_GL'):
        os.environ['MUJOCO_GL'] = next(
            (name for name, files in _LIBRARIES.items() if all(map(_loads, files))), 'disable')
    return os.environ['MUJOCO_GL']


def no_renderer(error: object = None) -> NoRenderer:
    """Return the exception that says why rendering is impossible, with `error` if there is one."""
    chosen = choose_gl()
    if chosen == 'disable':
        return NoRenderer(
            'cannot render the cameras: neither OSMesa nor EGL is installed '
            f'(MUJOCO_GL=disable); {_INSTALL}')
    return NoRenderer(f'cannot render the cameras with MUJOCO_GL={chosen}: {error}; {_INSTALL}')


def _loads(file: str) -> bool:
    try:
        ctypes.CDLL(file)
    except OSError:
        return False
    return True
