"""
Settings of the simulated joint_trajectory_controller (JTC), and what differs between its releases.

Sources: ros2_controllers (branches humble, jazzy, kilted, master of August 2026) and
ur_controllers of Universal_Robots_ROS2_Driver (branches humble and jazzy).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from lingbot_va_ros.motion.time import NANOSECONDS


class Replacement(Enum):
    """
    How a new message replaces the trajectory that runs.

    IMMEDIATE: from the next update on; its points keep their times.
    DEFERRED: the same, but a stamp in the future waits for its time while the old one runs
        (JTC 6.8 and 6.9 with `allow_trajectory_replacement`).
    SPLICED: joined with the old trajectory. A stamp in the past counts as the time of the update
        that takes the message (JTC after 6.9 with `allow_trajectory_replacement`).
    """

    IMMEDIATE = 'immediate'
    DEFERRED = 'deferred'
    SPLICED = 'spliced'


@dataclass(frozen=True)
class ControllerSettings:
    """
    Settings of a JTC with position commands; names in parentheses are the JTC's parameters.

    Tolerances are rad (metres for prismatic joints), 0: none. They hold for every joint.

    :param rate: updates a second (`update_rate`).
    :param looks_ahead: an update at t commands what the trajectory has one period later, and
        stores it as the last command with the time t. False (Humble): what it has at t.
    :param joins_last_command: a new message is joined from the last command
        (`interpolate_from_desired_state`; Humble: `open_loop_control`), else from the measured
        state.
    :param has_speed_scaling: trajectory time advances by the speed scaling factor.
    :param replacement: see `Replacement`.
    :param commands_velocity: the velocity is commanded too (`command_interfaces`). Only then are
        errors of velocity computed, and `stopped_velocity_tolerance` has an effect.
    :param trajectory_tolerance: largest error on the way (`constraints.<joint>.trajectory`).
    :param goal_tolerance: largest error at the end (`constraints.<joint>.goal`).
    :param stopped_velocity_tolerance: largest error of velocity at the end, rad/s.
    :param goal_time: seconds after the end by which the goal tolerances must hold; 0: no limit.
    :param allow_partial_joints_goal: a message may name some of the joints; the others hold their
        last command.
    :param allow_nonzero_velocity_at_trajectory_end: the last velocities may differ from 0.
    """

    rate: float = 500.0
    looks_ahead: bool = True
    joins_last_command: bool = True
    has_speed_scaling: bool = True
    replacement: Replacement = Replacement.IMMEDIATE
    commands_velocity: bool = False
    trajectory_tolerance: float = 0.0
    goal_tolerance: float = 0.0
    stopped_velocity_tolerance: float = 0.01
    goal_time: float = 0.0
    allow_partial_joints_goal: bool = False
    allow_nonzero_velocity_at_trajectory_end: bool = False

    @property
    def period_ns(self) -> int:
        """Return the time between two updates in whole nanoseconds."""
        return int(NANOSECONDS / self.rate)


# The JTC of each distribution, and Universal Robots' scaled JTC with the tolerances of its driver.
# Not the defaults: `joins_last_command` is false in all of them; command_mux asks for true.
_DIFFERENCES: dict[str, Mapping[str, Any]] = {
    'humble': {'looks_ahead': False, 'has_speed_scaling': False},
    'jazzy': {},
    'kilted': {},
    'rolling': {'replacement': Replacement.SPLICED},
    'ur_scaled': {
        'trajectory_tolerance': 0.2, 'goal_tolerance': 0.1, 'stopped_velocity_tolerance': 0.2},
}
CONTROLLERS = tuple(_DIFFERENCES)


def controller_settings(controller: str, **changes: Any) -> ControllerSettings:
    """
    Return the settings of a controller.

    :param controller: one of CONTROLLERS.
    :param changes: fields of ControllerSettings that differ.
    :raises ValueError: the controller is unknown, or its rate is not positive.
    """
    if controller not in _DIFFERENCES:
        raise ValueError(
            f"controller: '{controller}' is unknown; expected one of {', '.join(CONTROLLERS)}")
    settings = replace(ControllerSettings(), **{**_DIFFERENCES[controller], **changes})
    if not settings.rate > 0:
        raise ValueError(f'controller_rate: {settings.rate:g} Hz; expected more than 0')
    return settings
