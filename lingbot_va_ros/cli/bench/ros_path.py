"""
Measure the ROS path: policy_node with an untrained checkpoint, and cameras beside it.

Three results. The cost of images: processor time of the node with three streaming cameras, minus
that without, in a state that does not use them. The delay from a camera's stamp to the published
chunk, beyond the engine's own time: after a short silence one image of each camera is sent, so
that no wait for the next image is included. The jitter of the published plan during inference.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import json
import os
from pathlib import Path
import sys
import tempfile
import time

import numpy as np
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory
import yaml

from lingbot_va_ros.cli.bench.cameras import EMBODIMENT, NAME, POLICY, SIZE
from lingbot_va_ros.cli.common.failure import CommandFailed
from lingbot_va_ros.cli.common.operator_client import OperatorClient
from lingbot_va_ros.cli.common.processes import (
    last_match,
    node_command,
    NodeProcesses,
    processor_seconds,
    ros_environment,
)
from lingbot_va_ros.cli.common.simulated_robot import ros_node
from lingbot_va_ros.cli.demo.episode import jitter_ms, percentile
from lingbot_va_ros.motion.time import NANOSECONDS, to_seconds
from lingbot_va_ros.msg import ActionChunk, PolicyStatus
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.images.conversion import from_rgb, to_rgb
from lingbot_va_ros.nodes.stamps import nanoseconds_of
from lingbot_va_ros.resources import PACKAGE, shared_file
from lingbot_va_ros.srv import ResetMemory, SetInstruction

CONTROL_RATES = (50.0, 100.0)  # Hz
STREAM_SECONDS = 8.0  # of each measurement of a stream
FILL_SECONDS = 6.0  # until the node drops an old image for every new one
TRIALS = 40
CAMERA_AGE = 0.3  # s; after a silence of this length the node holds until the next images
AGAIN_SECONDS = 2.0  # retry: a prediction longer than CAMERA_AGE gives no chunk
WARM_SECONDS = 0.5  # of streaming before the silence
ENDLESS = 1000  # denoising steps of a prediction that is longer than a measurement
CONVERSIONS = 50
WAIT_SECONDS = 30.0


def measure_ros(
    say: Callable[[str], None], stream_seconds: float = STREAM_SECONDS, trials: int = TRIALS,
    control_rates: Sequence[float] = CONTROL_RATES,
) -> dict:
    """
    Measure the ROS path and return its results.

    :param say: called with one line before each measurement.
    :param stream_seconds: duration of each measurement of a stream, s.
    :param trials: number of timed chunks, after one warm-up.
    :param control_rates: publishing rates of the plan, Hz; the first is the main result.
    :raises CommandFailed: a process cannot be started, ends, or does not answer.
    """
    with tempfile.TemporaryDirectory(prefix='lingbot_va_bench_') as folder:
        logs = Path(folder) / 'logs'
        environment = ros_environment(logs)
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            say('ROS: creating an untrained checkpoint')
            checkpoint = _write_checkpoint(Path(folder) / 'untrained')
            with NodeProcesses(environment, logs) as processes, ros_node('bench') as ros:
                measurement = _Measurement(processes, *ros, checkpoint, say)
                return measurement.run(stream_seconds, trials, control_rates)
        finally:
            os.environ.clear()
            os.environ.update(before)


def _write_checkpoint(folder: Path) -> Path:
    """Write an untrained checkpoint for both simulated arms and their three cameras."""
    from lingbot_va_ros.model.random_checkpoint import write_random_checkpoint

    policy = yaml.safe_load(shared_file('config', 'policies', 'untrained.yaml').read_text())
    policy['cameras'] = ['head', 'left_wrist', 'right_wrist']
    policy['used_channels'] = [*range(14, 20), 28, *range(21, 27), 29]
    policy['quantiles'] = {name: 2 * values for name, values in policy['quantiles'].items()}
    path = folder.with_suffix('.yaml')
    path.write_text(yaml.safe_dump(policy))
    write_random_checkpoint(folder, path)
    return folder


@dataclass(frozen=True)
class _ReceivedChunk:
    """Publishing and arrival time of a chunk, ns of ROS time, and its inference time, s."""

    published_ns: int
    arrived_ns: int
    engine_seconds: float


class _Measurement:
    """The two processes, and the node that controls and measures them."""

    def __init__(self, processes: NodeProcesses, node, executor, checkpoint: Path, say: Callable):
        self._say = say
        self._node = node
        self._operator = OperatorClient(node, executor, processes.check)
        self._chunks: dict[int, _ReceivedChunk] = {}  # by the stamp of their image
        self._stamps: list[int] = []
        self._delivery_ms: list[float] = []  # milliseconds from there to here
        self._sending_ms: list[float] = []  # milliseconds that a camera driver took for one image
        self._status = None
        processes.start(NAME, [sys.executable, '-m', f'{PACKAGE}.cli.bench.cameras'])
        parameters = {
            'checkpoint': str(checkpoint), 'embodiment': EMBODIMENT, 'device': 'cpu',
            'executed_source': 'plan', 'max_camera_age': CAMERA_AGE}
        words: list[str] = []
        for name, value in parameters.items():
            words += ['-p', f'{name}:={json.dumps(value)}']
        self._policy = processes.start(
            'policy_node', [*node_command('policy_node'), '--ros-args', *words])
        # Humble's rclpy has no publishing time of a message; its arrival time is used there.
        on_chunk = self._on_chunk if hasattr(Subscription, 'CallbackType') else (
            lambda message: self._on_chunk(message, None))
        node.create_subscription(
            ActionChunk, f'{POLICY}/action_chunk', on_chunk, qos.EVENTS)
        node.create_subscription(
            PolicyStatus, f'{POLICY}/status', self._on_status, qos.LATCHED)

    def run(self, stream_seconds: float, trials: int, control_rates: Sequence[float]) -> dict:
        """Run all measurements."""
        self._bring_up(control_rates[0])
        self._say('ROS: three cameras at 30 Hz into the node')
        share, rate = self._image_share(stream_seconds, min(stream_seconds, FILL_SECONDS))
        self._say("ROS: from a camera's stamp to the chunk")
        extra = [1e3 * self._extra_seconds() for _ in range(1 + trials)][1:]
        jitter = {}
        for index, control_rate in enumerate(control_rates):
            self._say(f'ROS: jitter at {control_rate:g} Hz while the engine computes')
            if index:
                self._put_away()
                self._bring_up(control_rate)
            jitter[control_rate] = self._jitter(control_rate, stream_seconds)
        first = jitter[control_rates[0]]
        to_python, to_array = _conversion_ms()
        return {
            'publish_jitter_ms': first,
            'publish_jitter_ms_by_rate': {f'{rate:g}': of for rate, of in jitter.items()},
            'image_cpu_share': share, 'images_per_second': rate,
            'image_to_python_ms': to_python, 'image_to_rgb_ms': to_array,
            'camera_to_chunk_extra_ms_p50': percentile(extra, 50),
            'camera_to_chunk_extra_ms_p95': percentile(extra, 95),
            'camera_to_chunk_trials': len(extra),
            'chunk_arrives_ms_p50': percentile(self._delivery_ms, 50),
            'chunk_arrives_ms_p95': percentile(self._delivery_ms, 95),
            'cameras_sending_ms_p50': percentile(self._sending_ms, 50),
            'cameras_sending_ms_p95': percentile(self._sending_ms, 95)}

    def _bring_up(self, control_rate: float) -> None:
        self._say(f'ROS: starting policy_node, publishing at {control_rate:g} Hz')
        self._set('control_rate', control_rate)
        if not self._operator.configure(POLICY):
            reason = last_match(self._policy.log, r'configure failed: (.*)')
            raise CommandFailed(
                f'policy_node cannot be configured: {reason or "see its log"}', self._policy.log)
        if not self._operator.activate(POLICY):
            raise CommandFailed('policy_node cannot be activated', self._policy.log)

    def _put_away(self) -> None:
        self._instruct('')
        if not self._operator.deactivate_and_clean_up(POLICY):
            raise CommandFailed('policy_node cannot be cleaned up', self._policy.log)

    def _image_share(self, seconds: float, fill_seconds: float) -> tuple:
        """Return the CPU share of images (1: one core), and the rate of each camera, Hz."""
        # The image buffer of the node is filled first: new memory costs more.
        self._stream(True)
        self._pause(fill_seconds)
        self._stream(False)
        self._pause(0.5)
        idle = self._processor_share(seconds)
        self._stream(True)
        since = time.monotonic()
        busy = self._processor_share(seconds)
        sent = int(self._stream(False))
        return busy - idle, sent / (time.monotonic() - since)

    def _processor_share(self, seconds: float) -> float:
        """Return the CPU share of policy_node (1: one core)."""
        begin, since = processor_seconds(self._policy.process.pid), time.monotonic()
        self._pause(seconds)
        return (processor_seconds(self._policy.process.pid) - begin) / (
            time.monotonic() - since)

    def _extra_seconds(self) -> float:
        """Return the delay of a chunk after its image, minus the inference time, s."""
        self._instruct('')
        self._operator.call(ResetMemory, f'{POLICY}/reset_memory', ResetMemory.Request())
        self._stream(True)
        self._pause(WARM_SECONDS)
        self._stream(False)
        self._instruct('bench')
        self._operator.wait_until(
            lambda: self._status is not None and self._status.mode == PolicyStatus.HOLDING,
            WAIT_SECONDS, 'policy_node to report missing images')
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            answer = self._operator.call(Trigger, f'{NAME}/once', Trigger.Request()).message
            stamp, sent = map(int, answer.split())
            again = time.monotonic() + AGAIN_SECONDS
            self._operator.wait_until(
                lambda: stamp in self._chunks or time.monotonic() > again, WAIT_SECONDS,
                'a chunk')
            if stamp in self._chunks:
                chunk = self._chunks.pop(stamp)
                self._sending_ms.append((sent - stamp) * 1e-6)
                self._delivery_ms.append((chunk.arrived_ns - chunk.published_ns) * 1e-6)
                return to_seconds(chunk.published_ns - stamp) - chunk.engine_seconds
        raise CommandFailed(
            f'no prediction ended before its images were {CAMERA_AGE:g} s old',
            self._policy.log)

    def _jitter(self, control_rate: float, seconds: float) -> dict:
        """Return the jitter of the plan's intervals during inference, ms."""
        self._instruct('')
        self._operator.call(ResetMemory, f'{POLICY}/reset_memory', ResetMemory.Request())
        for name in ('video_steps', 'action_steps'):
            self._set(name, ENDLESS)
        self._stream(True)
        self._pause(2.0)
        self._instruct('bench')
        # Only now: a subscription to the plan costs processor time in other measurements.
        plan = self._node.create_subscription(
            JointTrajectory, f'{POLICY}/joint_trajectory',
            lambda message: self._stamps.append(nanoseconds_of(message.header.stamp)),
            qos.COMMAND)
        self._pause(1.0)
        self._stamps.clear()
        begin = processor_seconds(self._policy.process.pid)
        self._pause(seconds)
        stamps = np.array(self._stamps) / NANOSECONDS
        busy = (processor_seconds(self._policy.process.pid) - begin) / seconds
        self._node.destroy_subscription(plan)
        self._instruct('')
        self._stream(False)
        for name in ('video_steps', 'action_steps'):
            self._set(name, 0)
        jitter = jitter_ms(stamps, 1.0 / control_rate)
        return {'p50': percentile(jitter, 50), 'p99': percentile(jitter, 99),
                'max': percentile(jitter, 100), 'messages': len(stamps),
                'processor_share': busy}

    def _stream(self, on: bool) -> str:
        return self._operator.call(SetBool, f'{NAME}/stream', SetBool.Request(data=on)).message

    def _instruct(self, instruction: str) -> None:
        self._operator.call(
            SetInstruction, f'{POLICY}/set_instruction',
            SetInstruction.Request(instruction=instruction))

    def _set(self, name: str, value) -> None:
        kind = ('double' if isinstance(value, float) else 'integer')
        number = ParameterValue(
            type=getattr(ParameterType, f'PARAMETER_{kind.upper()}'), **{f'{kind}_value': value})
        result = self._operator.call(
            SetParameters, f'{POLICY}/set_parameters',
            SetParameters.Request(parameters=[Parameter(name=name, value=number)])).results[0]
        if not result.successful:
            raise CommandFailed(f'policy_node refuses {name} = {value}: {result.reason}')

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self._operator.wait_until(lambda: time.monotonic() >= end, seconds + WAIT_SECONDS, 'time')

    def _on_chunk(self, message: ActionChunk, info: dict | None) -> None:
        now = self._node.get_clock().now().nanoseconds
        self._chunks.setdefault(nanoseconds_of(message.observation_stamp), _ReceivedChunk(
            now if info is None else info['source_timestamp'], now, message.inference_seconds))

    def _on_status(self, message: PolicyStatus) -> None:
        self._status = message


def _conversion_ms() -> tuple:
    """Return the time from CDR to a Python message, and from there to an array, ms."""
    picture = np.zeros((*SIZE, 3), np.uint8)
    raw = serialize_message(from_rgb(picture))
    message = deserialize_message(raw, Image)
    return (_median_ms(lambda: deserialize_message(raw, Image)),
            _median_ms(lambda: to_rgb(message)))


def _median_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(CONVERSIONS):
        since = time.perf_counter()
        work()
        times.append((time.perf_counter() - since) * 1e3)
    return float(np.median(times))
