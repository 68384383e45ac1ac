"""The node sim_robot: simulated arms, scene and cameras, with the topics of a real robot."""

from dataclasses import replace
import sys
import threading
import traceback

from builtin_interfaces.msg import Time
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState

from lingbot_va_ros.motion.time import NANOSECONDS, to_seconds
from lingbot_va_ros.nodes.parameters import declare_parameters
from lingbot_va_ros.nodes.qos import COMMAND, EVENTS
from lingbot_va_ros.nodes.run import CannotStart, run_node
from lingbot_va_ros.nodes.sim_robot.parameters import PARAMETERS, TRAJECTORY
from lingbot_va_ros.nodes.sim_robot.requests import Requests
from lingbot_va_ros.nodes.sim_robot.simulated_time import SimulatedTime
from lingbot_va_ros.nodes.sim_robot.speed_slider import FULL_SPEED, SCALED_CONTROLLER, SpeedSlider
from lingbot_va_ros.sim.gl import no_renderer

STATE_RATE = 100
TASK_STATE_RATE = 5
NO_SLIDER = f'speed_scaling: only the controller {SCALED_CONTROLLER} has a speed slider'


class SimRobot(Node):
    """
    Publishes the state and the images of a simulated robot, and passes messages to it.

    One thread owns physics, controller and rendering context, and publishes; the executor's
    thread only passes messages and requests to it.
    """

    def __init__(self):
        super().__init__('sim_robot')
        # Imported here: see `_load_mujoco`.
        make_simulation, tasks = _load_mujoco()
        from lingbot_va_ros.nodes.sim_robot.cameras import CameraPublishers
        from lingbot_va_ros.nodes.sim_robot.controller import ControllerTopics
        from lingbot_va_ros.nodes.sim_robot.direct_topics import DirectTopics
        from lingbot_va_ros.nodes.sim_robot.task import TaskScene

        self._table = {
            row.name: replace(row, choices=tasks) if row.name == 'task' else row
            for row in PARAMETERS}
        declare_parameters(self, self._table.values())
        try:
            self._task = TaskScene(self, make_simulation)
        except ValueError as error:
            raise CannotStart(str(error)) from error
        self.add_on_set_parameters_callback(self._check_change)
        has_clock = self.get_parameter('publish_clock').value
        factor = float(self.get_parameter('realtime_factor').value)
        self._time = SimulatedTime(self, has_clock, factor)
        if not has_clock and factor != 1.0:
            self.get_logger().warning(
                f'realtime_factor is {factor:g} without publish_clock: the robot moves at '
                'that share of the speed that its commands and stamps say')
        self._slider = self._make_slider()
        interface = self.get_parameter('command_interface').value
        self._controller = (
            ControllerTopics(self, self._time) if interface == TRAJECTORY else DirectTopics(
                self, self._time, interface, self._task.simulation.joints))
        self._cameras = CameraPublishers(
            self, self._task.simulation, self.get_parameter('overview_rate').value > 0)
        self._joint_states = self.create_publisher(JointState, 'joint_states', EVENTS)
        self._clock_publisher = (
            self.create_publisher(Clock, '/clock', COMMAND) if has_clock else None)
        self._requests = Requests()
        self._requests.offer(self, '~/reset', self._reset)
        self._requests.offer(self, '~/protective_stop', self._stop)
        self._requests.offer(self, '~/resume', self._resume)
        self._was_reset = False
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._failure: str | None = None
        self.failed = False
        self._thread = threading.Thread(target=self._simulate, name='simulation', daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise CannotStart(self._failure)

    def _make_slider(self) -> SpeedSlider | None:
        """Return the slider of the robot, or None where the controller has none."""
        percent = float(self.get_parameter('speed_scaling').value)
        if self.get_parameter('controller').value == SCALED_CONTROLLER:
            return SpeedSlider(self, percent)
        if percent != FULL_SPEED:
            raise CannotStart(NO_SLIDER)
        return None

    # Executor thread --------------------------------------------------------------------------

    def _check_change(self, parameters) -> SetParametersResult:
        for parameter in parameters:
            row = self._table.get(parameter.name)
            fault = row.fault(parameter.value) if row is not None else ''
            if fault:
                return SetParametersResult(successful=False, reason=fault)
            if parameter.name == 'speed_scaling' and self._slider is None:
                return SetParametersResult(successful=False, reason=NO_SLIDER)
        for parameter in parameters:
            if parameter.name == 'realtime_factor':
                self._time.factor = float(parameter.value)
            elif parameter.name == 'speed_scaling' and self._slider is not None:
                self._slider.percent = float(parameter.value)
        return SetParametersResult(successful=True)

    def close(self, _asked_by: int | None) -> bool:
        """End the simulation; True when its thread has ended."""
        self._stopping.set()
        self._thread.join(timeout=3.0)
        return not self._thread.is_alive()

    # Simulation thread ------------------------------------------------------------------------

    def _simulate(self) -> None:
        try:
            for camera in self._cameras.names:
                self._task.simulation.render(camera)
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
            self._task.simulation.close()

    def _run(self) -> None:
        tick_ns = NANOSECONDS // STATE_RATE
        image_period_ns = NANOSECONDS / self.get_parameter('camera_rate').value
        # Ticks from one overview image to the next.
        overview_ticks = round(STATE_RATE / (self.get_parameter('overview_rate').value or 1.0))
        image_sets = ticks = overview_due = 0
        start_ns = self._task.simulation.time_ns
        self._listen_to_controller()
        while not self._stopping.is_set():
            # The first second includes loading.
            end_ns = self._task.simulation.time_ns + tick_ns
            self._time.wait_for(end_ns, self._stopping, warns=ticks > STATE_RATE)
            self._controller.deliver(self._task.simulation, end_ns)
            self._requests.carry_out()
            simulation = self._task.simulation
            if self._was_reset:
                self._was_reset, image_sets, start_ns = False, 0, simulation.time_ns
            if self._slider is not None:
                self._slider.apply(simulation.controller)
            simulation.step(to_seconds(tick_ns))
            self._time.follow_ros_time()
            stamp = self._time.stamp(simulation.time_ns)
            if self._clock_publisher is not None:
                self._clock_publisher.publish(Clock(clock=stamp))
            self._publish_joints(stamp)
            self._controller.publish(simulation)
            if simulation.time_ns - start_ns >= image_sets * image_period_ns:
                image_sets += 1
                self._cameras.publish(simulation, stamp)
            if ticks >= overview_due:
                overview_due = ticks + overview_ticks
                self._cameras.publish_overview(simulation, stamp)
            if ticks % (STATE_RATE // TASK_STATE_RATE) == 0:
                self._task.publish()
            ticks += 1

    def _listen_to_controller(self) -> None:
        self._controller.listen(self._task.simulation)

    def _reset(self) -> str:
        message = self._task.arrange()
        self._listen_to_controller()
        if self._time.has_clock and self.get_parameter('reset_clock').value:
            self._task.simulation.rewind()
            self._time.forget()
        self._was_reset = True
        return message

    def _stop(self) -> str:
        self._task.simulation.protective_stop()
        return 'the controller is inactive; ~/resume activates it'

    def _resume(self) -> str:
        if self._task.simulation.control.active:
            return 'the controller is active already'
        self._task.simulation.resume()
        return 'the controller is active'

    def _publish_joints(self, stamp: Time) -> None:
        simulation = self._task.simulation
        message = JointState()
        message.header.stamp = stamp
        message.name = list(simulation.joints)
        message.position = simulation.positions.tolist()
        message.velocity = simulation.velocities.tolist()
        message.effort = simulation.efforts.tolist()
        self._joint_states.publish(message)


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
