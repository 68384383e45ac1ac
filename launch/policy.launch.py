"""Launches the policy and the command mux for a real arm; its driver and cameras run elsewhere."""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction

from lingbot_va_ros.launching.arguments import Arguments, declare, read
from lingbot_va_ros.launching.nodes import command_mux, policy


def start(context: LaunchContext) -> list:
    """Return the nodes; a wrong argument ends the launch before they start."""
    arguments = read(context, Arguments)
    return [*command_mux(arguments), *policy(arguments)]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the nodes."""
    return LaunchDescription([*declare(Arguments), OpaqueFunction(function=start)])
