"""Starts a launch file in a separate process, as `ros2 launch` does."""

from contextlib import contextmanager
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
# `ros2 launch` does the same; ros2cli need not be there for it.
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource

path, *given = sys.argv[1:]
service = LaunchService(argv=given)
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    AnyLaunchDescriptionSource(path),
    launch_arguments=[argument.split(':=', 1) for argument in given])]))
sys.exit(service.run())
"""


class Launched:
    """A running launch file and what it has printed."""

    def __init__(self, process: subprocess.Popen, log: Path):
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        """Everything printed so far."""
        return self._log.read_text()

    def wait_for(self, pattern: str, times: int = 1, seconds: float = 60.0) -> None:
        """Wait until a pattern was printed as often as this; fail where the launch ends first."""
        deadline = time.monotonic() + seconds
        while len(re.findall(pattern, self.output)) < times:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, f'no {pattern!r} in:\n{self.output}'
            time.sleep(0.05)

    def pid_of(self, executable: str) -> int:
        """Return the process of a node that was started last."""
        return int(re.findall(rf'{executable}-\d+\]: process started with pid \[(\d+)\]',
                              self.output)[-1])

    def running(self) -> list:
        """Return which processes of nodes still run."""
        pids = map(int, re.findall(r'process started with pid \[(\d+)\]', self.output))
        return [pid for pid in pids if Path(f'/proc/{pid}').exists()]

    def interrupt(self) -> float:
        """End the launch as Ctrl-C does and return the seconds that it took."""
        since = time.monotonic()
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(timeout=20)
        return time.monotonic() - since


@pytest.fixture
def launch_file(tmp_path):
    """Return a function whose context runs a launch file, given its name and arguments."""
    environment = dict(os.environ)
    known = environment.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    environment['AMENT_PREFIX_PATH'] = os.pathsep.join([*filter(None, known), sys.prefix])

    @contextmanager
    def start(name: str, *arguments: str):
        log = tmp_path / f'launch_{time.monotonic_ns()}.log'
        with log.open('w') as file:
            process = subprocess.Popen(
                [sys.executable, '-c', LAUNCH, str(CHECKOUT / 'launch' / f'{name}.launch.py'),
                 *arguments],
                stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
        launched = Launched(process, log)
        try:
            yield launched
        finally:
            # Its own group: the nodes of a launch that was killed would go on.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()

    return start
