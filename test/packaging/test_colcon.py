"""A colcon workspace builds the package, and the sourced workspace runs that build."""

import json
import shlex
import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(240)

# Sends one message of the package's own over DDS, and says where everything came from.
PROBE = """
import json, time
import rclpy
from ament_index_python.packages import get_package_prefix
import lingbot_va_ros
from lingbot_va_ros import resources
from lingbot_va_ros.msg import ControlMode, _control_mode

rclpy.init()
node = rclpy.create_node('probe')
heard = []
node.create_subscription(ControlMode, 'mode', heard.append, 1)
publisher = node.create_publisher(ControlMode, 'mode', 1)
deadline = time.monotonic() + 20
while not heard and time.monotonic() < deadline:
    publisher.publish(ControlMode(mode=ControlMode.TELEOP, reason='probe'))
    rclpy.spin_once(node, timeout_sec=0.05)
print(json.dumps({
    'package': lingbot_va_ros.__file__, 'message': _control_mode.__file__,
    'share': str(resources.share_folder()), 'prefix': get_package_prefix('lingbot_va_ros'),
    'heard': [[message.mode, message.reason] for message in heard[:1]]}))
"""


def test_a_sourced_workspace_runs_from_its_own_files(overlay, bare_shell):
    command = (f'. {shlex.quote(str(overlay.install / "setup.bash"))} && '
               f'{shlex.quote(sys.executable)} -c {shlex.quote(PROBE)}')
    done = subprocess.run(
        ['bash', '-c', command], cwd=overlay.install, env=bare_shell, capture_output=True,
        text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    prefix = f'{overlay.prefix}/'
    assert said['package'].startswith(prefix)
    assert said['message'].startswith(prefix)
    assert said['share'] == f'{prefix}share/lingbot_va_ros'
    assert said['prefix'] == str(overlay.prefix)
    assert said['heard'] == [[1, 'probe']]


def test_the_environment_hooks_reach_the_shell(overlay, bare_shell):
    command = (f'. {shlex.quote(str(overlay.install / "setup.bash"))} && '
               'echo "$AMENT_PREFIX_PATH" && command -v lingbot_va')
    done = subprocess.run(
        ['bash', '-c', command], cwd=overlay.install, env=bare_shell, capture_output=True,
        text=True, timeout=60, check=True)
    prefix_path, script = done.stdout.splitlines()
    assert prefix_path.split(':')[0] == str(overlay.prefix)
    assert script == str(overlay.prefix / 'bin' / 'lingbot_va')
