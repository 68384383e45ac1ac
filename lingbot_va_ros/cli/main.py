"""The command line `lingbot_va`: one subcommand for each job, one module for each subcommand."""

import argparse
from collections.abc import Sequence
import importlib
import importlib.util
import sys
from typing import NoReturn

from lingbot_va_ros.cli.common import interrupts
from lingbot_va_ros.cli.common.failure import CommandFailed, one_line

# Name: the line that --help shows. A module of that name, or `command.py` in the folder of that
# name, has `add_arguments(parser)` and `run(arguments) -> exit code`. It is imported only when
# the command is called, because some modules take seconds to import.
COMMANDS = {
    'demo': 'run episodes on the simulated robot over ROS 2; write a report and a video',
    'eval': 'measure success rate, episode time and smoothness on the simulated tasks',
    'imagine': 'predict a video and actions from still images, open loop',
    'serve': 'serve a checkpoint to the public websocket clients',
    'train': 'train a small checkpoint from scratch: data, video VAE, transformer',
    'check': 'check checkpoint, policy file, embodiment and the running ROS graph',
    'bench': 'measure the engine, the public implementation beside it, and the ROS path',
}
INTERRUPTED = 'interrupted; all processes have ended and no half-written file is left'


def _module_of(command: str) -> str:
    """Return the module of a command: a file of its name, or `command.py` in a folder of it."""
    module = f'lingbot_va_ros.cli.{command}'
    spec = importlib.util.find_spec(module)
    is_folder = spec is not None and spec.submodule_search_locations is not None
    return f'{module}.command' if is_folder else module


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'{self.prog}: {message} (see {self.prog} --help)\n')


def main(args: Sequence[str] | None = None) -> int:
    """
    Run one subcommand and return its exit code: 130 after Ctrl-C, SIGTERM or SIGHUP.

    :param args: the arguments after the program's name; None takes those of the process.
    :raises SystemExit: after --help (code 0) and for arguments that cannot be parsed (code 2).
    """
    words = list(sys.argv[1:] if args is None else args)
    width = max(map(len, COMMANDS))
    parser = _Parser(
        prog='lingbot_va', usage='lingbot_va COMMAND [OPTION …]',
        description='LingBot-VA, a video-action world model, on ROS 2 arms.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='commands (each with --help):\n' + '\n'.join(
            f'  {name:{width}}  {line}' for name, line in COMMANDS.items()))
    # Options before the command belong to this parser, those behind it to the command.
    parser.parse_args(words[:1] if words[:1] and words[0].startswith('-') else [])
    names = ', '.join(COMMANDS)
    if not words:
        parser.error(f'no command given; expected one of: {names}')
    if words[0] not in COMMANDS:
        parser.error(f'unknown command {words[0]!r}; expected one of: {names}')
    with interrupts.recorded():
        code = _run(words[0], words[1:])
        if args is not None:
            return code
    interrupts.leave_at_next_signal(code)
    return code


def _run(name: str, words: Sequence[str]) -> int:
    """Run a command and return its exit code, also after an exception or a signal."""
    try:
        command = importlib.import_module(_module_of(name))
        parser = _Parser(
            prog=f'lingbot_va {name}', description=(command.__doc__ or '').strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter)
        command.add_arguments(parser)
        code = command.run(parser.parse_args(words))
        interrupts.end()
    except BaseException as error:
        interrupts.end()
        if interrupts.received() or isinstance(error, KeyboardInterrupt):
            code = interrupts.EXIT_CODE
        elif isinstance(error, CommandFailed | ValueError | OSError):
            code = _report(name, error)
        else:
            raise
    if interrupts.received():
        code = interrupts.EXIT_CODE
    if code == interrupts.EXIT_CODE:
        interrupts.forget_interrupted_exec()
        print(f'lingbot_va {name}: {INTERRUPTED}', file=sys.stderr)
    return code


def _report(name: str, error: Exception) -> int:
    """Print the reason of a failure and the end of its log; return the exit code."""
    print(f'lingbot_va {name}: {one_line(error)}', file=sys.stderr)
    if not isinstance(error, CommandFailed):
        return 1
    if error.log is not None:
        print(f'the end of {error.log}:', file=sys.stderr)
        for line in error.last_lines:
            print(f'  {line}', file=sys.stderr)
    return error.exit_code


if __name__ == '__main__':
    sys.exit(main())
