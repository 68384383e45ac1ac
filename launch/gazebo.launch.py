"""Launches the policy and the command mux with the simulated robot in Gazebo Sim."""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction

from lingbot_va_ros.launching.arguments import declare, GazeboArguments, read
from lingbot_va_ros.launching.nodes import command_mux, policy
from lingbot_va_ros.launching.simulators import gazebo


def start(context: LaunchContext) -> list:
    """Return the nodes; a wrong argument or missing package ends the launch before they start."""
    arguments = read(context, GazeboArguments)
    return [*gazebo(arguments), *command_mux(arguments), *policy(arguments)]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the nodes."""
    return LaunchDescription([*declare(GazeboArguments), OpaqueFunction(function=start)])
