"""The surroundings of a policy node over real DDS: cameras, an arm at home, and a client."""

import contextlib
import time

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
import numpy as np
import pytest
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory

from lingbot_va_ros.msg import ActionChunk, PolicyStatus
from lingbot_va_ros.nodes import qos
from lingbot_va_ros.nodes.images.conversion import from_rgb
from lingbot_va_ros.specs.embodiment import load_embodiment
from lingbot_va_ros.srv import ResetMemory, SetInstruction
from support import altered_policy
from support.node_processes import node_process
from support.services import Services
from support.waiting import DEADLINE, wait_for

NS = 1_000_000_000
NODE = 'lingbot_va_policy'
ROBOT = load_embodiment('sim_left')
HOME = ROBOT.home
CAMERAS = ('head', 'left_wrist')
RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)


class World:
    """Two cameras, an arm that stands at home, a client, and a record of what the policy says."""

    def __init__(self, node, namespace=''):
        self.node = node
        self.name = f'{namespace}/{NODE}'.lstrip('/')
        self.cameras = set(CAMERAS)
        self.encoding = {}
        self.offset_ns = {}  # of the stamps of a camera; None: they are 0
        self.joints = True
        self.clock = time.time_ns
        self._services = Services(node)
        self.statuses, self.plans, self.chunks = [], [], []
        self._images = {
            name: node.create_publisher(
                Image, f'{namespace}/camera/{name}/image_raw'.lstrip('/'), RELIABLE)
            for name in CAMERAS}
        self._states = node.create_publisher(
            JointState, f'{namespace}/joint_states'.lstrip('/'), RELIABLE)
        self._subscribe(PolicyStatus, 'status', self.statuses, qos.LATCHED)
        self._subscribe(JointTrajectory, 'joint_trajectory', self.plans, RELIABLE)
        self._subscribe(ActionChunk, 'action_chunk', self.chunks, RELIABLE)
        self._picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        node.create_timer(0.04, self._show)

    def _subscribe(self, kind, name, record, profile):
        self.node.create_subscription(kind, f'{self.name}/{name}', record.append, profile)

    def _show(self):
        now = self.clock()
        for name in list(self.cameras):
            message = from_rgb(self._picture)
            offset = self.offset_ns.get(name, 0)
            stamp = 0 if offset is None else now + offset
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, NS)
            message.encoding = self.encoding.get(name, 'rgb8')
            self._images[name].publish(message)
        if self.joints:
            message = JointState(name=list(ROBOT.joints), position=HOME.tolist())
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, NS)
            self._states.publish(message)

    @property
    def status(self):
        return self.statuses[-1] if self.statuses else PolicyStatus()

    def call(self, kind, name, request, deadline=DEADLINE):
        return self._services.call(kind, f'{self.name}/{name}', request, deadline)

    def change(self, transition, deadline=300.0):
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.call(ChangeState, 'change_state', request, deadline).success

    def state(self):
        return self.call(GetState, 'get_state', GetState.Request()).current_state.id

    def set(self, **values):
        request = SetParameters.Request(parameters=[
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()])
        return self.call(SetParameters, 'set_parameters', request).results

    def reset(self, instruction=''):
        return self.call(
            ResetMemory, 'reset_memory', ResetMemory.Request(instruction=instruction))

    def instruct(self, instruction):
        return self.call(
            SetInstruction, 'set_instruction', SetInstruction.Request(instruction=instruction))

    def wait_mode(self, mode, words=''):
        wait_for(lambda: self.status.mode == mode and words in self.status.reason,
                 f'mode {mode} with {words!r} (now {self.status.mode} {self.status.reason!r})')

    def new_plans(self, count=3):
        """Return the next plans that come."""
        first = len(self.plans)
        wait_for(lambda: len(self.plans) >= first + count, f'{count} new plans')
        return self.plans[first:first + count]


@contextlib.contextmanager
def policy_process(tmp_path, *arguments, program=None, warm=True):
    """
    Run the policy node; yields the process and a function that reads its log.

    :param program: a Python file that is run in place of the node.
    :param warm: whether it begins with its libraries imported.
    """
    log = tmp_path / 'policy.log'
    with node_process('policy_node', log, *arguments, program=program, warm=warm) as process:
        yield process, log.read_text


@contextlib.contextmanager
def altered_policy_at_work(node, folder, checkpoint, variable, text):
    """
    Run an active policy that a file alters; yield its World and a function that writes the file.

    :param variable: names the file; see support/altered_policy.py.
    :param text: its content at first.
    """
    file = folder / variable.lower()

    def write(text):
        new = file.with_suffix('.new')
        new.write_text(text)
        new.replace(file)  # whole, at one moment

    write(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, str(file))
        with policy_process(
                folder, '-p', 'executed_source:=plan', '-p', f'checkpoint:={checkpoint}', '-p',
                'instruction:=go', program=altered_policy.__file__) as (_, log):
            world = World(node)
            world.log = log
            wait_for(lambda: world.statuses, 'a status')
            assert world.change(Transition.TRANSITION_CONFIGURE)
            assert world.change(Transition.TRANSITION_ACTIVATE)
            yield world, write
            world.cameras, world.joints = set(), False
