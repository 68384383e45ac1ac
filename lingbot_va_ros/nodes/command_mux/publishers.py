"""The publishers of mode and diagnostics."""

from collections import deque
import math
import threading
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.msg import ControlMode
from lingbot_va_ros.mux.collision_watch import TooNear
from lingbot_va_ros.mux.modes import MuxMode
from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.reference_watch import LEAST_SHARE
from lingbot_va_ros.mux.report import Report
from lingbot_va_ros.mux.validation import REJECTION_KINDS
from lingbot_va_ros.mux.workspace import Breach
from lingbot_va_ros.nodes.command_mux.clocks import Clocks
from lingbot_va_ros.nodes.command_mux.latched_stop import LatchedStop
from lingbot_va_ros.nodes.joint_state_watch import JointStateWatch
from lingbot_va_ros.nodes.qos import EVENTS, LATCHED

# Time window of the statistics of command lateness, s.
LATENESS_SECONDS = 10
# Diagnostics come once a second; a change of the mode is seen within this time, s.
DIAGNOSTICS_SECONDS, LOOK_SECONDS = 1.0, 0.1
# Least time between two log lines about publishers and clocks, s.
WARN_SECONDS = 10.0
# An arm that trails its commands by `controller_delay` and this, s, is worth a warning. The servos
# of most arms lag by 20 to 40 ms.
TRACKING_MARGIN = 0.025


class ModePublisher:
    """Publishes the mode whenever it changes, and keeps a latched stop; for any thread."""

    def __init__(self, node: Node, mux: Mux, latched_stop: LatchedStop) -> None:
        self.published: tuple[MuxMode, str] | None = None
        self._mux = mux
        self._latched_stop = latched_stop
        self._lock = threading.Lock()
        self._clock = node.get_clock()
        self._logger = node.get_logger()
        self._publisher = node.create_publisher(ControlMode, '~/mode', LATCHED)

    def publish(self) -> None:
        """Publish the mode if it changed since the last message."""
        # The mode is read under the lock, so that the newest message has the newest mode.
        with self._lock:
            mode, reason = self._mux.machine.state
            if (mode, reason) == self.published:
                return
            was_stopped = self.published is not None and self.published[0] == MuxMode.STOPPED
            if mode == MuxMode.STOPPED and not was_stopped:
                self._latched_stop.write(reason)
            elif was_stopped and mode != MuxMode.STOPPED:
                self._latched_stop.clear()
            message = ControlMode()
            message.header.stamp = self._clock.now().to_msg()
            message.mode, message.reason = int(mode), reason
            self._publisher.publish(message)
            self.published = (mode, reason)
        self._logger.info(f'{mode.name}: {reason}')


class DiagnosticsPublisher:
    """
    Publishes /diagnostics once a second, and whenever mode or reason changed.

    :param hardware: name of the embodiment.
    :param watch: watches the publishers of joint_states.
    """

    def __init__(
        self, node: Node, mux: Mux, modes: ModePublisher, clocks: Clocks, hardware: str,
        watch: JointStateWatch,
    ) -> None:
        self._watch = watch
        self._logger = node.get_logger()
        self._mux = mux
        self._modes = modes
        self._clocks = clocks
        self._hardware = hardware
        self._name = f'{node.get_fully_qualified_name().lstrip("/")}: mode'
        self._clock = node.get_clock()
        self._lateness: deque[float] = deque(
            maxlen=round(LATENESS_SECONDS * NANOSECONDS / mux.period_ns))
        self._last: tuple[MuxMode, str] | None = None
        self._last_s = -math.inf
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', EVENTS)
        node.create_timer(
            LOOK_SECONDS, self._publish_due, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def add_lateness(self, seconds: float) -> None:
        """Add the time from a tick until its command was published; for any thread."""
        self._lateness.append(seconds)

    def _publish_due(self) -> None:
        now = time.monotonic()
        due = now - self._last_s >= DIAGNOSTICS_SECONDS - LOOK_SECONDS / 2
        if self._last == self._modes.published and not due:
            return
        self._last, self._last_s = self._modes.published, now
        now_s = self._clocks.now_s()
        report = self._mux.report(now_s)
        warnings = self._watch.warnings(
            report.joint_states, now_s, self._clocks.is_simulated)
        trailing = tracking_warning(
            report.tracking_delay, self._mux.settings.controller_delay)
        late = reference_warning(report.references_off)
        warnings += filter(None, (trailing, late))
        for line in warnings:
            self._logger.warning(line, throttle_duration_sec=WARN_SECONDS)
        status = DiagnosticStatus()
        status.name = self._name
        status.hardware_id = self._hardware
        status.message = f'{report.mode.name}: {report.reason}'
        status.level = _level(report, warnings)
        status.values = [
            KeyValue(key=key, value=str(value))
            for key, value in {
                **_values(report), **self._watch.values(report.joint_states, now_s),
                **self._lateness_values()}.items()]
        message = DiagnosticArray()
        message.header.stamp = self._clock.now().to_msg()
        message.status = [status]
        self._publisher.publish(message)

    def _lateness_values(self) -> dict[str, str]:
        late_ms = np.array(self._lateness or [0.0]) * 1e3
        return {
            'command_late_ms_p50': f'{np.percentile(late_ms, 50):.3f}',
            'command_late_ms_p99': f'{np.percentile(late_ms, 99):.3f}',
            'command_late_ms_max': f'{late_ms.max():.3f}',
        }


def tracking_warning(seconds: float, controller_delay: float) -> str:
    """
    Return in one line that the arm trails its commands, or an empty text.

    :param seconds: by which it does; nan: unknown.
    :param controller_delay: the longest time that a command is expected to take, s.
    """
    if not seconds > controller_delay + TRACKING_MARGIN:
        return ''
    return (f'the arm trails its commands by {seconds * 1e3:.0f} ms: raise controller_delay '
            f'({controller_delay * 1e3:g} ms) where commands come late to the controller')


def reference_warning(share: float) -> str:
    """
    Return in one line that controllers leave the commanded motion, or an empty text.

    :param share: of their last references that were off it.
    """
    if share < LEAST_SHARE:
        return ''
    return (f'controllers are off the commanded motion in {100 * share:.0f} % of their states: '
            'raise controller_delay where commands come late, or find who else commands them')


def _level(report: Report, warnings: list[str]) -> bytes:
    level = DiagnosticStatus.OK
    if report.sources.rejected_in_row or report.is_fault or report.blocked or warnings:
        level = DiagnosticStatus.WARN
    if report.mode == MuxMode.STOPPED:
        level = DiagnosticStatus.ERROR
    return level


def _values(report: Report) -> dict[str, object]:
    return {
        'mode': report.mode.name,
        'reason': report.reason,
        'source_age_s': f'{report.sources.age:.3f}',
        'teleop_age_s': f'{report.sources.teleop_age:.3f}',
        'joint_state_age_s': f'{report.joint_states.age:.3f}',
        **{f'joint_state_refused_{kind}': count
           for kind, count in report.joint_states.refused.items()},
        'tracking_delay_ms': (
            '' if math.isnan(report.tracking_delay)
            else f'{report.tracking_delay * 1e3:.1f}'),
        'controllers_off_command': f'{report.references_off:.2f}',
        'joint_state_last_refusal': report.joint_states.last_refusal,
        'joint_state_contradictions': '; '.join(report.joint_states.contradictions),
        'accepted': report.sources.accepted,
        **{f'rejected_{kind}': report.sources.rejected.get(kind, 0) for kind in REJECTION_KINDS},
        'rejected_in_row': report.sources.rejected_in_row,
        'last_rejection': report.sources.last_rejection,
        'teleop_accepted': report.sources.teleop_accepted,
        **{f'teleop_rejected_{kind}': report.sources.teleop_rejected.get(kind, 0)
           for kind in REJECTION_KINDS},
        'teleop_last_rejection': report.sources.teleop_last_rejection,
        'teleop_note': report.sources.teleop_note,
        'teleop_side': report.teleop_side,
        'skipped_ticks': report.skipped_ticks,
        'workspace': (
            f'kept inside: {report.blocked}' if isinstance(report.blocked, Breach) else 'inside'),
        'workspace_blocked_ticks': report.blocked_ticks['workspace'],
        'collision': f'kept apart: {report.blocked}' if isinstance(
            report.blocked, TooNear) else 'far enough',
        'collision_blocked_ticks': report.blocked_ticks['collision'],
        'nearest_pair': ' and '.join(report.nearest.bodies) if report.nearest else '',
        'nearest_distance_m': f'{report.nearest.distance:.4f}' if report.nearest else '',
    }
