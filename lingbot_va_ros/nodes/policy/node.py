"""
The policy as a managed node: cameras and joint states in, joint-trajectory action chunks out.

Four threads: the executor's, whose callbacks keep references and await answers; one for
lifecycle transitions, which may take minutes; the inference thread (`policy.worker`); and the
control thread, which publishes from the plan. The executor is single-threaded: rclpy's
multi-threaded one spends most of a core on the same messages.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
import functools
import gc
import os
from pathlib import Path
import sys
import threading
import time
import traceback
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future as RosFuture
from sensor_msgs.msg import CompressedImage, Image, JointState
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from lingbot_va_ros.motion.plan import MotionLimits
from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.msg import ActionChunk, ControlMode, PolicyStatus
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.image_conversion import (
    as_mounted,
    compressed_to_rgb,
    from_rgb,
    image_fault,
    to_rgb,
)
from lingbot_va_ros.nodes.parameters import declare_parameters
from lingbot_va_ros.nodes.policy import messages as policy_messages
from lingbot_va_ros.nodes.policy import parameters as policy_parameters
from lingbot_va_ros.nodes.policy.markers import marker_array
from lingbot_va_ros.nodes.policy.task_action import TaskAction
from lingbot_va_ros.nodes.priority import set_realtime_priority, threads_of_process
from lingbot_va_ros.nodes.run import run_node
from lingbot_va_ros.nodes.stamps import nanoseconds_of, stamp_of
from lingbot_va_ros.nodes.ticks import ticks
from lingbot_va_ros.policy.errors import NotExecutable
from lingbot_va_ros.policy.runtime.active_chunk import PublishedChunk
from lingbot_va_ros.policy.runtime.camera_buffer import Observations
from lingbot_va_ros.policy.runtime.executed_log import ExecutedLog
from lingbot_va_ros.policy.runtime.inference_thread import Worker
from lingbot_va_ros.policy.runtime.robot_interface import World
from lingbot_va_ros.policy.runtime.status import Mode, Progress
from lingbot_va_ros.robot.action_map import ActionMap, make_action_map
from lingbot_va_ros.robot.joint_state_buffer import JointStateBuffer
from lingbot_va_ros.robot.poses import PoseError
from lingbot_va_ros.robot.tool_path import tool_paths, ToolPath
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.specs.policy_file import find_policy_file, load_policy_file
from lingbot_va_ros.srv import LoadMemory, ResetMemory, SaveMemory, SetInstruction

# rad or m; beyond it the arm counts as moved by somebody else and the plan starts from where it is
START_TOLERANCE = 0.05
# A stamp may be ahead of a simulated clock that advances in steps. Further ahead it is of another
# clock, or of the time before a simulation was reset: kept, it would hide all that come after it.
MAX_AHEAD = 1.0  # seconds
# How long a thread may keep the interpreter while the control thread waits for it; Python's own
# 5 ms would be seen in the stream. Measured in docs/reference/timing_results.md.
SWITCH_SECONDS = 0.001
# By how much the executor's thread and those of DDS stand behind the control thread.
RECEIVING_BEHIND = 10
# Seconds that the executor's thread leaves the interpreter to the inference thread it has woken.
GIVE_WAY = 0.0002
# Seconds from a plan's publication to the command that follows it: transport, a tick of the mux.
REACTION = 0.015
LATEST_CHUNK = 30.0  # seconds after its end that the chunk before it can still be remembered
ANSWER_SECONDS = 30.0  # longer than any forward and text encoding; a lost thread must not hang
GRAPH_PERIOD = 0.1
MARKERS_PERIOD = 0.2
MODE_NAMES = {
    ControlMode.HOLD: 'HOLD', ControlMode.TELEOP: 'TELEOP', ControlMode.POLICY: 'POLICY',
    ControlMode.STOPPED: 'STOPPED'}


class Closing(Exception):
    """The process is ending; what still waits need not go on."""


def logged(transition):
    """Log what a transition raises with its traceback; rclpy would swallow it."""
    @functools.wraps(transition)
    def guarded(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Closing:
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self.get_logger().error(
                f'{transition.__name__} failed:\n{traceback.format_exc()}')
            return TransitionCallbackReturn.ERROR
    return guarded


class PolicyNode(LifecycleNodeMixin, Node):
    """The node `lingbot_va_policy`; docs/reference/interface.md has its topics and promises."""

    def __init__(self, **kwargs):
        Node.__init__(self, 'lingbot_va_policy', **kwargs)
        self._phase = 'unconfigured'
        self._loading = ''
        self._fault = ''
        self._closing = False
        self._slot = PlanSlot(self._now)
        self._worker = Worker(
            self._slot, self._publish_status, self._publish_chunk, self._publish_imagined,
            self._on_fault)
        self._embodiment = None
        self._policy = None
        self._map: ActionMap | None = None
        self._measured: JointStateBuffer | None = None
        self._observations: Observations | None = None
        self._executed: ExecutedLog | None = None
        self._camera_faults: dict[str, str] = {}
        # Who has the arm and since when, ROS time in ns; one object, read by other threads.
        self._arm_is_with: tuple[int | None, int] = (None, 0)
        self._executed_publishers = 0
        self._mode_publishers = 0
        self._columns: dict[str, int] = {}  # of each joint in a row of positions
        self._last_chunk_ns = 0
        self._newest_chunk: PublishedChunk | None = None
        self._tool_paths: list[ToolPath] = []
        self._inputs: list[Any] = []
        self._control: threading.Thread | None = None
        self._task_action: TaskAction | None = None
        self._ending = threading.Event()

        declare_parameters(self, policy_parameters.PARAMETERS)
        # One awaited service call must not keep others from being answered.
        self._services_group = ReentrantCallbackGroup()
        LifecycleNodeMixin.__init__(self, callback_group=self._services_group)
        self._transitions = ThreadPoolExecutor(1, 'transitions')
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state

        self._trajectory_out = self.create_publisher(
            JointTrajectory, '~/joint_trajectory', qos.COMMAND)
        self._chunk_out = self.create_publisher(ActionChunk, '~/action_chunk', qos.EVENTS)
        self._status_out = self.create_publisher(PolicyStatus, '~/status', qos.LATCHED)
        self._imagined_out = self.create_publisher(Image, '~/predicted_video', qos.COMMAND)
        self._markers_out = self.create_publisher(MarkerArray, '~/markers', qos.LATCHED)
        self._diagnostics_out = self.create_publisher(
            DiagnosticArray, '/diagnostics', qos.EVENTS)
        for kind, name, callback in (
                (ResetMemory, '~/reset_memory', self._on_reset_memory),
                (SetInstruction, '~/set_instruction', self._on_set_instruction),
                (SaveMemory, '~/save_memory', self._on_save_memory),
                (LoadMemory, '~/load_memory', self._on_load_memory)):
            self.create_service(kind, name, callback, callback_group=self._services_group)
        self._task_action = TaskAction(
            self, self._worker, self._answer, lambda: self._phase == 'active',
            self._remember_instruction, self._services_group)
        # Simulated time may rest or not have begun; what the node says must go on.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        for period, callback in (
                (0.5, self._publish_status), (1.0, self._publish_diagnostics),
                (MARKERS_PERIOD, self._publish_markers),
                (GRAPH_PERIOD, self._look_at_graph)):
            self.create_timer(period, callback, clock=steady)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1),
                          on_clock_change=False),
            post_callback=self._on_clock_jump)
        self._publish_status()

    # Lifecycle

    @logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the files, load the checkpoint, warm up; a failure leaves the node unconfigured."""
        self._phase, self._fault = 'configuring', ''
        self._slot.begin()
        self._set_loading('reading policy and embodiment')
        try:
            self._configure()
        except (ValueError, OSError) as error:  # what a user can mend, in the error's own words
            self.get_logger().error(f'configure failed: {error}')
            self._forget_configuration()
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self._forget_configuration()
            raise
        finally:
            self._set_loading('')
        self._phase = 'inactive'
        self._publish_status()
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to predict, or wait for an instruction; publish the plan from now on."""
        self._fault = ''
        if self._executed is not None:
            self._executed.clear()
        self._slot.clear()  # the arm may be elsewhere since the last stop
        values = self._values()
        self._wait(self._worker.start(self._world(), values['instruction']))
        self._phase = 'active'
        self._ending = threading.Event()
        self._control = threading.Thread(
            target=self._stream_plan, args=(values['control_rate'], self._ending),
            name='control', daemon=True)
        self._control.start()
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Send a stop and keep the memory."""
        self._slot.stop()
        self._wait(self._worker.stop('inactive'))  # no chunk may follow the last stop
        self._stop_streaming()
        self._phase = 'inactive'
        self._publish_status()
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the accelerator and what was remembered."""
        self._fault = ''
        self._forget_configuration()
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything."""
        self._stop_streaming()
        self._forget_configuration()
        self._phase = 'finalized'
        self._publish_status()
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Come back to unconfigured after a transition that failed."""
        self._stop_streaming()
        self._forget_configuration()
        return TransitionCallbackReturn.SUCCESS

    def close(self, _asked_by: int | None) -> bool:
        """Publish a last stop and end all threads; True when they have ended."""
        self._closing = True
        self._stop_streaming()
        ended = self._worker.close(timeout=2.0)
        self._transitions.shutdown(wait=ended)
        return ended

    async def _on_change_state(self, request, response):
        return await self._answer(
            self._transitions.submit(self._guarded_change, request, response))

    async def _answer(self, future: Future) -> Any:
        """Await what another thread computes, without holding up the executor."""
        executor = self.executor
        done = RosFuture(executor=executor)

        def tell(_future) -> None:
            done.set_result(None)
            executor.wake()

        future.add_done_callback(tell)
        await done
        return future.result()

    def _guarded_change(self, request, response):
        """Answer a transition that is not possible now; rclpy would end the process on it."""
        try:
            return self._change_state(request, response)
        except Exception as error:
            wanted = request.transition.label or request.transition.id
            self.get_logger().warning(
                f'transition {wanted} refused in state {self._phase}: {error}')
            response.success = False
            return response

    def _configure(self) -> None:
        values = self._values()
        if not values['checkpoint']:
            raise ValueError('parameter checkpoint is empty; expected a checkpoint folder')
        checkpoint = Path(values['checkpoint']).expanduser()
        if not checkpoint.is_dir():
            raise ValueError(f'checkpoint {checkpoint} is not a folder')
        policy = load_policy_file(
            find_policy_file(values['policy_config'], checkpoint, self.get_logger().info),
            self.get_logger().warning)
        embodiment = load_embodiment(values['embodiment'])
        action_map = make_action_map(embodiment, policy)
        video, action = policy_parameters.sampling(policy, values)
        chunks = policy_parameters.memory_chunks(policy, values['memory_frames'])
        keep_seconds = (
            policy.frames_per_chunk * policy.actions_per_frame * policy.action_period + 2.0)
        limits = embodiment.limits
        self._slot.set_limits(MotionLimits(
            limits.lower, limits.upper, limits.velocity, limits.acceleration))
        self._policy, self._embodiment, self._map = policy, embodiment, action_map
        self._columns = {name: column for column, name in enumerate(embodiment.joints)}
        self._measured = JointStateBuffer(embodiment.joints)
        self._tool_paths = tool_paths(embodiment)
        self._observations = Observations(policy.cameras, keep_seconds)
        from_topic = values['executed_source'] == 'topic'
        # A chunk that is late is remembered when it comes.
        self._executed = ExecutedLog(keep_seconds + LATEST_CHUNK) if from_topic else None
        self._arm_is_with = (None, 0)
        self._subscribe(policy.cameras, from_topic)
        if not policy.trained:
            self.get_logger().warning(
                f'{checkpoint} is UNTRAINED: random weights, its actions mean nothing')
        if values['schedule'] == 'async' and not policy.forward_dynamics:
            self.get_logger().warning(
                f'schedule async imagines frames by forward dynamics, which {policy.name} was not '
                'trained for (forward_dynamics: false); async_ungrounded does without')

        def make_engine():
            self._set_loading('loading libraries')
            from lingbot_va_ros.policy.inference.device import (
                choose_device,
                choose_dtype,
                leave_a_core,
            )
            from lingbot_va_ros.policy.inference.engine import load_engine
            leave_a_core()
            device = choose_device(values['device'])
            engine = load_engine(
                checkpoint, policy, video, action, chunks, values['seed'], device,
                choose_dtype(values['dtype'], device), self._set_loading,
                attention=values['attention'], text_encoder=values['text_encoder'],
                instructions=[values['instruction']] if values['instruction'] else [],
                wan_pretrained_path=values['wan_pretrained_path'],
                adapter_base=values['adapter_base'], weights=values['weights'])
            engine.imagine_steps = values['imagine_steps']
            return engine

        since = time.monotonic()
        self._wait(self._worker.load(make_engine, values['max_snapshots']), forever=True)
        # What is there by now stays until cleanup. To go through torch's modules again takes the
        # collector 200 ms, in which no other thread of the node runs Python.
        gc.collect()
        gc.freeze()
        self.get_logger().info(
            f'configured in {time.monotonic() - since:.1f} s: {checkpoint}, {policy.name}, '
            f'{embodiment.name}')

    def _forget_configuration(self) -> None:
        for entity in self._inputs:
            self.destroy_subscription(entity)
        self._inputs.clear()
        if not self._closing:
            self._wait(self._worker.unload())
            gc.unfreeze()
            gc.collect()  # modules refer to each other, and hold the accelerator's memory
        self._slot.clear()
        self._observations = self._executed = self._measured = self._newest_chunk = None
        self._tool_paths = []
        self._camera_faults.clear()
        self._phase = 'unconfigured'
        self._publish_status()

    def _wait(self, future, forever: bool = False) -> Any:
        """Wait for the inference thread, but not past the end of the process."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not self._closing:
            try:
                return future.result(timeout=0.1)
            except FutureTimeout:
                if future.done():  # the work itself timed out
                    raise
                if not forever and time.monotonic() > deadline:
                    raise RuntimeError(
                        f'the inference thread gave no answer in {ANSWER_SECONDS} s') from None
        raise Closing

    def _subscribe(self, cameras, executed: bool) -> None:
        def subscribe(kind, topic, callback, profile):
            self._inputs.append(self.create_subscription(kind, topic, callback, profile))

        for name in cameras:
            source = self._embodiment.cameras.get(name)
            topic, transport = policy_parameters.declare_camera(
                self, name, source.topic if source else f'camera/{name}/image_raw',
                source.transport if source else 'raw')
            if transport == 'raw':
                subscribe(
                    Image, topic, functools.partial(self._on_image, name), qos.SENSOR)
            else:
                subscribe(
                    CompressedImage, f'{topic}/compressed',
                    functools.partial(self._on_compressed, name), qos.SENSOR)
        subscribe(JointState, 'joint_states', self._on_joint_state, qos.JOINT_STATES)
        subscribe(ControlMode, 'control_mode', self._on_control_mode, qos.LATCHED)
        if executed:
            subscribe(JointTrajectory, 'executed', self._on_executed, qos.EXECUTED)

    def _world(self) -> World:
        limits, values = self._embodiment.limits, self._values()
        return World(
            clock=self._now, observations=self._observations, executed=self._executed,
            to_rgb=self._picture,
            to_joints=self._to_joints, from_joints=self._map.from_joints, begin=self._map.begin,
            obstacle=self._obstacle, elsewhere=self._elsewhere,
            measured=self._measured.positions, max_velocity=limits.velocity,
            start_tolerance=np.full(len(self._embodiment.joints), START_TOLERANCE),
            max_camera_skew=lambda: self.get_parameter('max_camera_skew').value,
            wants_imagined=lambda: self.get_parameter('publish_predicted_video').value,
            poses=self._map.state, restore_poses=self._map.restore, schedule=values['schedule'],
            reaction=REACTION + 1.0 / values['control_rate'],
            padded_latency=lambda: self.get_parameter('padded_latency').value,
            last_chunk_only=values['memory_ablation'] == 'last_chunk',
            person_since=self._person_since, elsewhere_since=lambda: self._arm_is_with[1],
            takeover_memory=lambda: self.get_parameter('takeover_memory').value)

    # What the inference thread asks and says

    def _to_joints(self, actions: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Convert a chunk; the gate refuses a whole plan for one position outside the limits."""
        limits = self._embodiment.limits
        try:
            joints = self._map.to_joints(actions, start)
        except PoseError as error:
            raise NotExecutable(str(error)) from None
        return np.clip(joints, limits.lower, limits.upper)

    def _picture(self, camera: str, message) -> np.ndarray:
        """Convert what a camera sent, as the embodiment says that it is mounted."""
        image = to_rgb(message) if isinstance(message, Image) else compressed_to_rgb(message)
        source = self._embodiment.cameras.get(camera)
        return image if source is None else as_mounted(image, source.crop, source.flip)

    def _obstacle(self) -> str | None:
        now = self._now()
        if now == 0 and self.get_clock().ros_time_is_active:
            return '/clock: silent, or it stands at 0 (use_sim_time is true)'
        if self._executed is not None and not self._executed_publishers:
            return 'executed: nobody publishes what the arm was sent'
        for name, fault in list(self._camera_faults.items()):
            return f'camera {name}: {fault}'
        cameras = self._observations.faults(now, self.get_parameter('max_camera_age').value)
        if cameras:
            return '; '.join(cameras)
        return self._measured.fault(now, self.get_parameter('max_joint_age').value)

    def _elsewhere(self) -> str | None:
        mode = self._arm_is_with[0]
        if mode is None:
            return 'control_mode: no message yet' if self._mode_publishers else None
        if mode == ControlMode.POLICY:
            return None
        return f'control_mode is {MODE_NAMES.get(mode, mode)}'

    def _person_since(self) -> int | None:
        mode, since = self._arm_is_with
        return since if mode == ControlMode.TELEOP else None

    def _publish_chunk(self, chunk: PublishedChunk) -> None:
        self._last_chunk_ns = chunk.first_due_ns
        self._newest_chunk = chunk
        self._chunk_out.publish(policy_messages.chunk_message(chunk, self._embodiment.joints))

    def _publish_imagined(self, picture: np.ndarray, due_ns: int) -> None:
        message = from_rgb(picture)
        message.header.stamp = stamp_of(due_ns)
        self._imagined_out.publish(message)

    def _on_fault(self, trace: str) -> None:
        """Say what went wrong and leave the active state."""
        self._fault = trace.strip().splitlines()[-1]
        self.get_logger().fatal(f'the policy cannot go on:\n{trace}')
        self._slot.stop()
        self._publish_status()
        if not self._closing:
            self._transitions.submit(self.trigger_deactivate)

    # Publishing

    def receive_first(self) -> None:
        """
        Let the calling thread, which is to spin this node, and those of DDS go before others.

        They only hand on what comes in: an image waits for nobody who computes on the same core.
        """
        self._run_first(
            set(threads_of_process()) - {self._worker.thread_id}, RECEIVING_BEHIND)

    def _run_first(self, threads: Iterable[int], behind: int = 0) -> None:
        priority = self.get_parameter('realtime_priority').value
        if priority == 0:
            return
        try:
            set_realtime_priority(threads, max(1, priority - behind), inherited=False)
        except (AttributeError, OSError):
            pass  # without the right to it they run as any others

    def _stream_plan(self, rate: float, ending: threading.Event) -> None:
        """Publish what remains of the plan at a rate in Hz until `ending` is set."""
        period = 1.0 / rate
        self._run_first([0])
        try:
            for _tick in ticks(self.get_clock(), round(NANOSECONDS / rate), ending):
                plan, now = self._slot.look()
                if plan is not None:
                    self._worker.count_tick(plan, now)
                    self._publish_plan(plan, now, period)
        except Exception:  # a node that is silent must not go on saying RUNNING
            if not ending.is_set():
                self._on_fault(traceback.format_exc())

    def _publish_plan(self, plan, now_ns: int, period: float) -> None:
        self._trajectory_out.publish(policy_messages.trajectory_message(
            now_ns, self._embodiment.joints, *plan.remainder(now_ns, period)))

    def _stop_streaming(self) -> None:
        """End the control thread; the last thing it sends is a stop."""
        if self._control is None:
            return
        self._ending.set()
        self._control.join(timeout=1.0)
        self._control = None
        plan, now = self._slot.stop()  # not a plan that the inference thread puts after it
        if plan is not None:
            self._publish_plan(plan, now, 1.0 / self.get_parameter('control_rate').value)

    def _progress(self) -> Progress:
        """Return the worker's figures, or what the lifecycle knows better."""
        progress = self._worker.progress
        if self._loading:
            return Progress(mode=Mode.LOADING, reason=self._loading,
                            instruction=self._values()['instruction'])
        if self._fault:
            return _changed(progress, Mode.FAULT, self._fault)
        if self._phase != 'active':
            return _changed(progress, Mode.IDLE, self._phase)
        return progress

    def _publish_status(self) -> None:
        if self._closing:
            return
        progress = self._progress()
        self._status_out.publish(policy_messages.status_message(
            self._now(), progress, self._slot.epoch))
        if self._task_action is not None:
            self._task_action.tell(progress.memory_frames)

    def _publish_diagnostics(self) -> None:
        trained = '' if self._policy is None else (
            self._policy.name + ('' if self._policy.trained else ' (untrained)'))
        self._diagnostics_out.publish(policy_messages.diagnostics_message(
            self._now(), self.get_fully_qualified_name(), self._progress(), self._slot.epoch,
            trained))

    def _publish_markers(self) -> None:
        """Draw the newest chunk and the status for whoever looks."""
        paths, chunk = self._tool_paths, self._newest_chunk
        if paths and self._markers_out.get_subscription_count():
            self._markers_out.publish(marker_array(
                self._now(), paths, None if chunk is None else chunk.positions,
                self._progress()))

    def _set_loading(self, line: str) -> None:
        self._loading = line
        if line:
            self.get_logger().info(line)
        self._publish_status()

    # Inputs: keep a reference, nothing else

    def _on_image(self, camera: str, message: Image) -> None:
        self._keep_image(camera, message, image_fault(message))

    def _on_compressed(self, camera: str, message: CompressedImage) -> None:
        self._keep_image(camera, message, None)

    def _keep_image(self, camera: str, message, fault: str | None) -> None:
        observations = self._observations
        if observations is None:
            return
        stamp = nanoseconds_of(message.header.stamp)
        if not fault and stamp > self._now() + MAX_AHEAD * NANOSECONDS:
            fault = f"stamps are more than {MAX_AHEAD:g} s ahead of this node's clock"
        if fault:
            if self._camera_faults.get(camera) != fault:
                self.get_logger().error(f'camera {camera}: {fault}')
            self._camera_faults[camera] = fault
            return
        self._camera_faults.pop(camera, None)
        if observations.add(camera, stamp, message):
            self._worker.look()
            # The thread that was woken gets the interpreter now, not when this one next waits.
            time.sleep(GIVE_WAY)

    def _on_joint_state(self, message: JointState) -> None:
        if self._measured is not None:
            self._measured.update(
                message.name, message.position, nanoseconds_of(message.header.stamp))

    def _on_executed(self, message: JointTrajectory) -> None:
        executed = self._executed
        if executed is None or not message.points:
            return
        last = executed.newest()
        if last is None:
            last = self._measured.positions()
        if last is None:
            return
        row = last.copy()
        for name, position in zip(message.joint_names, message.points[0].positions):
            if name in self._columns:
                row[self._columns[name]] = position
        if not np.isfinite(row).all():
            self.get_logger().error(
                'executed: a position that is not finite; it does not enter the memory',
                throttle_duration_sec=1.0)
            return
        executed.add(nanoseconds_of(message.header.stamp), row)

    def _on_control_mode(self, message: ControlMode) -> None:
        if message.mode == self._arm_is_with[0]:
            return  # only its reason is another
        now, stamp = self._now(), nanoseconds_of(message.header.stamp)
        # Without a stamp, or with one of another clock, it counts from its arrival.
        known = 0 < stamp <= now + MAX_AHEAD * NANOSECONDS
        self._arm_is_with = (message.mode, stamp if known else now)
        self._worker.look()

    def _look_at_graph(self) -> None:
        self._executed_publishers = self.count_publishers('executed')
        self._mode_publishers = self.count_publishers('control_mode')

    def _on_clock_jump(self, jump) -> None:
        """Begin a new epoch when the clock went back: what was seen has stamps of the future."""
        if jump.delta.nanoseconds >= 0:
            return
        for part in (self._observations, self._executed, self._measured):
            if part is not None:
                part.clear()
        if self._phase not in ('inactive', 'active'):
            return
        self.get_logger().warning(
            f'the clock jumped back by {-jump.delta.nanoseconds / 1e9:.3f} s: new epoch')
        self._last_chunk_ns = 0
        self._slot.clear()
        self._worker.reset()

    # Services and parameters

    async def _on_reset_memory(self, request, response):
        if self._phase == 'configuring':
            self._worker_reset_while_loading(request.instruction)
            forgotten, message = 0, 'nothing to forget yet: the policy is being configured'
        elif self._phase not in ('inactive', 'active'):
            response.success = False
            response.message = f'the policy is {self._phase}: configure it first'
            response.stamp = stamp_of(self._now())
            return response
        else:
            try:
                forgotten = await self._answer(self._worker.reset(request.instruction))
            except Exception as error:  # forgotten it is all the same: what failed is the text
                return self._failed(response, error)
            if request.instruction:
                self._remember_instruction(request.instruction)
            message = f'forgot {forgotten} frames'
        plan_epoch = self._slot.epoch
        response.success, response.message = True, message
        response.forgotten_frames, response.epoch = forgotten, plan_epoch
        # A chunk of the old epoch may have been stamped with a time that is still to come.
        _, now = self._slot.look()
        response.stamp = stamp_of(max(now, self._last_chunk_ns))
        self._publish_status()
        return response

    async def _on_save_memory(self, request, response):
        refusal = self._no_memory_yet()
        if refusal:
            response.success, response.message = False, refusal
            return response
        try:
            response.frames = await self._answer(self._worker.save(request.name))
        except ValueError as error:
            response.success, response.message = False, str(error)
            return response
        except Exception as error:
            return self._failed(response, error)
        response.success = True
        response.message = f'saved {response.frames} frames as {request.name!r}'
        return response

    async def _on_load_memory(self, request, response):
        refusal = self._no_memory_yet() or self._not_on_hold()
        if refusal:
            response.success, response.message = False, refusal
            response.epoch = self._slot.epoch
            return response
        try:
            response.frames = await self._answer(self._worker.restore(request.name))
        except ValueError as error:
            response.success, response.message = False, str(error)
            response.epoch = self._slot.epoch
            return response
        except Exception as error:
            return self._failed(response, error)
        self._remember_instruction(self._worker.progress.instruction)
        response.success, response.epoch = True, self._slot.epoch
        response.message = f'remembers the {response.frames} frames of {request.name!r}'
        self._publish_status()
        return response

    def _no_memory_yet(self) -> str:
        """Return why there is no memory now, or nothing."""
        if self._phase in ('inactive', 'active'):
            return ''
        return f'the policy is {self._phase}: there is no memory until it is configured'

    def _not_on_hold(self) -> str:
        """Return why the arm may not be taken for held, or nothing."""
        mode = self._arm_is_with[0]
        if mode == ControlMode.HOLD or (mode is None and self._phase == 'inactive'):
            return ''
        known = 'not known' if mode is None else MODE_NAMES.get(mode, mode)
        return f'control_mode is {known}; a memory can be loaded in HOLD'

    def _failed(self, response, error: Exception):
        """Answer that the inference thread could not do it; without an answer a client hangs."""
        self.get_logger().error(f'{type(error).__name__}: {error}')
        response.success, response.message = False, str(error)
        if hasattr(response, 'epoch'):
            response.epoch = self._slot.epoch
        if hasattr(response, 'stamp'):
            response.stamp = stamp_of(self._now())
        return response

    def _worker_reset_while_loading(self, instruction: str) -> None:
        """Begin a new epoch; the memory that is being made is empty anyway."""
        self._slot.stop(new_epoch=True)
        if instruction:
            self._remember_instruction(instruction)

    async def _on_set_instruction(self, request, response):
        if self._phase in ('inactive', 'active'):
            try:
                await self._answer(self._worker.set_instruction(request.instruction))
            except Exception as error:
                return self._failed(response, error)
        self._remember_instruction(request.instruction)
        response.success = True
        response.message = (
            f'the instruction is now {request.instruction!r}' if request.instruction
            else 'no instruction: the policy waits for one')
        return response

    def _remember_instruction(self, instruction: str) -> None:
        """Keep the parameter equal to what a service has set."""
        if self.get_parameter('instruction').value != instruction:
            self._instruction_is_set = True
            try:
                self.set_parameters([Parameter('instruction', value=instruction)])
            finally:
                self._instruction_is_set = False

    _instruction_is_set = False

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        declared = [entry for entry in parameters if self.has_parameter(entry.name)]
        lines = policy_parameters.refusals(declared, self._phase != 'unconfigured')
        if lines:
            return SetParametersResult(successful=False, reason='; '.join(lines))
        changed = {parameter.name: parameter.value for parameter in parameters}
        try:
            if self._phase in ('inactive', 'active'):
                if policy_parameters.SAMPLING & changed.keys():
                    values = {**self._values(), **changed}
                    self._wait(self._worker.set_sampling(
                        *policy_parameters.sampling(self._policy, values),
                        values['imagine_steps']))
                if 'instruction' in changed and not self._instruction_is_set:
                    self._wait(self._worker.set_instruction(changed['instruction']))
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _values(self) -> dict[str, Any]:
        return {name: parameter.value
                for name, parameter in self.get_parameters_by_prefix('').items()}

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds


def _changed(progress: Progress, mode: Mode, reason: str) -> Progress:
    return Progress(**{**progress.__dict__, 'mode': mode, 'reason': reason})


def main(args=None) -> None:
    """Run the node until SIGINT or SIGTERM."""
    def make_node() -> PolicyNode:
        node = PolicyNode()
        node.receive_first()
        return node

    sys.setswitchinterval(SWITCH_SECONDS)
    code = run_node(make_node, args)
    # All is said and closed. To take torch's modules apart would hold the end up for seconds more.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == '__main__':
    main()
