#!/bin/sh
# Compile the modules of the libraries that the package and its tests import, by importing them.
# usage: tools/compile_libraries.sh PYTHON
#
# pip is told to compile nothing, because most of the 16,000 modules are never imported. Without
# this, the processes of the tests would compile the same 3,000 modules at the same time.
set -u
unset PYTHONDONTWRITEBYTECODE

# A module that cannot be imported here is compiled where it is needed.
import_all() {
    "$python" -W ignore - "$@" > /dev/null 2>&1 <<'END'
import contextlib
import importlib
import sys

for name in sys.argv[1:]:
    with contextlib.suppress(Exception):
        importlib.import_module(name)
END
}

python=$1
import_all torch transformers.models.umt5.modeling_umt5 torch.testing \
    diffusers.models.autoencoders.autoencoder_kl_wan &
import_all pytest xdist hypothesis rclpy.lifecycle rclpy.action launch_ros.actions launch_testing \
    mujoco matplotlib.pyplot cv2 av yaml rich.live PIL.Image websockets.sync.client \
    sensor_msgs.msg geometry_msgs.msg lifecycle_msgs.srv rcl_interfaces.srv \
    visualization_msgs.msg trajectory_msgs.msg control_msgs.action &
wait
