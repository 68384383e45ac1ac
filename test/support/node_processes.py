"""Nodes of the package as processes of their own."""

from contextlib import contextmanager
import os
import subprocess
import sys

from lingbot_va_ros.cli.common.processes import node_command
from support.warm_processes import start_warm

MUX = 'lingbot_va_ros.nodes.command_mux.node'
# Of nodes that start warm: what runs, and the modules that are imported before.
WARM = {
    'policy_node': (
        'lingbot_va_ros.nodes.policy.node',
        ('lingbot_va_ros.nodes.policy.node', 'lingbot_va_ros.policy.inference.load',
         'lingbot_va_ros.policy.inference.device')),
    'command_mux': (MUX, (MUX,))}


@contextmanager
def node_process(executable, log, *arguments, program=None, warm=True):
    """
    Run a node until the block ends; yield its process.

    :param executable: policy_node, command_mux or sim_robot.
    :param log: gets what the node prints.
    :param arguments: what follows --ros-args.
    :param program: a Python file that is run in place of the executable.
    :param warm: whether policy_node and command_mux begin with their libraries imported.
    """
    log.write_text('')
    words = ['--ros-args', *arguments]
    if warm and executable in WARM:
        module, modules = WARM[executable]
        process = start_warm(modules, program or module, words, log)
    else:
        command = node_command(executable) if program is None else [sys.executable, str(program)]
        with log.open('w') as out:
            process = subprocess.Popen(
                [*command, *words], stdout=out, stderr=subprocess.STDOUT,
                env={**os.environ, 'PYTHONUNBUFFERED': '1'})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def start_mux(log, *arguments):
    """
    Return the process of a command_mux that starts warm.

    :param log: gets what it prints.
    :param arguments: what follows --ros-args.
    """
    return start_warm(WARM['command_mux'][1], MUX, ['--ros-args', *arguments], log)
