"""Choose the library that draws without a screen, before mujoco is imported."""

import ctypes
import os

# Software rendering first: the same pictures on every machine.
_LIBRARIES = {
    'osmesa': ('libOSMesa.so.8', 'libOSMesa.so.6', 'libOSMesa.so'),
    'egl': ('libEGL.so.1',),
}
INSTALL = 'apt-get install libosmesa6 (or: libegl1 libgl1-mesa-dri libopengl0)'


class NoRenderer(RuntimeError):
    """No library for drawing without a screen is installed."""


def choose_gl() -> str:
    """
    Set MUJOCO_GL where the user has not, and return it.

    :raises NoRenderer: neither OSMesa nor EGL can be loaded.
    """
    chosen = os.environ.get('MUJOCO_GL')
    if chosen:
        return chosen
    for name, files in _LIBRARIES.items():
        if any(_loads(file) for file in files):
            os.environ['MUJOCO_GL'] = name
            return name
    raise NoRenderer(
        f'cannot draw the cameras: neither OSMesa nor EGL is installed; {INSTALL}')


def _loads(file: str) -> bool:
    try:
        ctypes.CDLL(file)
    except OSError:
        return False
    return True
