"""Passes the pose of an operator's hand to the mux: the inverse kinematics needs no lock."""

from lingbot_va_ros.mux.mux import Mux
from lingbot_va_ros.mux.tool_messages import ToolPose
from lingbot_va_ros.mux.validation import Rejected


def take_hand(mux: Mux, pose: ToolPose, now_ns: int, now_s: float) -> str | None:
    """
    Take the pose of an operator's hand; returns None or why the arm does not follow it.

    :param now_ns: ROS time.
    :param now_s: of the watchdogs' clock.
    """
    tool = mux.sources.tool
    try:
        hand, found = tool.find(pose, mux.is_led_by(tool))
    except Rejected as rejected:
        return mux.take_refusal(tool, rejected)
    refused = mux.take_from(tool, lambda: tool.take_pose(pose, hand, found, now_ns, now_s))
    if refused is None and found is not None and found.reason:
        reach = Rejected('reach', found.reason)  # the hand is alive all the same
        mux.take_from(tool, lambda: tool.counts.note(reach))
        return found.reason
    return refused
