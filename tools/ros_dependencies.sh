#!/usr/bin/env bash
# Install what the package needs on a machine with ROS 2 from its packages: system packages through
# rosdep, and a virtual environment that sees ROS, with the libraries that rosdep lacks or has in
# older versions. CI, the Dockerfile and a person's workspace use it alike.
#
# usage: source /opt/ros/<distribution>/setup.bash; tools/ros_dependencies.sh FOLDER
#
# Not run where this package is developed, which has no ROS packages.
set -euo pipefail
venv=$1
cd "$(dirname "$0")/.."

as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
$as_root apt-get -q update
$as_root apt-get -q install -y --no-install-recommends \
    g++ libosmesa6 python3-pip python3-rosdep python3-venv ||
    $as_root apt-get -q install -y --no-install-recommends \
        g++ libegl1 libgl1-mesa-dri libopengl0 python3-pip python3-rosdep python3-venv
[ -d /etc/ros/rosdep/sources.list.d ] || $as_root rosdep init
rosdep update --rosdistro "$ROS_DISTRO"
rosdep install --from-paths . --ignore-src -y --rosdistro "$ROS_DISTRO" \
    --skip-keys 'python3-mujoco-pip python3-pytorch-pip python3-transformers-pip'

python3 -m venv --system-site-packages "$venv"
touch "$venv/COLCON_IGNORE"
# ROS's OpenCV, cv_bridge and pinocchio are compiled for the system's NumPy, whose major version stays.
next=$(/usr/bin/python3 -c 'import numpy; print(int(numpy.__version__.split(".")[0]) + 1)')
grep -vE '^(#|opencv-python-headless|pin>)' requirements.txt > "$venv/requirements.txt"
# pytest: Ubuntu 22.04 has version 6, which lacks a setting that the tests use.
"$venv/bin/pip" install --quiet --requirement "$venv/requirements.txt" "numpy<$next" 'pytest>=7'
