"""Commands that come late to a controller: followed, warned of, or a reason to hold."""

from typing import NamedTuple

import numpy as np
import pytest

from lingbot_va_ros.cli.bench.controllers import (
    BEGIN_NS,
    drive,
    EMBODIMENT,
    EVEN,
    MuxInVirtualTime,
)
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.settings import MuxSettings
from lingbot_va_ros.nodes.command_mux.outputs import LATEST_NS
from lingbot_va_ros.nodes.command_mux.parameters import PARAMETERS
from lingbot_va_ros.nodes.command_mux.publishers import reference_warning, tracking_warning
from lingbot_va_ros.sim.controllers.control_loop import ControlLoop
from lingbot_va_ros.sim.controllers.delivery import Delivery
from lingbot_va_ros.sim.controllers.settings import controller_settings
from lingbot_va_ros.sim.controllers.trajectory_controller import TrajectoryController
from lingbot_va_ros.specs.embodiment import load_embodiment

ROBOT = load_embodiment(EMBODIMENT)
JITTER = 0.001


class Outcome(NamedTuple):
    """
    Speeds of the controller's commands after 0.8 s, the mux's mode and reason, its warnings.

    `warning` is of the joint states, and `reference_warning` of the controller's own states.
    """

    speeds: np.ndarray
    mode: MuxMode
    reason: str
    warning: str
    reference_warning: str
    rejected: int


class ToldMux(MuxInVirtualTime):
    """A mux that hears the state of its controller at each tick."""

    def __init__(self, controller, *arguments):
        super().__init__(*arguments)
        self._controller = controller

    def tick(self, now_ns, positions, velocities):
        state = self._controller.state
        if state is not None:
            self.mux.take_controller_reference(
                ROBOT.joints, state.reference.positions.tolist(), state.stamp_ns)
        return super().tick(now_ns, positions, velocities)


def run(delay, servo_lag=0.03, seconds=2.0, **settings):
    """Let commands come late to a controller, and return what comes of it."""
    controller = TrajectoryController(ROBOT.joints, controller_settings('jazzy'))
    rejections = []
    loop = ControlLoop(controller, Delivery(delay, JITTER), rejections.append)
    mux = ToldMux(controller, ROBOT, NANOSECONDS // 100, MuxSettings(**settings))
    trace = drive(mux, loop, BEGIN_NS + 300_000, seconds, servo_lag)
    report = mux.report(BEGIN_NS + round(seconds * 1e9))
    return Outcome(
        trace.after(0.8).speeds()[:, EVEN], report.mode, report.reason,
        tracking_warning(report.tracking_delay, mux.settings.controller_delay),
        reference_warning(report.references_off), len(rejections))


@pytest.mark.parametrize('servo_lag', [0.0, 0.03, 0.044])
@pytest.mark.parametrize(
    'delay, unevenness', [(0.0, 0.005), (0.025, 0.005), (0.03, 0.005), (0.04, 0.02)])
def test_up_to_40_ms_the_announced_motion_bridges(delay, unevenness, servo_lag):
    outcome = run(delay, servo_lag)
    assert np.abs(outcome.speeds - 0.5).max() < unevenness
    assert outcome.mode == MuxMode.POLICY and not outcome.warning and not outcome.rejected
    assert not outcome.reference_warning


@pytest.mark.parametrize('delay', [0.07, 0.08, 0.1, 0.15])
def test_beyond_the_announced_motion_the_controller_itself_tells_that_it_is_off(delay):
    outcome = run(delay)
    assert outcome.reference_warning.startswith('controllers are off the commanded motion')
    assert 'controller_delay' in outcome.reference_warning
    assert '\n' not in outcome.reference_warning


def test_at_100_ms_the_arm_trails_and_the_mux_warns():
    outcome = run(0.1)
    assert outcome.mode == MuxMode.POLICY and not outcome.rejected
    assert 'the arm trails its commands by' in outcome.warning
    assert 'controller_delay' in outcome.warning and '\n' not in outcome.warning


@pytest.mark.parametrize('delay, settings', [
    (0.1, {'max_tracking_delay': 0.045}), (0.2, {})])
def test_an_arm_that_trails_by_more_than_the_limit_is_held(delay, settings):
    outcome = run(delay, seconds=3.0, **settings)
    assert outcome.mode == MuxMode.HOLD and not outcome.rejected
    assert outcome.reason.startswith('the arm trails its commands by')
    assert 'max_tracking_delay' in outcome.reason and 'late' in outcome.reason
    assert outcome.speeds[-1] == 0


def test_commands_that_are_very_late_find_the_arm_standing():
    outcome = run(0.4)
    assert outcome.mode == MuxMode.HOLD and 'stands still' in outcome.reason
    assert not outcome.rejected and outcome.speeds[-1] == 0


def test_a_delay_that_the_mux_knows_is_no_delay():
    outcome = run(0.1, controller_delay=0.1)
    assert np.abs(outcome.speeds - 0.5).max() < 0.005
    assert outcome.mode == MuxMode.POLICY and not outcome.warning


def test_commands_end_later_than_any_controller_delay_leads_to():
    longest, = (row.greatest for row in PARAMETERS if row.name == 'controller_delay')
    assert longest is not None and longest * NANOSECONDS < LATEST_NS
