"""
The policy as a managed node: cameras and joint states in, joint-trajectory action chunks out.

Four threads: the executor's, whose callbacks store references and await results; one for lifecycle
transitions, which may take minutes; the inference thread; and the control thread, which publishes
the plan. The executor is single-threaded: rclpy's multi-threaded one needs most of a core for the
same messages.
"""

from concurrent.futures import Future
import gc
import os
import sys
import time
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter

from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.motion.time import to_seconds
from lingbot_va_ros.motion.timeline import Timeline
from lingbot_va_ros.mux.command_stream import ANNOUNCED_PERIODS
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.nodes.parameters import declare_parameters
from lingbot_va_ros.nodes.policy import parameters as policy_parameters
from lingbot_va_ros.nodes.policy.answers import wait_for_answer
from lingbot_va_ros.nodes.policy.configuration import (
    Configuration,
    make_engine,
    read_configuration,
)
from lingbot_va_ros.nodes.policy.inputs import PolicyInputs
from lingbot_va_ros.nodes.policy.instruction import Instruction
from lingbot_va_ros.nodes.policy.memory_services import MemoryServices
from lingbot_va_ros.nodes.policy.outputs import PolicyOutputs
from lingbot_va_ros.nodes.policy.phase import NodePhase
from lingbot_va_ros.nodes.policy.plan_streamer import PlanStreamer
from lingbot_va_ros.nodes.policy.task_action import TaskAction
from lingbot_va_ros.nodes.policy.transitions import logged, TransitionThread
from lingbot_va_ros.nodes.priority import raise_priority, threads_of_process
from lingbot_va_ros.nodes.run import run_node
from lingbot_va_ros.nodes.ticks import MAX_SIMULATED_STEP_NS
from lingbot_va_ros.policy.runtime.clock import PlanClock, SystemClock
from lingbot_va_ros.policy.runtime.clock_steps import ClockSteps
from lingbot_va_ros.policy.runtime.control_owner import ControlOwner
from lingbot_va_ros.policy.runtime.inference_thread import InferenceThread
from lingbot_va_ros.policy.runtime.plan_time_views import PlanTimeCameras, PlanTimeCommands
from lingbot_va_ros.policy.runtime.robot_interface import (
    LiveSettings,
    RobotInterface,
    RuntimeSettings,
)
from lingbot_va_ros.policy.runtime.schedules import SCHEDULES
from lingbot_va_ros.policy.runtime.status import RuntimeStatus

# Longest time that a thread may keep the GIL while the control thread waits for it. Python's
# default of 5 ms would add jitter to the plan. Measured in docs/reference/timing_results.md.
SWITCH_SECONDS = 0.001
# Difference in priority of the executor's and DDS's threads to the control thread.
RECEIVING_BELOW = 10
# Seconds from the publication of a plan to the first command that it changes: transport, and what
# the mux has announced by then, at its default rate and delay.
REACTION = 0.005 + MuxSettings.controller_delay + ANNOUNCED_PERIODS * 0.01
# Seconds from a new speed scale until plan time changes its rate: no later than a plan that is
# published by then, and what the mux has announced, are followed.
SPEED_LEAD = REACTION + 0.025
GRAPH_PERIOD = 0.1
MARKERS_PERIOD = 0.2


class PolicyNode(LifecycleNodeMixin, Node):
    """The node `lingbot_va_policy`; docs/reference/interface.md describes its interface."""

    def __init__(self, **kwargs: Any):
        Node.__init__(self, 'lingbot_va_policy', **kwargs)
        declare_parameters(self, policy_parameters.PARAMETERS)
        self._phase = NodePhase()
        self._ros_time = SystemClock(lambda: self.get_clock().now().nanoseconds)
        self._timeline = Timeline(lead=SPEED_LEAD)
        self._time = PlanClock(self._ros_time, self._timeline)
        ros_clock: Any = self.get_clock()  # rclpy's hint is that of its base class
        self._steps = ClockSteps(
            self._ros_time.now_ns, self._on_clock_step, lambda: ros_clock.ros_time_is_active)
        self._slot = PlanSlot(self._time.now_ns, self._time.rate)
        self._configuration: Configuration | None = None
        self._inputs: PolicyInputs | None = None
        self._task_action: TaskAction | None = None
        # One awaited service call must not delay others.
        group = ReentrantCallbackGroup()
        LifecycleNodeMixin.__init__(self, callback_group=group)
        self._transitions = TransitionThread(self, self._phase)
        self._outputs = PolicyOutputs(
            self, self._ros_time, self._slot, self._timeline, self._status, self._tell_task,
            self._follow_instruction, self._on_fault, self._input_diagnostics)
        self._thread = InferenceThread(self._slot, self._time, self._outputs)
        self._streamer = PlanStreamer(
            self, self._slot, self._timeline, lambda: self._thread.continuous, self._steps.look,
            self._on_fault)
        self._instruction = Instruction(self, self._thread)
        self._memory_services = MemoryServices(
            self, self._ros_time, self._slot, self._thread, self._phase, self._instruction,
            self._outputs, self._control, group)
        self._task_action = TaskAction(
            self, self._thread, self._phase, self._instruction, group)
        # A steady timer: the status is published even if simulated time stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        for period, callback in (
                (0.5, self._outputs.publish_status), (1.0, self._outputs.publish_diagnostics),
                (MARKERS_PERIOD, self._outputs.publish_markers),
                (GRAPH_PERIOD, self._look_around)):
            self.create_timer(period, callback, clock=steady)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=Duration(nanoseconds=MAX_SIMULATED_STEP_NS),
                min_backward=Duration(nanoseconds=-1), on_clock_change=False),
            post_callback=lambda jump: self._on_clock_step(jump.delta.nanoseconds))
        self._instruction.change(self._instruction.text)
        self._outputs.publish_status()

    # Lifecycle

    @logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the files, load the checkpoint, warm up; a failure leaves the node unconfigured."""
        self._phase.name, self._phase.fault = 'configuring', ''
        self._slot.begin()
        self._set_loading('reading policy and embodiment')
        try:
            self._configure()
        except (ValueError, OSError) as error:  # errors that the user can fix
            self.get_logger().error(f'configure failed: {error}')
            self._forget_configuration()
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self._forget_configuration()
            raise
        finally:
            self._set_loading('')
        self._set_phase('inactive')
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start predicting, or wait for an instruction; start publishing the plan."""
        self._phase.fault = ''
        configuration, inputs = self._configuration, self._inputs
        if configuration is None or inputs is None:
            raise RuntimeError('activate before configure')
        if configuration.executed is not None:
            configuration.executed.clear()
        self._slot.clear()  # the arm may have moved since the last stop
        rate = configuration.values['control_rate']
        robot = self._robot(configuration, inputs)
        settings = RuntimeSettings(
            schedule=SCHEDULES[configuration.values['schedule']], reaction=REACTION + 1.0 / rate,
            last_chunk_only=configuration.values['memory_ablation'] == 'last_chunk')
        instruction = self._instruction.text
        wait_for_answer(
            self._thread.ask(lambda scheduler: scheduler.start(robot, settings, instruction)),
            self._phase)
        self._phase.name = 'active'
        self._streamer.start(configuration.embodiment.joints, rate)
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Send a stop and keep the memory."""
        self._slot.stop()
        wait_for_answer(  # no chunk may follow the stop
            self._thread.ask(lambda scheduler: scheduler.stop('inactive')), self._phase)
        self._streamer.stop()
        self._set_phase('inactive')
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the accelerator and the memory of the episode."""
        self._phase.fault = ''
        self._forget_configuration()
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything."""
        self._streamer.stop()
        self._forget_configuration()
        self._set_phase('finalized')
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured after a failed transition."""
        self._streamer.stop()
        self._forget_configuration()
        return TransitionCallbackReturn.SUCCESS

    def close(self, _asked_by: int | None) -> bool:
        """Publish a final stop and end all threads; return whether they have ended."""
        self._phase.closing = True
        self._outputs.close()
        self._streamer.stop()
        ended = self._thread.close(timeout=2.0)
        self._transitions.close(wait=ended)
        return ended

    def raise_executor_priority(self) -> None:
        """
        Raise the priority of the calling thread, which will spin this node, and of DDS's threads.

        They only pass messages, so that an image does not wait for a computation on the same core.
        """
        priority = self.get_parameter('realtime_priority').value
        threads = set(threads_of_process()) - {self._thread.native_id or 0}
        raise_priority(
            self, threads, priority and max(1, priority - RECEIVING_BELOW), False, 'callbacks')

    def _configure(self) -> None:
        since, logger = time.monotonic(), self.get_logger()
        configuration = read_configuration(self._values(), logger, self._timeline)
        self._configuration = configuration
        self._slot.set_limits(configuration.limits)
        self._outputs.configure(configuration)
        self._timeline.reset(self._ros_time.now_ns(), speed=1.0)
        self._inputs = PolicyInputs(
            self, configuration, self._ros_time, self._timeline, self._steps)
        instruction = self._instruction.text
        wait_for_answer(self._thread.ask(lambda scheduler: scheduler.load(
            make_engine(configuration, instruction, self._set_loading),
            configuration.values['max_snapshots'])), self._phase, forever=True)
        self._streamer.forget_starved_ticks()
        # All objects stay until cleanup. Without this, a collection of torch's modules takes 200
        # ms, during which no other thread of the node runs Python.
        gc.collect()
        gc.freeze()
        logger.info(
            f'configured in {time.monotonic() - since:.1f} s: {configuration.checkpoint}, '
            f'{configuration.policy.name}, {configuration.embodiment.name}')

    def _forget_configuration(self) -> None:
        inputs, self._inputs, self._configuration = self._inputs, None, None
        if inputs is not None:
            inputs.close()
        if not self._phase.closing:
            wait_for_answer(self._thread.ask(lambda scheduler: scheduler.unload()), self._phase)
            gc.unfreeze()
            gc.collect()  # modules have reference cycles and own the accelerator's memory
        self._slot.clear()
        self._outputs.forget()
        self._outputs.forget_chunk()
        self._set_phase('unconfigured')

    def _robot(self, configuration: Configuration, inputs: PolicyInputs) -> RobotInterface:
        return RobotInterface(
            clock=self._time, cameras=PlanTimeCameras(configuration.cameras, self._timeline),
            executed=None if configuration.executed is None else PlanTimeCommands(
                configuration.executed, self._timeline),
            joints=configuration.joints, action_map=configuration.action_map,
            limits=configuration.limits, control=inputs.control, to_rgb=inputs.cameras.to_rgb,
            not_ready_reason=inputs.not_ready_reason, live=self._live_settings,
            timeline=self._timeline, sets_pace=configuration.sets_pace)

    def _live_settings(self) -> LiveSettings:
        return LiveSettings(**{
            name: self.get_parameter(name).value
            for name in ('max_camera_skew', 'padded_latency', 'publish_predicted_video',
                         'takeover_memory')})

    # Status and faults

    def _status(self) -> tuple[RuntimeStatus, int]:
        status = self._phase.status(self._thread.status, self._instruction.text)
        return status, self._streamer.starved_ticks

    def _input_diagnostics(self) -> tuple[dict[str, str], list[str]]:
        return ({}, []) if self._inputs is None else self._inputs.diagnostics()

    def _follow_instruction(self, text: str) -> None:
        self._instruction.follow(text)

    def _tell_task(self, status: RuntimeStatus) -> None:
        if self._task_action is not None:
            self._task_action.notify(status.memory_frames)

    def _set_phase(self, name: str) -> None:
        self._phase.name = name
        self._outputs.publish_status()

    def _set_loading(self, line: str) -> None:
        self._phase.loading = line
        if line:
            self.get_logger().info(line)
        self._outputs.publish_status()

    def _on_fault(self, trace: str) -> None:
        """Report an exception of the inference or the control thread and deactivate."""
        self._phase.fault = trace.strip().splitlines()[-1]
        self.get_logger().fatal(f'the policy has failed:\n{trace}')
        self._slot.stop()
        self._outputs.publish_status()
        if not self._phase.closing:
            self._transitions.submit(self.trigger_deactivate)

    # Clock, graph and parameters

    def _control(self) -> ControlOwner | None:
        return self._inputs.control if self._inputs is not None else None

    def _look_around(self) -> None:
        """Look at the clock and the graph, and let the parameter follow the instruction."""
        self._steps.look()
        inputs = self._inputs
        if inputs is not None:
            inputs.look_around()
        self._instruction.sync_parameter()

    def _on_clock_step(self, step_ns: int) -> None:
        """
        Start over in the time that holds now; called by any thread.

        What was received has stamps of another time. Where the clock went back, so has what is
        remembered, and a new epoch begins; where it went forward, the arm rests.
        """
        if self._inputs is not None:
            self._inputs.clear()
        if not self._phase.configured:
            return
        back = step_ns < 0
        self.get_logger().warning(
            f'the clock stepped by {to_seconds(step_ns):.3f} s: '
            + ('new epoch' if back else 'the running chunk is dropped'))
        self._outputs.forget_chunk()
        self._timeline.reset(self._ros_time.now_ns())
        self._thread.restart_time(step_ns)

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        declared = [entry for entry in parameters if self.has_parameter(entry.name)]
        lines = policy_parameters.refusals(declared, self._phase.name != 'unconfigured')
        if lines:
            return SetParametersResult(successful=False, reason='; '.join(lines))
        changed = {parameter.name: parameter.value for parameter in parameters}
        try:
            if policy_parameters.SAMPLING & changed.keys():
                self._change_sampling(changed)
            if 'instruction' in changed:
                self._instruction.take_parameter(changed['instruction'])
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _change_sampling(self, changed: dict[str, Any]) -> None:
        """
        Have the inference thread take other steps and guidance; waits for nothing.

        :raises ValueError: the checkpoint, as it was configured, cannot take them.
        """
        configuration = self._configuration
        if configuration is None:
            return
        values = {**self._values(), **changed}
        video, action = policy_parameters.sampling(configuration.policy, values)
        policy_parameters.check_guidance(
            (configuration.video, configuration.action), (video, action))
        self._thread.ask(lambda scheduler: scheduler.set_sampling(
            video, action, values['imagine_steps'])).add_done_callback(self._log_sampling)

    def _log_sampling(self, taken: Future[None]) -> None:
        error = taken.exception()
        if error is not None and self._phase.configured:
            self.get_logger().error(f'other steps or guidance were not taken: {error}')

    def _values(self) -> dict[str, Any]:
        parameters: dict[str, Any] = self.get_parameters_by_prefix('')  # rclpy's hint is wrong
        return {name: parameter.value for name, parameter in parameters.items()}


def main(args: list[str] | None = None) -> None:
    """Run the node until SIGINT or SIGTERM."""
    def make_node() -> PolicyNode:
        node = PolicyNode()
        node.raise_executor_priority()
        return node

    sys.setswitchinterval(SWITCH_SECONDS)
    code = run_node(make_node, args)
    # Everything is published and closed. Destroying torch's modules would delay the exit by
    # seconds.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == '__main__':
    main()
