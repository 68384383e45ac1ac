"""
Measure the processor time of three cameras by transport, executor and middleware profile.

A separate listener replaces policy_node, so that its processor time contains nothing else. Each
row differs in one setting from the first, which has the settings of policy_node.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
import json
import os
from pathlib import Path
import sys
import tempfile
import time

from std_srvs.srv import SetBool, Trigger

from lingbot_va_ros.cli.bench import cameras as bench_cameras
from lingbot_va_ros.cli.bench import listener as bench_listener
from lingbot_va_ros.cli.common.operator_client import OperatorClient
from lingbot_va_ros.cli.common.processes import NodeProcesses, processor_seconds, ros_environment
from lingbot_va_ros.cli.common.simulated_robot import ros_node
from lingbot_va_ros.resources import PACKAGE

PROFILES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
STREAM_SECONDS = 6.0
WARM_SECONDS = 1.0
WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class ImageSetup:
    """
    One path of images to a process.

    :param profile: whether Fast DDS uses the package's profile, with large shared memory.
    """

    transport: str = 'raw'
    handling: str = 'kept'
    executor: str = 'single'
    profile: bool = True


BASE = ImageSetup()
SETUPS = (
    BASE, replace(BASE, handling='viewed'), replace(BASE, handling='copied'),
    replace(BASE, profile=False), replace(BASE, executor='multi'),
    replace(BASE, executor='events'), replace(BASE, transport='compressed'),
    replace(BASE, transport='compressed', handling='decoded'))


def measure_images(
    say: Callable[[str], None], stream_seconds: float = STREAM_SECONDS,
    setups: Sequence[ImageSetup] = SETUPS,
) -> list[dict]:
    """
    Return a row for each setup.

    :param stream_seconds: measuring time of each setup, s.
    :raises CommandFailed: a process cannot be started, ends, or does not answer.
    """
    return [_measure(setup, stream_seconds, say) for setup in setups]


def _measure(setup: ImageSetup, seconds: float, say: Callable[[str], None]) -> dict:
    settings = "the package's profile" if setup.profile else 'the default of Fast DDS'
    say(f'images: {setup.transport}, {setup.handling}, executor {setup.executor}, {settings}')
    with tempfile.TemporaryDirectory(prefix='lingbot_va_bench_') as folder:
        environment, before = ros_environment(Path(folder) / 'logs'), dict(os.environ)
        if not setup.profile:
            for name in PROFILES:
                environment.pop(name, None)
        for name in PROFILES:
            os.environ.pop(name, None)
        os.environ.update(environment)
        try:
            with NodeProcesses(environment, Path(folder)) as processes, ros_node(
                    'bench_images') as ros:
                return _stream(setup, seconds, processes, OperatorClient(*ros, processes.check))
        finally:
            os.environ.clear()
            os.environ.update(before)


def _stream(
    setup: ImageSetup, seconds: float, processes: NodeProcesses, operator: OperatorClient,
) -> dict:
    cameras = processes.start(bench_cameras.NAME, [
        sys.executable, '-m', f'{PACKAGE}.cli.bench.cameras', '--ros-args', '-p',
        f'transport:={setup.transport}'])
    listener = processes.start(bench_listener.NAME, [
        sys.executable, '-m', f'{PACKAGE}.cli.bench.listener', setup.executor, '--ros-args',
        '-p', f'transport:={setup.transport}', '-p', f'handling:={setup.handling}'])

    def figures() -> dict:
        return json.loads(operator.call(
            Trigger, f'{bench_listener.NAME}/figures', Trigger.Request(), may_repeat=True).message)

    def pause(length: float) -> None:
        end = time.monotonic() + length
        operator.wait_until(lambda: time.monotonic() >= end, length + WAIT_SECONDS, 'time')

    figures()  # returns when the listener runs
    operator.call(
        SetBool, f'{bench_cameras.NAME}/stream', SetBool.Request(data=True), may_repeat=True)
    operator.wait_until(lambda: figures()['images'], WAIT_SECONDS, 'an image')
    pause(WARM_SECONDS)
    figures()
    pids = [process.process.pid for process in (listener, cameras)]
    begin, since = [processor_seconds(pid) for pid in pids], time.monotonic()
    pause(seconds)
    took = time.monotonic() - since
    shares = [(processor_seconds(pid) - first) / took for pid, first in zip(pids, begin)]
    found = figures()
    return {
        'transport': setup.transport, 'handling': setup.handling, 'executor': setup.executor,
        'profile': setup.profile, 'cpu_share': shares[0], 'cameras_cpu_share': shares[1],
        'images_per_second': found['images'] / took, 'age_ms_p50': found['p50'],
        'age_ms_p99': found['p99']}
