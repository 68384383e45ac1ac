"""Launches the policy and the command mux with a robot in Isaac Sim, which already runs."""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction

from lingbot_va_ros.launching.arguments import declare, IsaacArguments, read
from lingbot_va_ros.launching.nodes import command_mux, policy
from lingbot_va_ros.launching.simulators import isaac_cameras, isaac_control


def start(context: LaunchContext) -> list:
    """Return the nodes; a wrong argument or missing package ends the launch before they start."""
    arguments = read(context, IsaacArguments)
    return [
        *isaac_control(arguments), *command_mux(arguments),
        *policy(arguments, isaac_cameras(arguments))]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the nodes."""
    return LaunchDescription([*declare(IsaacArguments), OpaqueFunction(function=start)])
