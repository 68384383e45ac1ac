"""
The command mux while everybody sends it nonsense, and while processes are killed and stopped.

A monitor stands where the controller is and judges every command. Runs for some seconds; set
LINGBOT_VA_FAULT_SECONDS for longer.
"""

from collections import Counter, deque
import contextlib
import os
import signal
import subprocess
import sys
import time

from geometry_msgs.msg import PoseStamped, TwistStamped
import numpy as np
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from support.messages import nanoseconds, stamped
from support.node_processes import start_mux
from support.spinning import spinning_node
from support.waiting import wait_for
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lingbot_va_ros.motion.plan import Plan, resting_at
from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.srv import SetControlMode

NS = 1_000_000_000
# Of accelerations, rad/s² (m/s²): a change of the jerk within 10 µs is none.
ROUNDING = 0.05
PERIOD = 10_000_000
SECONDS = float(os.environ.get('LINGBOT_VA_FAULT_SECONDS', '2'))
SEED = int(os.environ.get('LINGBOT_VA_FAULT_SEED', '1'))
TICK = 0.02  # s, between two messages of the monitor
DEADLINE = 60.0
TIMEOUT = 1.0  # seconds: which source is lost is told by who was killed, not by a busy machine
ROBOT = load_embodiment('sim_left')
NAMES = list(ROBOT.joints)
START = np.array([0.1, 0.2, 0.6, 0.1, 0.2, 0.1, 0.02])
SWING = np.array([0.5, 0.3, 0.3, 0.4, 0.3, 0.2, 0.005])
EVERYTHING = QoSProfile(depth=5000, reliability=ReliabilityPolicy.RELIABLE)
WILD = (float('nan'), float('inf'), -float('inf'), 1e300, -1e300, 0.0, 7.0, -7.0)

pytestmark = pytest.mark.timeout(2 * SECONDS + 600)


def swing(time_ns, rate=2.0):
    return START + SWING * (1 - np.cos(rate * (time_ns % (1000 * NS)) / NS)) / 2


class Monitor:
    """The controller with its arm: judges every command and says what is wrong with it."""

    def __init__(self, node, namespace):
        self.node, self.namespace = node, namespace
        self.arm = resting_at(0, START)
        self.told = deque(maxlen=50)  # positions by joint, as measured in the last second
        self.by_mode = Counter()
        self.commands, self.wrong, self.modes, self.answers = 0, [], [], []
        self.anew = True  # whether the next command may begin at what was measured
        self.rng = np.random.default_rng(SEED)
        self.spoils = False  # whether joint states may be nonsense
        self.silent_until = 0.0
        self._clients = {}
        node.create_subscription(
            JointTrajectory, f'{namespace}/joint_trajectory_controller/joint_trajectory',
            self._on_command, EVERYTHING)
        node.create_subscription(
            ControlMode, f'{namespace}/command_mux/mode', self._on_mode, qos.LATCHED)
        self._joints = node.create_publisher(
            JointState, f'{namespace}/joint_states', qos.JOINT_STATES)
        self.ticks = 0  # of its own timer, which a busy machine delays as well
        node.create_timer(TICK, self._tell)

    @property
    def mode(self):
        return self.modes[-1][1] if self.modes else None

    def _on_mode(self, message):
        self.modes.append((nanoseconds(message.header.stamp), message.mode, message.reason))

    def _tell(self):
        self.ticks += 1
        now = time.time_ns()
        q, v = self.arm.sample(now)
        message = stamped(JointState(name=NAMES, position=list(q), velocity=list(v)), now)
        if self.spoils and time.monotonic() < self.silent_until:
            return
        chance = self.rng.random() if self.spoils else 1.0
        if chance < 0.002:
            self.silent_until = time.monotonic() + self.rng.uniform(0.05, 0.4)
        elif chance < 0.06:
            self._spoil(message)
        self.told.append(dict(zip(message.name, message.position)))
        self._joints.publish(message)

    def _spoil(self, message):
        kind = self.rng.integers(6)
        if kind == 0:
            message.position[self.rng.integers(7)] = float(self.rng.choice(WILD))
        elif kind == 1:
            message.velocity[self.rng.integers(7)] = float(self.rng.choice(WILD))
        elif kind == 2:
            message.position = message.position[:self.rng.integers(7)]
        elif kind == 3:
            message.name = ['another', *NAMES[1:]]
        elif kind == 4:
            message.name = []
        else:
            message.velocity = []

    def _on_command(self, message):
        self.commands += 1
        self.by_mode[self.mode] += 1
        wrong = self._judged(message)
        if wrong:
            self.wrong.append(f'command {self.commands}: {wrong}')

    def _judged(self, message):
        limits, begin = ROBOT.limits, nanoseconds(message.header.stamp)
        if list(message.joint_names) != NAMES or not message.points:
            return 'joints'
        times = [begin + nanoseconds(p.time_from_start) for p in message.points]
        rows = np.array([p.positions for p in message.points])
        speeds = np.array([p.velocities for p in message.points])
        last, self.arm = self.arm, Plan(np.array(times), rows, speeds)
        anew, self.anew = self.anew, False
        if times[0] != begin:
            return f'begins {times[0] - begin} ns after its stamp'
        if not (np.isfinite(rows).all() and np.isfinite(speeds).all()):
            return 'not finite'
        if not np.all(np.diff(times) > 0):
            return f'times {times}'
        if speeds[-1].any():
            return 'no stop at its end'
        if (rows < limits.lower - 1e-9).any() or (rows > limits.upper + 1e-9).any():
            worst = np.maximum(rows - limits.upper, limits.lower - rows)
            return f'position limits by {worst.max():.3g}: {rows}'
        if (np.abs(speeds) > limits.velocity + 1e-9).any():
            return f'velocity limits: {speeds}'
        seconds = np.diff(times)[:, None] * 1e-9
        if (np.abs(np.diff(speeds, axis=0)) > limits.acceleration * seconds + 1e-7).any():
            return f'acceleration limits: {speeds}, {times}'
        # The cubic between two points has its greatest accelerations at its ends.
        ways = 6 * np.diff(rows, axis=0) / seconds ** 2
        ends = np.stack((
            ways - (4 * speeds[:-1] + 2 * speeds[1:]) / seconds,
            (2 * speeds[:-1] + 4 * speeds[1:]) / seconds - ways))
        if (np.abs(ends) > limits.acceleration + ROUNDING).any():
            worst = np.abs(ends) - limits.acceleration
            return (f'acceleration limits by {worst.max():.3g} along {rows} with {speeds}, '
                    f'{times}')
        # In motion (the last point repeats the rest) on the way of the command before it.
        if not anew and len(last.times_ns) > 1 and begin < last.times_ns[-2]:
            for time_ns in (begin, begin + PERIOD):
                if not np.allclose(self.arm.sample(time_ns), last.sample(time_ns), atol=1e-7):
                    return (f'leaves the last command by {time_ns - begin} ns after its stamp: '
                            f'from {last.times_ns - begin}, {last.positions}, '
                            f'{last.velocities} to '
                            f'{self.arm.times_ns - begin}, {rows}, {speeds}')
        elif not all(  # at rest a motion may begin as measured
                self._begins(name, *row) for name, *row in zip(
                    NAMES, last.positions[-1], rows[0], limits.velocity)):
            return f'a jump from {last.positions[-1]} to {rows[0]}'
        return ''

    def _begins(self, name, last, position, velocity):
        """Return whether a motion begins where the last command has led, or as measured."""
        near = 1e-3 + velocity * PERIOD * 1e-9
        measured = [row[name] for row in list(self.told) if np.isfinite(row.get(name, np.nan))]
        return np.abs(np.array([last, *measured]) - position).min() <= near

    def ask(self, kind, name, request):
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(
                kind, f'{self.namespace}/command_mux/{name}')
        return client.call_async(request)

    def choose(self, mode):
        future = self.ask(SetControlMode, 'set_mode', SetControlMode.Request(mode=mode))
        future.add_done_callback(lambda done: self.answers.append((mode, done.result().success)))
        return future

    def assert_nothing_wrong(self):
        assert not self.wrong, f'{len(self.wrong)} of {self.commands}: {self.wrong[:3]}'


class Fire:
    """Good sources and bad ones on every input of the mux."""

    def __init__(self, monitor):
        node, namespace = monitor.node, monitor.namespace
        self.monitor, self.rng = monitor, np.random.default_rng(SEED + 1)
        self.share = 0.3  # of messages that are nonsense
        self.plans = {
            name: node.create_publisher(JointTrajectory, f'{namespace}/{name}', qos.COMMAND)
            for name in ('policy/joint_trajectory', 'teleop/joint_trajectory')}
        self.leader = node.create_publisher(
            JointState, f'{namespace}/teleop/joint_states', qos.JOINT_STATES)
        self.joy = node.create_publisher(Joy, f'{namespace}/joy', qos.SENSOR)
        self.twist = node.create_publisher(
            TwistStamped, f'{namespace}/teleop/twist', qos.SENSOR)
        self.hand = node.create_publisher(PoseStamped, f'{namespace}/teleop/pose', qos.SENSOR)
        self.stop = node.create_publisher(Bool, f'{namespace}/emergency_stop', qos.EVENTS)
        self.begin = time.time_ns()
        self.begun = START

    def goal(self, time_ns):
        ahead = max(0.0, (time_ns - self.begin) / NS)
        return self.begun + SWING * np.sin(2.0 * ahead) * min(1.0, ahead)

    def plan(self):
        now = time.time_ns()
        message = stamped(JointTrajectory(joint_names=NAMES), now)
        for index in range(1, 9):
            after = index * 40_000_000
            q = np.clip(self.goal(now + after), ROBOT.limits.lower, ROBOT.limits.upper)
            v = (self.goal(now + after + 1000) - self.goal(now + after - 1000)) / 2e-6
            point = JointTrajectoryPoint(
                positions=list(q), velocities=list(v if index < 8 else 0.0 * v))
            point.time_from_start.sec, point.time_from_start.nanosec = divmod(after, NS)
            message.points.append(point)
        return message

    def spoiled(self, message):
        rng, point = self.rng, message.points[self.rng.integers(len(message.points))]
        joint, wild = rng.integers(7), float(rng.choice(WILD))

        def put(rows):
            if len(rows) > joint:
                rows[joint] = wild

        kinds = (
            lambda: put(point.positions), lambda: put(point.velocities),
            lambda: point.positions.append(wild), lambda: point.velocities.pop(),
            lambda: setattr(message, 'joint_names', NAMES[:-1]),
            lambda: setattr(message, 'joint_names', NAMES[:-1] + [NAMES[0]]),
            lambda: setattr(message, 'joint_names', NAMES[::-1]),
            lambda: setattr(message, 'points', []),
            lambda: setattr(message, 'points', message.points[::-1]),
            lambda: setattr(message, 'points', message.points * 40),
            lambda: setattr(point.time_from_start, 'sec', int(rng.integers(-2**31, 2**31))),
            lambda: setattr(point.time_from_start, 'nanosec', int(rng.integers(2**32))),
            lambda: setattr(message.header.stamp, 'sec', int(rng.integers(-2**31, 2**31))),
            lambda: stamped(message, time.time_ns() + rng.normal() * 0.3 * NS),
            lambda: stamped(message, 0),
            lambda: setattr(message.points[-1], 'velocities', [wild] * 7),
            lambda: setattr(point, 'accelerations', [wild] * 7),
            lambda: setattr(point, 'positions', list(rng.uniform(-3, 3, 7))))
        kinds[rng.integers(len(kinds))]()
        return message

    def shoot(self):
        """Send one message, sound or not, somewhere; now and then ask for something."""
        rng = self.rng
        for name, publisher in self.plans.items():
            if rng.random() < 0.9 and (
                    name.startswith('policy') or self.person in ('jogs', 'both')):
                message = self.plan()
                publisher.publish(
                    self.spoiled(message) if rng.random() < self.share else message)
        now = time.time_ns()
        message = stamped(JointState(name=NAMES, position=list(self.goal(now))), now)
        if rng.random() < self.share:
            kind = rng.integers(4)
            if kind == 0:
                message.position[rng.integers(7)] = float(rng.choice(WILD))
            elif kind == 1:
                message.position.pop()
            elif kind == 2:
                stamped(message, now + rng.normal() * NS)
            else:
                message.name = NAMES[::-1]
        if self.person in ('leader', 'both'):
            self.leader.publish(message)
        if self.person in ('twist', 'hand'):
            self.move_tool(now)
        buttons = [int(rng.random() < 0.95)] * int(rng.integers(3))
        self.joy.publish(stamped(Joy(buttons=[1] if rng.random() > self.share else buttons), now))
        chance = rng.random()
        if chance < 0.08:
            self.monitor.choose(int(rng.choice([0, 1, 1, 2, 2, 2, 3, 7, 255])))
        elif chance < 0.12:
            self.monitor.ask(Trigger, 'clear_stop', Trigger.Request())
        elif chance < 0.13:
            self.monitor.ask(Trigger, 'go_home', Trigger.Request())
        elif chance < 0.15:
            self.stop.publish(Bool(data=bool(rng.random() < 0.3)))

    def move_tool(self, now):
        """Send a twist or the pose of a hand, sound or not."""
        rng, ahead = self.rng, (now - self.begin) / NS
        values = [0.2 * np.sin(ahead + index) for index in range(6)]
        frame = ''
        if rng.random() < self.share:
            values[rng.integers(6)] = float(rng.choice(WILD))
            frame = str(rng.choice(['', 'left_tool', 'world', 'nowhere', '/']))
        if self.person == 'twist':
            message = stamped(TwistStamped(), now)
            parts = (message.twist.linear, message.twist.angular)
        else:
            message = stamped(PoseStamped(), now)
            parts = (message.pose.position, message.pose.orientation)
        message.header.frame_id = frame
        for part, numbers in zip(parts, (values[:3], values[3:])):
            part.x, part.y, part.z = numbers
        (self.twist if self.person == 'twist' else self.hand).publish(message)

    person = 'jogs'

    def begin_where_the_arm_is(self):
        self.begin, self.begun = time.time_ns(), self.monitor.arm.positions[-1]

    def go_on(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            # Sources that differ, that fall silent, and that are sound for once.
            self.share = float(self.rng.choice([0.0, 0.05, 0.3, 0.9]))
            self.person = str(self.rng.choice(
                ['jogs', 'leader', 'leader', 'both', 'twist', 'hand']))
            self.begin_where_the_arm_is()
            for _ in range(self.rng.integers(10, 80)):
                self.shoot()
                time.sleep(0.02)
            if self.rng.random() < 0.2:
                time.sleep(self.rng.uniform(0.0, 0.5))


@contextlib.contextmanager
def running_monitor(namespace):
    with spinning_node('monitor') as node:
        yield Monitor(node, namespace)


def start(namespace, log, *parameters):
    words = [word for parameter in parameters for word in ('-p', parameter)]
    return start_mux(log, '-r', f'__ns:={namespace}', *words)


def end(process):
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()


def test_no_command_breaks_a_limit_whatever_comes_in(tmp_path):
    namespace, log = '/fire', tmp_path / 'mux.log'
    mux = start(
        namespace, log, 'takeover_motion:=0.05', 'deadman_button:=0', 'max_rejections:=30',
        'source_timeout:=0.4', 'joint_state_timeout:=0.4')
    try:
        with running_monitor(namespace) as monitor:
            wait_for(lambda: monitor.mode == ControlMode.HOLD, 'the first mode')
            assert monitor.commands == 0
            monitor.spoils = True
            fire, end_by = Fire(monitor), time.monotonic() + SECONDS + DEADLINE
            fire.go_on(SECONDS)
            while monitor.commands < 20 or ControlMode.POLICY not in modes_of(monitor):
                assert time.monotonic() < end_by, monitor.modes
                fire.go_on(0.1)
            assert mux.poll() is None, log.read_text()[-2000:]
            assert 'Traceback' not in log.read_text()
            monitor.assert_nothing_wrong()
            print(f'{dict(monitor.by_mode)} commands by mode, {len(monitor.modes)} modes, '
                  f'{sorted({reason for _, _, reason in monitor.modes})}')
            chosen = sum(mode == ControlMode.POLICY for mode, done in monitor.answers if done)
            became = sum(mode == ControlMode.POLICY for _, mode, _ in monitor.modes)
            assert became <= chosen  # nothing else gives it the arm
            # STOPPED is left by clear_stop alone, to HOLD.
            for (_, before, _), (_, after, _) in zip(monitor.modes, monitor.modes[1:]):
                assert before != ControlMode.STOPPED or after in (
                    ControlMode.HOLD, ControlMode.STOPPED)
    finally:
        end(mux)


def modes_of(monitor):
    return {mode for _, mode, _ in monitor.modes}


SOURCE = """
import sys, time
import numpy as np
import rclpy
from lingbot_va_ros.nodes.qos import COMMAND, JOINT_STATES
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
rclpy.init()
node = rclpy.create_node('source')
topic, start, swing, names = (
    sys.argv[1], np.array(eval(sys.argv[2])), np.array(eval(sys.argv[3])), sys.argv[4:])
plans = 'policy' in topic
publisher = (node.create_publisher(JointTrajectory, topic, COMMAND) if plans
             else node.create_publisher(JointState, topic, JOINT_STATES))
def goal(t):
    return (start + swing * (1 - np.cos(2.0 * (t % 1000))) / 2).tolist()
while True:
    now = time.time()
    message = JointTrajectory(joint_names=names) if plans else JointState(
        name=names, position=goal(now))
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(int(now * 1e9), 10**9)
    for i in range(1, 11) if plans else ():
        q, v = goal(now + 0.03 * i), [0.0] * 7
        if i < 10:
            v = ((np.array(goal(now + 0.03 * i + 1e-3)) - goal(now + 0.03 * i - 1e-3)) / 2e-3)
        point = JointTrajectoryPoint(positions=q, velocities=list(v))
        point.time_from_start.nanosec = 30_000_000 * i
        message.points.append(point)
    publisher.publish(message)
    time.sleep(0.02)
"""


class Processes:
    """Mux, policy and leader as processes that die and stop, and are started again."""

    def __init__(self, namespace, folder):
        self.namespace, self.log = namespace, folder / 'mux.log'
        self.script = folder / 'source.py'
        self.script.write_text(SOURCE)
        self.running = {}
        for name in ('mux', 'policy', 'leader'):
            self.start(name)

    def start(self, name):
        if name == 'mux':
            self.running[name] = start(
                self.namespace, self.log, f'source_timeout:={TIMEOUT}',
                f'joint_state_timeout:={TIMEOUT}')
            return
        topic = 'policy/joint_trajectory' if name == 'policy' else 'teleop/joint_states'
        self.running[name] = subprocess.Popen(
            [sys.executable, str(self.script), f'{self.namespace}/{topic}',
             str(START.tolist()), str(SWING.tolist()), *NAMES])

    def end(self):
        for process in self.running.values():
            end(process)


def test_the_arm_comes_to_rest_whichever_process_is_killed_or_stopped(tmp_path):
    namespace, rng = '/killed', np.random.default_rng(SEED)
    processes = Processes(namespace, tmp_path)
    try:
        with running_monitor(namespace) as monitor:
            stop_at, turn = time.monotonic() + SECONDS, 0
            while time.monotonic() < stop_at or turn < 3:
                wanted = ControlMode.POLICY if turn % 2 == 0 else ControlMode.TELEOP
                source = 'policy' if wanted == ControlMode.POLICY else 'leader'
                move(monitor, wanted)
                victim = ['mux', source, str(rng.choice(['policy', 'leader', 'mux']))][turn % 3]
                number = signal.SIGKILL if rng.random() < 0.5 else signal.SIGSTOP
                process = processes.running[victim]
                process.send_signal(number)
                hit = monitor.ticks
                if victim in ('mux', source):
                    wait_for(lambda: not speed(monitor), 'the arm to rest')
                    assert (monitor.ticks - hit) * TICK < TIMEOUT + 2.0
                else:
                    time.sleep(rng.uniform(0.0, 0.5))
                    assert monitor.mode == wanted, monitor.modes[-1]
                if victim == source:
                    wait_for(lambda: monitor.mode == ControlMode.HOLD, 'HOLD')
                if number == signal.SIGSTOP:
                    time.sleep(rng.uniform(0.0, 0.5))
                    process.send_signal(signal.SIGCONT)
                else:
                    process.wait()
                    known = len(monitor.modes)
                    processes.start(victim)
                    if victim == 'mux':  # it is silent, and says so
                        monitor.anew = True
                        wait_for(lambda: monitor.modes[known:], 'the word of the new mux')
                        assert monitor.modes[known][1:] == (ControlMode.HOLD, 'started')
                monitor.assert_nothing_wrong()
                turn += 1
            assert 'Traceback' not in processes.log.read_text()
    finally:
        processes.end()


def speed(monitor):
    return np.abs(monitor.arm.sample(time.time_ns())[1]).max()


def move(monitor, mode):
    """Give the arm to a source, and ask again until it moves the arm: a busy machine is late."""
    end_at = time.monotonic() + 2 * DEADLINE
    while monitor.mode != mode or speed(monitor) < 0.05:
        assert time.monotonic() < end_at, (mode, monitor.modes[-2:], monitor.answers[-2:])
        if monitor.mode != mode:
            future = monitor.choose(mode)
            patience = time.monotonic() + 3.0  # what is asked before a mux is discovered is lost
            while not future.done() and time.monotonic() < patience:
                time.sleep(0.01)
        time.sleep(0.2)
