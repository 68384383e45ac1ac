"""
Launches the policy and the command mux for a real arm; its driver and cameras run elsewhere.

On two machines: `start_policy:=false` at the robot, `start_mux:=false` where the GPU is.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction

from lingbot_va_ros.launching.arguments import declare, PolicyArguments, read
from lingbot_va_ros.launching.nodes import command_mux, policy


def start(context: LaunchContext) -> list:
    """Return the nodes; a wrong argument ends the launch before they start."""
    arguments = read(context, PolicyArguments)
    return [
        *(command_mux(arguments) if arguments.start_mux else []),
        *(policy(arguments) if arguments.start_policy else [])]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the nodes."""
    return LaunchDescription([*declare(PolicyArguments), OpaqueFunction(function=start)])
