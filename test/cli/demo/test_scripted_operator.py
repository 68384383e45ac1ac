"""The scripted operator with the real mux and the simulated robot, in virtual time."""

import numpy as np
import pytest

from lingbot_va_ros.cli.demo.scripted_operator import FAR_SIDE, Phase, ScriptedOperator, SLOW
from lingbot_va_ros.motion.plan import Plan, resting_at
from lingbot_va_ros.motion.splice import plan_from_actions
from lingbot_va_ros.motion.trajectory import TrajectoryMessage, TrajectoryPoint
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.sim.controllers import messages
from lingbot_va_ros.sim.experts import commands_along, make_expert, path_from, PERIOD
from lingbot_va_ros.sim.experts.wipe_plate import wipe_once
from lingbot_va_ros.sim.simulation import Simulation

TICK_NS = 10_000_000
AFTER = 2
BEGIN_NS = 1_000_000_000
SEED_TURNED = 2


class Workbench:
    """A robot that an expert wipes with, through the mux, and a person who watches."""

    def __init__(self, seed):
        self.simulation = Simulation(task='wipe_plate', seed=seed)
        self.simulation.time_ns = BEGIN_NS
        self.mux = Mux(self.simulation.embodiment, MuxSettings(), TICK_NS)
        self.person = ScriptedOperator(Simulation(task='wipe_plate', seed=seed), AFTER)
        commands = make_expert(self.simulation, np.random.default_rng(seed)).commands
        limits = self.simulation.embodiment.limits
        self.policy, _ = plan_from_actions(
            self.simulation.positions, commands, PERIOD, BEGIN_NS, limits.velocity)
        self.modes = [MuxMode.HOLD]

    @property
    def strokes(self):
        return self.simulation.task_state.counts['strokes']

    def tick(self):
        simulation, mux = self.simulation, self.mux
        simulation.step(TICK_NS * 1e-9)
        now_ns = simulation.time_ns
        now_s = now_ns * 1e-9
        mux.take_joint_state(
            simulation.joints, simulation.positions, simulation.velocities, now_ns, now_ns,
            now_s)
        mode = mux.report(now_s).mode
        if mode != self.modes[-1]:
            self.modes.append(mode)
        if now_ns // TICK_NS % 2 == 0:  # 50 Hz
            if mode == MuxMode.TELEOP:
                self.policy = resting_at(now_ns, simulation.positions)
            assert mux.take_policy_plan(self.message(self.policy), now_ns, now_s) is None
            self.person.strokes, self.person.mode = self.strokes, mode
            self.person.measured(simulation.positions, simulation.velocities)
            plan, wish = self.person.step(now_ns)
            if plan is not None:
                assert mux.take_teleop_plan(self.message(plan), now_ns, now_s) is None
            if wish is not None:
                mux.set_mode(wish, now_ns, now_s)
        command = mux.tick(now_ns, now_s).command
        if command is not None:
            simulation.send(messages.Trajectory(now_ns, simulation.joints, tuple(
                messages.TrajectoryPoint(int(time_ns) - now_ns, q, v)
                for time_ns, q, v in zip(
                    command.times_ns, command.positions, command.velocities)
                if time_ns > now_ns)))

    def message(self, plan: Plan):
        now_ns = self.simulation.time_ns
        times, positions, velocities = plan.remainder(now_ns, 0.02)
        return TrajectoryMessage(now_ns, self.simulation.joints, tuple(
            TrajectoryPoint(round(time * 1e9), tuple(q), tuple(v))
            for time, q, v in zip(times, positions, velocities)))

    def run_until(self, condition, seconds=15.0):
        end_ns = self.simulation.time_ns + round(seconds * 1e9)
        while not condition():
            assert self.simulation.time_ns < end_ns, (self.person.doing, self.modes, self.strokes)
            self.tick()

    def start(self):
        self.run_until(lambda: self.mux.set_mode(
            MuxMode.POLICY, self.simulation.time_ns, self.simulation.time_ns * 1e-9)[0], 1.0)


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_adds_one_stroke_and_gives_back_and_nothing_is_refused(seed):
    bench = Workbench(seed)
    bench.start()
    bench.run_until(lambda: bench.person.doing == Phase.DONE)
    assert bench.strokes == AFTER + 1
    assert bench.modes[-3:] == [MuxMode.POLICY, MuxMode.TELEOP, MuxMode.POLICY]
    assert bench.person.stroke_is_over()
    bench.run_until(lambda: np.abs(bench.simulation.velocities).max() < 0.05, 2.0)
    assert bench.strokes == AFTER + 1


def test_takes_over_only_where_strokes_end_and_the_arm_is_slow():
    bench = Workbench(3)
    bench.start()
    bench.run_until(lambda: bench.person.doing == Phase.TAKING)
    assert bench.strokes >= AFTER
    place = path_from(bench.simulation, bench.simulation.positions).start
    assert bench.simulation.scene.plate[1] - place[1] > FAR_SIDE - 0.005
    assert np.abs(bench.simulation.velocities).max() < 1.5 * SLOW


def test_begins_anew_where_the_arm_was_taken_away():
    bench = Workbench(0)
    bench.start()
    bench.run_until(lambda: bench.person.doing == Phase.WIPING)
    now_ns = bench.simulation.time_ns
    assert bench.mux.set_mode(MuxMode.HOLD, now_ns, now_ns * 1e-9)[0]
    bench.run_until(lambda: bench.person.doing == Phase.WATCHING)
    bench.policy = resting_at(now_ns, bench.simulation.positions)
    bench.start()
    bench.run_until(lambda: bench.person.doing == Phase.DONE)
    assert bench.strokes == AFTER + 1


def test_a_stroke_that_counted_before_the_arm_was_taken_away_is_enough():
    bench = Workbench(0)
    bench.start()
    bench.run_until(lambda: bench.strokes == AFTER + 1)
    assert bench.person.doing == Phase.WIPING
    now_ns = bench.simulation.time_ns
    assert bench.mux.set_mode(MuxMode.HOLD, now_ns, now_ns * 1e-9)[0]
    bench.run_until(lambda: bench.person.doing == Phase.DONE, 1.0)


def test_a_stroke_begins_where_the_arm_is_however_the_hand_is_turned():
    simulation = Simulation(task='wipe_plate', seed=SEED_TURNED)
    start = simulation.positions + [0.0, 0.0, 0.0, 0.04, 0.05, -0.06, 0.0]
    path = path_from(simulation, start)
    wipe_once(simulation.scene, path)
    commands = commands_along(simulation, path, start)
    assert np.abs(commands[0] - start).max() < 0.05
    assert np.abs(np.diff(commands, axis=0)).max() < 0.2


def test_does_nothing_before_anything_is_known():
    person = ScriptedOperator(Simulation(task='wipe_plate'), 0)
    assert person.step(BEGIN_NS) == (None, None)


def test_strokes_from_the_measured_position_if_the_mode_changes_before_its_first_plan():
    simulation = Simulation(task='wipe_plate')
    person = ScriptedOperator(simulation, 0)
    person.measured(simulation.positions, np.zeros(len(simulation.joints)))
    person.mode = MuxMode.POLICY
    assert person.step(BEGIN_NS) == (None, None)
    person.mode = MuxMode.TELEOP
    assert person.step(BEGIN_NS + TICK_NS) == (None, None)
    plan, wish = person.step(BEGIN_NS + 2 * TICK_NS)
    assert plan is not None and wish is None
    assert np.abs(plan.positions[0] - simulation.positions).max() < 0.05


def test_a_task_without_a_plate_is_refused():
    with pytest.raises(ValueError, match="task: 'table' has no plate"):
        ScriptedOperator(Simulation(task='table'), 0)
