"""Settings of the mux; the node's parameters of the same names fill them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MuxSettings:
    """
    Times in seconds, distances in rad (m for prismatic joints).

    :param source_timeout: silence of a source, or age of its stamps, after which it is lost.
    :param joint_state_timeout: age of a joint's measurement after which it is lost.
    :param start_tolerance: a motion starts at the last command where the arm is this near to it.
    :param max_following_error: distance of an arm joint from its command that means HOLD; for
        joints for which the embodiment file gives none.
    :param max_rejections: rejected messages of a source in a row that mean HOLD.
    :param max_jump: a plan may begin as far away as a joint goes in this time at its velocity
        limit.
    :param emergency_stop_timeout: silence of the emergency-stop input that latches STOPPED; 0: the
        input is not supervised.
    :param home_speed: share of the velocity and acceleration limits that go_home uses.
    :param teleop_approach_speed: the same, until the arm has caught up with the teleoperation
        source.
    :param takeover_motion: motion of the teleoperation source that takes the arm from POLICY; 0:
        no motion does.
    :param takeover_rest: how long the source must have rested before.
    :param controller_delay: the longest time from a command's stamp until its controller has it.
        A stop begins so much later (in whole ticks, at least one), so that it joins the motion
        that the controller is on.
    :param max_tracking_delay: time by which the moving arm may trail its commands; more means
        HOLD.
    :param speed_scale: the operator's speed scale at first, above 0 and at most 1.
    :param full_speed_scaling: what the driver's speed scaling is at full speed.
    :param follows_driver: whether the driver tells a speed scaling, without which nothing moves.
    :param deadman_button: index of the button that some modes need pressed; -1: none.
    :param deadman_modes: names of these modes: teleop, policy.
    :param clutch_button: index of the clutch's button; -1: it is always closed.
    :param teleop_max_distance: rad or m; a leader or hand that would lead the arm further from
        where it is does not move it.
    :param teleop_leader_mode: absolute: the arm goes to where the leader is; relative: it moves as
        the leader does.
    :param teleop_pose_mode: the same for poses of hands.
    :param teleop_linear_scale: factor of twists and of the motions of hands, translations.
    :param teleop_angular_scale: the same, rotations.
    :param teleop_linear_speed: no twist is faster, m/s; the twist of a joystick at its end.
    :param teleop_angular_speed: the same, rad/s.
    """

    source_timeout: float = 0.2
    joint_state_timeout: float = 0.2
    start_tolerance: float = 0.05
    max_following_error: float = 0.35
    max_rejections: int = 10
    max_jump: float = 0.2
    emergency_stop_timeout: float = 0.0
    home_speed: float = 0.2
    teleop_approach_speed: float = 0.25
    takeover_motion: float = 0.0
    takeover_rest: float = 0.5
    controller_delay: float = 0.02
    max_tracking_delay: float = 0.08
    speed_scale: float = 1.0
    full_speed_scaling: float = 100.0
    follows_driver: bool = False
    deadman_button: int = -1
    deadman_modes: tuple[str, ...] = ('teleop',)
    clutch_button: int = -1
    teleop_max_distance: float = 1.0
    teleop_leader_mode: str = 'absolute'
    teleop_pose_mode: str = 'absolute'
    teleop_linear_scale: float = 1.0
    teleop_angular_scale: float = 1.0
    teleop_linear_speed: float = 0.25
    teleop_angular_speed: float = 1.0
