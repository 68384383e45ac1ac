"""What a mux gives: the messages of a tick, and its figures for diagnostics."""

from dataclasses import dataclass, field

import numpy as np

from lingbot_va_ros.motion.plan import Plan
from lingbot_va_ros.mux.command_sources import SourcesReport
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.state_watch import AnyBreach
from lingbot_va_ros.robot.collision import Near
from lingbot_va_ros.robot.joint_state_filter import JointStateReport


@dataclass(frozen=True)
class Row:
    """
    The state of a motion at one moment, for controllers that take no trajectories.

    :param time_ns: ROS time at which it is due, that of its tick.
    :param positions, velocities: [J], rad and rad/s (m, m/s).
    :param rates: [J] velocities to drive with: those of the motion, and what leads the measured
        joint back onto it; exactly 0 at rest.
    """

    time_ns: int
    positions: np.ndarray
    velocities: np.ndarray
    rates: np.ndarray


@dataclass(frozen=True)
class Tick:
    """
    The messages to send at one tick.

    :param command: the command, or None.
    :param executed: points that the arm executes by the end of this tick: due time in ns of ROS
        time, positions [J], velocities [J].
    :param moves: whether the command belongs to a motion; false for a stop.
    :param row: for controllers without trajectories, as long as there is anything to send them.
    """

    command: Plan | None = None
    executed: list[tuple[int, np.ndarray, np.ndarray]] = field(default_factory=list)
    moves: bool = False
    row: Row | None = None


@dataclass(frozen=True)
class Report:
    """
    Figures of a mux for diagnostics; ages in seconds, inf where nothing ever came.

    :param teleop_side: of the arm that the joystick leads.
    :param tracking_delay: time by which the arm trails its commands, s; nan: unknown.
    :param references_off: share of the controllers' last references that were off the command.
    """

    mode: MuxMode
    reason: str
    is_fault: bool
    sources: SourcesReport
    teleop_side: str
    joint_states: JointStateReport
    tracking_delay: float
    references_off: float
    skipped_ticks: int
    blocked: AnyBreach | None
    blocked_ticks: dict[str, int]  # by kind of breach
    nearest: Near | None
