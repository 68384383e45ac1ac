"""Launches the policy and the command mux with the simulated robot."""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction

from lingbot_va_ros.launching.arguments import declare, read, SimArguments
from lingbot_va_ros.launching.nodes import command_mux, policy, sim_robot


def start(context: LaunchContext) -> list:
    """Return the nodes; a wrong argument ends the launch before they start."""
    arguments = read(context, SimArguments)
    return [*sim_robot(arguments), *command_mux(arguments), *policy(arguments)]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the nodes."""
    return LaunchDescription([*declare(SimArguments), OpaqueFunction(function=start)])
