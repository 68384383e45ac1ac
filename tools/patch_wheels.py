#!/usr/bin/env python3
"""
Make the CMake exports of the ROS wheels fit the environment that they are installed in.

The wheels' exported targets name the Python and NumPy include folders of the machine that built
them (`/opt/python/cp311-cp311/…`); CMake refuses to link against a target whose include folder
does not exist, so no package with messages of its own could be built. Both are replaced by this
environment's own. Run it with the environment's Python after every pip install of a ROS wheel; a
second run finds nothing to do.
"""

from pathlib import Path
import re
import sys
import sysconfig

import numpy

BUILDER_NUMPY = re.compile(r'/opt/python/[^";>]*/numpy/_?core/include')
BUILDER_PYTHON = re.compile(r'/opt/python/[^";>]*/include/python3\.\d+')


def patch(prefix: Path) -> list[Path]:
    """Rewrite the exports under `prefix`/share and return the files that changed."""
    changed = []
    for export in sorted(prefix.glob('share/*/cmake/*.cmake')):
        text = export.read_text()
        patched = BUILDER_NUMPY.sub(lambda _: numpy.get_include(), text)
        patched = BUILDER_PYTHON.sub(lambda _: sysconfig.get_path('include'), patched)
        if patched != text:
            export.write_text(patched)
            changed.append(export)
    return changed


def main() -> int:
    """Patch the environment that runs this script."""
    if not (Path(sysconfig.get_path('include')) / 'Python.h').is_file():
        print(f'{sysconfig.get_path("include")}/Python.h does not exist: install Python\'s '
              'development files (Debian, Ubuntu: apt-get install python3-dev)', file=sys.stderr)
        return 1
    patch(Path(sys.prefix))
    return 0


if __name__ == '__main__':
    sys.exit(main())
