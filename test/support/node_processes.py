"""Nodes of the package as processes of their own."""

from contextlib import contextmanager
import os
import subprocess
import sys

from lingbot_va_ros.cli.common.processes import node_command


@contextmanager
def node_process(executable, log, *arguments, program=None):
    """
    Run a node until the block ends; yield its process.

    :param executable: policy_node, command_mux or sim_robot.
    :param log: gets what the node prints.
    :param arguments: what follows --ros-args.
    :param program: a Python file that is run in place of the executable.
    """
    command = node_command(executable) if program is None else [sys.executable, str(program)]
    with log.open('w') as out:
        process = subprocess.Popen(
            [*command, '--ros-args', *arguments],
            stdout=out, stderr=subprocess.STDOUT, env={**os.environ, 'PYTHONUNBUFFERED': '1'})
        try:
            yield process
        finally:
            process.kill()
            process.wait()
