"""Nodes of the package as processes of their own."""

from contextlib import contextmanager
import os
import subprocess

from lingbot_va_ros.cli.common.processes import node_command


@contextmanager
def node_process(executable, log, *arguments):
    """
    Run a node until the block ends; yield its process.

    :param executable: policy_node, command_mux or sim_robot.
    :param log: gets what the node prints.
    :param arguments: what follows --ros-args.
    """
    with log.open('w') as out:
        process = subprocess.Popen(
            [*node_command(executable), '--ros-args', *arguments],
            stdout=out, stderr=subprocess.STDOUT, env={**os.environ, 'PYTHONUNBUFFERED': '1'})
        try:
            yield process
        finally:
            process.kill()
            process.wait()
