"""Chooses the library that renders without a screen, before mujoco is imported."""

import ctypes
import os

# Software rendering first: the same images on every machine, and nothing to configure.
_LIBRARIES = {'osmesa': ('libOSMesa.so.8',), 'egl': ('libEGL.so.1', 'libOpenGL.so.0')}
_INSTALL = 'apt-get install libosmesa6 (or: libegl1 libgl1-mesa-dri libopengl0)'


class NoRenderer(RuntimeError):
    """No library can render without a screen; the message is one line with the remedy."""


def choose_gl() -> str:
    """
    Set MUJOCO_GL where the user has not: osmesa, egl, or disable where neither is installed.

    With disable MuJoCo simulates but does not render.
    """
    if not os.environ.get('MUJOCO_GL'):
        os.environ['MUJOCO_GL'] = next(
            (name for name, files in _LIBRARIES.items() if all(map(_loads, files))), 'disable')
    return os.environ['MUJOCO_GL']


def no_renderer(error: object = None) -> NoRenderer:
    """Return the reason why nothing can be rendered, with `error` if there was one."""
    chosen = choose_gl()
    if chosen == 'disable':
        return NoRenderer(
            'cannot draw the cameras: neither OSMesa nor EGL is installed '
            f'(MUJOCO_GL=disable); {_INSTALL}')
    return NoRenderer(f'cannot draw the cameras with MUJOCO_GL={chosen}: {error}; {_INSTALL}')


def _loads(file: str) -> bool:
    try:
        ctypes.CDLL(file)
    except OSError:
        return False
    return True
