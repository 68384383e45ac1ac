"""The node sim_robot: a simulated robot with the topics of a real arm with ros2_control."""

from collections import deque
from concurrent.futures import Future
from dataclasses import replace
import json
import sys
import threading
import time
import traceback

from builtin_interfaces.msg import Time
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.motion.time import NANOSECONDS, to_seconds
from lingbot_va_ros.nodes.parameters import declare_parameters, NodeParameter
from lingbot_va_ros.nodes.qos import COMMAND, EVENTS, EXECUTED, LATCHED
from lingbot_va_ros.nodes.run import CannotStart, run_node
from lingbot_va_ros.nodes.stamps import nanoseconds_of, stamp_of
from lingbot_va_ros.sim.gl import no_renderer
from lingbot_va_ros.sim.pacing import Pacing, SteadyOffset
from lingbot_va_ros.sim.trajectory_controller import (
    Trajectory,
    TrajectoryPoint,
    TrajectoryRejected,
)

STATE_RATE = 100
TASK_STATE_RATE = 5

PARAMETERS = (
    NodeParameter('task', 'table', 'Scene on the table. A change takes effect at the next reset.'),
    NodeParameter(
        'seed', 0, 'Random seed of the scene. A change takes effect at the next reset.',
        0, 2**31 - 1),
    NodeParameter(
        'arms', 'left', 'Arms of the robot.', choices=('left', 'right', 'both'), read_only=True),
    NodeParameter('realtime_factor', 1.0, 'Simulated seconds per real second.', 0.01, 100.0),
    NodeParameter(
        'publish_clock', False,
        'Publish the simulated time on /clock and stamp with it; otherwise stamp with ROS time.',
        read_only=True),
    NodeParameter(
        'reset_clock', False, 'A reset sets the simulated time (publish_clock) back to zero.'),
    NodeParameter(
        'camera_rate', 30.0, 'Images per simulated second and camera.', 0.1, 100.0,
        read_only=True),
    NodeParameter(
        'camera_width', 128, 'Width of the images in pixels.', 16, 1920, read_only=True),
    NodeParameter(
        'camera_height', 128, 'Height of the images in pixels.', 16, 1080, read_only=True),
    NodeParameter(
        'overview_rate', 0.0,
        'Images per simulated second of the overview camera, on camera/overview/image_raw; 0: '
        'none.', 0.0, 30.0, read_only=True),
)


class SimRobot(Node):
    """
    Simulated arms, scene and cameras; commands follow joint_trajectory_controller's rules.

    One thread owns physics, trajectory controller and rendering context, and publishes; the
    executor's thread only passes messages and requests to it.
    """

    def __init__(self):
        super().__init__('sim_robot')
        self._make_simulation, tasks = _load_mujoco()
        self._table = {
            row.name: replace(row, choices=tasks) if row.name == 'task' else row
            for row in PARAMETERS}
        declare_parameters(self, self._table.values())
        try:
            self._simulation = self._new_simulation()
        except ValueError as error:
            raise CannotStart(str(error)) from error
        self.add_on_set_parameters_callback(self._check_change)
        self._stamp_with_clock = self.get_parameter('publish_clock').value
        self._factor = float(self.get_parameter('realtime_factor').value)
        self._pacing = Pacing(self._factor)
        if not self._stamp_with_clock and self._factor != 1.0:
            self.get_logger().warning(
                f'realtime_factor is {self._factor:g} without publish_clock: the robot moves at '
                'that share of the speed that its commands and stamps say')
        self._incoming: deque[tuple[int, JointTrajectory]] = deque()  # with steady time, ns
        self._requests: deque[Future] = deque()
        self._last_rejection = (-1e9, 0)
        self._ros_offset = SteadyOffset(lambda: self.get_clock().now().nanoseconds)
        self._make_interfaces()
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._failure = None
        self.failed = False
        self._thread = threading.Thread(target=self._simulate, name='simulation', daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise CannotStart(self._failure)

    # Executor thread --------------------------------------------------------------------------

    def _check_change(self, parameters) -> SetParametersResult:
        for parameter in parameters:
            row = self._table.get(parameter.name)
            fault = row.fault(parameter.value) if row is not None else ''
            if fault:
                return SetParametersResult(successful=False, reason=fault)
        for parameter in parameters:
            if parameter.name == 'realtime_factor':
                self._factor = float(parameter.value)
        return SetParametersResult(successful=True)

    def _new_simulation(self):
        value = {name: self.get_parameter(name).value for name in self._table}
        return self._make_simulation(
            value['task'], value['arms'], value['seed'], value['camera_width'],
            value['camera_height'])

    def _make_interfaces(self) -> None:
        # Imported here, as MuJoCo is: see `_load_mujoco`.
        from lingbot_va_ros.nodes.sim_cameras import CameraPublishers
        self._cameras = CameraPublishers(
            self, self._simulation, self.get_parameter('overview_rate').value > 0)
        self._joint_states = self.create_publisher(
            JointState, 'joint_states', EVENTS)
        self._task_state = self.create_publisher(String, '~/task_state', LATCHED)
        self._clock_publisher = None
        if self._stamp_with_clock:
            self._clock_publisher = self.create_publisher(Clock, '/clock', COMMAND)
        self.create_subscription(
            JointTrajectory, 'joint_trajectory_controller/joint_trajectory',
            self._on_trajectory, EXECUTED)
        self.create_service(Trigger, '~/reset', self._on_reset)

    def _on_trajectory(self, message: JointTrajectory) -> None:
        self._incoming.append((time.monotonic_ns(), message))

    def _on_reset(self, _request, response):
        request = Future()
        self._requests.append(request)
        try:
            response.message = request.result(timeout=10.0)
            response.success = True
        except Exception as error:
            response.success = False
            response.message = f'{type(error).__name__}: {error}'.rstrip(': ')
        return response

    def close(self, _asked_by: int | None) -> bool:
        """End the simulation; True when its thread has ended."""
        self._stopping.set()
        self._thread.join(timeout=3.0)
        return not self._thread.is_alive()

    # Simulation thread ------------------------------------------------------------------------

    def _simulate(self) -> None:
        try:
            for camera in self._cameras.names:
                self._simulation.render(camera)
        except Exception as error:
            self._failure = str(error)
            return
        finally:
            self._ready.set()
        try:
            self._run()
        except Exception:
            # The node is useless without the simulation: end it.
            self.failed = True
            self.get_logger().fatal(f'the simulation failed:\n{traceback.format_exc()}')
            self.context.shutdown()
        finally:
            self._simulation.close()

    def _run(self) -> None:
        tick_ns = NANOSECONDS // STATE_RATE
        image_period_ns = NANOSECONDS / self.get_parameter('camera_rate').value
        # Ticks from one overview image to the next.
        overview_ticks = round(STATE_RATE / (self.get_parameter('overview_rate').value or 1.0))
        image_sets = ticks = overview_due = 0
        self._start_ns = self._simulation.time_ns
        while not self._stopping.is_set():
            if self._factor != self._pacing.factor:
                self._pacing = Pacing(self._factor)
            dropped_ns = self._pacing.wait_for(
                self._simulation.time_ns + tick_ns, self._stopping)
            if dropped_ns and ticks > STATE_RATE:  # the first second includes loading
                self.get_logger().warning(
                    f'the simulation is {dropped_ns / NANOSECONDS:.2f} s behind and drops that '
                    f'time: this machine is too slow for realtime_factor {self._factor:g}',
                    throttle_duration_sec=5.0)
            while self._incoming and self._has_arrived(*self._incoming[0], tick_ns):
                self._accept(self._incoming.popleft()[1])
            while self._requests:
                self._reset(self._requests.popleft())
                image_sets = 0
            self._simulation.step(to_seconds(tick_ns))
            stamp = self._stamp()
            if self._clock_publisher is not None:
                self._clock_publisher.publish(Clock(clock=stamp))
            self._publish_joints(stamp)
            since_start_ns = self._simulation.time_ns - self._start_ns
            if since_start_ns >= image_sets * image_period_ns:
                image_sets += 1
                self._cameras.publish(self._simulation, stamp)
            if ticks >= overview_due:
                overview_due = ticks + overview_ticks
                self._cameras.publish_overview(self._simulation, stamp)
            if ticks % (STATE_RATE // TASK_STATE_RATE) == 0:
                self._publish_task_state()
            ticks += 1

    def _stamp(self) -> Time:
        """Return the stamp of the present state: simulated time, or its ROS time."""
        stamp_ns = self._simulation.time_ns
        if not self._stamp_with_clock:
            self._ros_offset.follow()
            stamp_ns = self._pacing.due(stamp_ns) + self._ros_offset.ns
        return stamp_of(stamp_ns)

    def _simulated_ns(self, stamp: Time) -> int:
        """Return the simulated time of a stamp, ns; zero stays zero, which means now."""
        stamp_ns = nanoseconds_of(stamp)
        if self._stamp_with_clock or stamp_ns == 0:
            return stamp_ns
        return self._pacing.simulated(stamp_ns - self._ros_offset.ns) or 1

    def _has_arrived(self, arrived_ns: int, message: JointTrajectory, tick_ns: int) -> bool:
        """
        Return whether a message has arrived by the end of the next simulated tick.

        If the simulation is behind, a message that arrived later in simulated time waits. Its
        stamp counts if it is earlier: a busy machine may deliver a message late.
        """
        if self._stamp_with_clock:
            return True
        came_ns = self._pacing.simulated(arrived_ns)
        stamp_ns = self._simulated_ns(message.header.stamp)
        return min(came_ns, stamp_ns or came_ns) <= self._simulation.time_ns + tick_ns

    def _accept(self, message: JointTrajectory) -> None:
        controller = self._simulation.controller
        trajectory = Trajectory(
            self._simulated_ns(message.header.stamp),
            tuple(message.joint_names),
            tuple(TrajectoryPoint(
                nanoseconds_of(point.time_from_start), point.positions, point.velocities,
                point.accelerations, point.effort) for point in message.points))
        try:
            controller.accept(trajectory, self._simulation.time_ns)
        except TrajectoryRejected as reason:
            self._log_rejection(str(reason))

    def _log_rejection(self, reason: str) -> None:
        logged_at, logged_count = self._last_rejection
        count = self._simulation.controller.rejected
        if time.monotonic() - logged_at < 1.0:
            return
        between = count - logged_count - 1
        more = f' ({between} more since the last line, {count} in all)' if between else ''
        self.get_logger().error(f'trajectory rejected: {reason}{more}')
        self._last_rejection = (time.monotonic(), count)

    def _reset(self, request: Future) -> None:
        try:
            request.set_result(self._arrange_scene())
        except Exception as error:
            request.set_exception(error)

    def _arrange_scene(self) -> str:
        task = self.get_parameter('task').value
        seed = self.get_parameter('seed').value
        before = self._simulation
        if task == before.task:
            before.reset(seed)
        else:
            after = self._new_simulation()
            after.time_ns = before.time_ns
            after.controller.accepted = before.controller.accepted
            after.controller.rejected = before.controller.rejected
            before.close()
            self._simulation = after
        if self._stamp_with_clock and self.get_parameter('reset_clock').value:
            self._simulation.rewind()
            self._pacing.forget()
        self._start_ns = self._simulation.time_ns
        return f'task {task}, seed {seed}'

    def _publish_joints(self, stamp: Time) -> None:
        message = JointState()
        message.header.stamp = stamp
        message.name = list(self._simulation.joints)
        message.position = self._simulation.positions.tolist()
        message.velocity = self._simulation.velocities.tolist()
        message.effort = self._simulation.efforts.tolist()
        self._joint_states.publish(message)

    def _publish_task_state(self) -> None:
        state = self._simulation.task_state
        controller = self._simulation.controller
        self._task_state.publish(String(data=json.dumps({
            'task': self._simulation.task, 'counts': state.counts, 'done': state.done,
            'success': state.success, 'detail': state.detail,
            'accepted_trajectories': controller.accepted,
            'rejected_trajectories': controller.rejected})))


def _load_mujoco() -> tuple:
    """Return the Simulation class and the names of the tasks; MuJoCo is imported here."""
    try:
        from lingbot_va_ros.sim.scenes import SCENES
        from lingbot_va_ros.sim.simulation import Simulation
    except Exception as error:
        # MuJoCo refuses a bad MUJOCO_GL, and one whose library is missing, at its import.
        raise CannotStart(str(no_renderer(error))) from error
    return Simulation, tuple(SCENES)


def main(args=None) -> None:
    """Run the node until SIGINT or SIGTERM, or until the simulation fails (exit code 1)."""
    sys.exit(run_node(SimRobot, args))


if __name__ == '__main__':
    main()
