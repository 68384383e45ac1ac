"""Launches the policy and the command mux with a robot on ros2_control's mock hardware."""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction

from lingbot_va_ros.launching.arguments import declare, MockArguments, read
from lingbot_va_ros.launching.mock_hardware import mock_hardware
from lingbot_va_ros.launching.nodes import command_mux, policy


def start(context: LaunchContext) -> list:
    """Return the nodes; a wrong argument or missing package ends the launch before they start."""
    arguments = read(context, MockArguments)
    return [*mock_hardware(arguments), *command_mux(arguments), *policy(arguments)]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the nodes."""
    return LaunchDescription([*declare(MockArguments), OpaqueFunction(function=start)])
