"""The two arms of sim_dual behind a mux, and MuJoCo as judge of how near they come."""

import functools
import itertools

import mujoco
import numpy as np

from lingbot_va_ros.motion.trajectory import TrajectoryMessage, TrajectoryPoint
from lingbot_va_ros.mux.leader_arm import LeaderJoint
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.robot.collision import CollisionModel, Distances
from lingbot_va_ros.sim.robot_model import robot_spec
from lingbot_va_ros.specs.embodiment import load_embodiment

PERIOD = 10_000_000
ROBOT = load_embodiment('sim_dual')
JOINTS, LIMITS, HOME = ROBOT.joints, ROBOT.limits, ROBOT.home
assert ROBOT.collision is not None
STOP = ROBOT.collision.stop_distance
# Both hands over the middle of the table, fingers towards each other; the arms meet on the way.
TURN = np.zeros(14)
TURN[0], TURN[6] = -1.0, 1.0
FARTHEST = 0.5  # m; MuJoCo computes no larger distance


@functools.cache
def model():
    return CollisionModel(ROBOT)


class Judge:
    """
    The distance between the shapes of MuJoCo's model of the robot, which asks no coal.

    Links that MuJoCo itself lets overlap are not compared: parent and child, one without shape
    between them too, and those that robot_model.py excludes.
    """

    def __init__(self):
        spec = robot_spec(ROBOT)
        table = spec.worldbody.add_body(name='table')
        table.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.48, 0.65, 0.02),
                       pos=(0.30, 0.0, -0.02))
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        m = self._model
        self._qpos = np.array([m.joint(name).qposadr[0] for name in JOINTS])
        self._fingers = [
            (m.joint(f'{side}_finger_2_joint').qposadr[0], JOINTS.index(f'{side}_gripper_joint'))
            for side in ('left', 'right')]
        shapes = [(m.body(m.geom_bodyid[geom]).name, geom)
                  for geom in range(m.ngeom) if m.geom_contype[geom]]
        self.pairs = [
            (*names, one, other)
            for (name, one), (name_2, other) in itertools.combinations(shapes, 2)
            if self._counts(names := (name, name_2))]

    def _counts(self, names):
        if all('_' in name for name in names) and names[0].split('_')[0] != names[1].split('_')[0]:
            return True
        if 'table' in names:
            return not any('finger' in name or 'base' in name for name in names)
        short = {name.partition('_')[2] for name in names}
        together = (
            {'base_link', 'upper_arm'}, {'upper_arm', 'elbow'}, {'upper_arm', 'forearm'},
            {'elbow', 'forearm'}, {'elbow', 'hand'}, {'forearm', 'hand'})
        fingers = sum('finger' in name for name in short)
        return short not in together and not (
            fingers and (fingers == 2 or short & {'hand', 'forearm'}))

    def nearest(self, q):
        """Return (distance in m, body, body) of the nearest pair at positions [J]."""
        self._data.qpos[self._qpos] = q
        for place, column in self._fingers:
            self._data.qpos[place] = q[column]
        mujoco.mj_kinematics(self._model, self._data)
        return min(
            (mujoco.mj_geomDistance(self._model, self._data, one, other, FARTHEST, None),
             name, name_2)
            for name, name_2, one, other in self.pairs)


def free_positions(rng, margin=STOP):
    """Return random positions [J] at which nothing is nearer than a margin, m."""
    found = Distances(model())
    while True:
        q = rng.uniform(LIMITS.lower, LIMITS.upper)
        if np.all(found.at(q) > margin):
            return q


def plan_message(stamp_ns, q, goal, seconds, points=40):
    """Return a plan along the straight line from q to goal [J], at rest at both ends."""
    rows = []
    for u in np.linspace(0.0, 1.0, points + 1)[1:]:
        place, speed = u * u * (3.0 - 2.0 * u), 6.0 * u * (1.0 - u) / seconds
        rows.append(TrajectoryPoint(
            round(u * seconds * 1e9), tuple(q + place * (goal - q)), tuple(speed * (goal - q))))
    return TrajectoryMessage(stamp_ns, JOINTS, tuple(rows))


class Arms:
    """A mux with arms that follow at once, and a leader arm that a person moves at a speed."""

    def __init__(self, q=HOME, robot=ROBOT, **settings):
        leader_map = {name: LeaderJoint(name, 1.0, 0.0, 1) for name in JOINTS}
        # However far a leader is ahead of arms that are kept off each other, they follow it.
        settings = {'teleop_max_distance': 10.0, **settings}
        self.mux = Mux(robot, MuxSettings(**settings), PERIOD, leader_map)
        self.now = 10 ** 12
        self.q, self.v = np.array(q, float), np.zeros(14)
        self.leader, self.speed = self.q.copy(), LIMITS.velocity
        self.goal = self.q.copy()
        self.executed, self.commands, self.scales = [], [], []

    @property
    def now_s(self):
        return self.now * 1e-9

    @property
    def mode(self):
        return self.mux.machine.mode

    def choose(self, mode):
        return self.mux.set_mode(mode, self.now, self.now_s)

    def begin(self, mode):
        """Let a few joint states and leader states come, and choose a mode."""
        self.run(5)
        chosen = self.choose(mode)
        assert chosen[0], chosen

    def run(self, ticks, every_tick=lambda: None):
        for _ in range(ticks):
            self.mux.take_joint_state(JOINTS, self.q, self.v, self.now, self.now, self.now_s)
            way = self.speed * PERIOD * 1e-9
            self.leader = self.leader + np.clip(self.goal - self.leader, -way, way)
            self.mux.take_leader_state(JOINTS, self.leader, self.now, self.now, self.now_s)
            every_tick()
            tick = self.mux.tick(self.now, self.now_s)
            if tick.command is not None:
                self.commands.append(tick.command)
            self.executed += tick.executed
            self.scales.append(self.mux.speed.scale)
            if tick.executed:
                self.q, self.v = tick.executed[-1][1:]
            self.now += PERIOD
