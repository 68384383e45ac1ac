"""
What all tests share: a ROS domain, a log folder, the profile for images, a checkpoint.

The environment is set here, before any test imports rclpy, so that `pytest`, `make test` and
`colcon test` run alike.
"""

import os
from pathlib import Path
import tempfile

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]

# Two runs on one machine must not hear each other. Domains up to 101 are legal everywhere: the
# ports of higher ones reach into those that Linux gives out by itself.
os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 101)
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
# Jazzy's Fast DDS reads the first, Kilted's the second.
for variable in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
    os.environ[variable] = str(CHECKOUT / 'config' / 'fastdds_images.xml')

# Removed with the process; rclpy cannot start where it finds no folder for its logs.
_logs = tempfile.TemporaryDirectory(prefix='lingbot_va_ros_test_log_')
os.environ['ROS_LOG_DIR'] = _logs.name


@pytest.fixture(scope='session')
def untrained_checkpoint(tmp_path_factory) -> Path:
    """Return a checkpoint folder with random weights, in the public layout."""
    from lingbot_va_ros.model.untrained import write_untrained_checkpoint  # torch: slow to import

    folder = tmp_path_factory.mktemp('checkpoint')
    write_untrained_checkpoint(folder, CHECKOUT / 'config' / 'policies' / 'untrained.yaml')
    return folder
