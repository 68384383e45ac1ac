#!/bin/sh
# Install what only the system's package manager has: a C++ compiler, Python's headers, and a library
# that draws without a screen. Does nothing where all are there; where root is not to be had, prints
# the command to run and fails.
# usage: tools/system_packages.sh PYTHON
set -u
python=$1
missing=

command -v c++ >/dev/null || missing="$missing g++"

"$python" -c '
import os, sys, sysconfig
sys.exit(not os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
    missing="$missing $("$python" -c 'import sys; print("python%d.%d-dev" % sys.version_info[:2])')"

loads() {
    "$python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1" 2>/dev/null
}
draws=yes
loads libOSMesa.so.8 || loads libEGL.so.1 || draws=no

[ -z "$missing" ] && [ $draws = yes ] && exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    if sudo -n true 2>/dev/null; then as_root='sudo -n'; else as_root=unavailable; fi
fi
if ! command -v apt-get >/dev/null || [ "$as_root" = unavailable ]; then
    [ $draws = yes ] || missing="$missing libosmesa6"
    echo "missing from this system, and there is no root here to install it:$missing" >&2
    echo "run this, then make again: sudo apt-get install$missing" >&2
    exit 1
fi

$as_root apt-get -q update || exit 1
if [ $draws = no ]; then
    # OSMesa is the smallest, and left the newer distributions.
    if apt-cache show libosmesa6 >/dev/null 2>&1; then
        missing="$missing libosmesa6"
    else
        missing="$missing libegl1 libgl1-mesa-dri libopengl0"
    fi
fi
echo "installing:$missing"
# shellcheck disable=SC2086  # several words on purpose
DEBIAN_FRONTEND=noninteractive $as_root apt-get -q install -y --no-install-recommends $missing
