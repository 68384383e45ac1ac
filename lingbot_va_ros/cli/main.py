"""The command line `lingbot_va`: one subcommand for each job, one module for each subcommand."""

import argparse
from collections.abc import Sequence
import importlib
import importlib.util
import sys

# Name: the line that --help shows. The module of that name, or `command.py` in the
# folder of that name, has `add_arguments(parser)` and `run(arguments) -> exit code`. It is
# imported only when the command is called, because some modules take seconds to import.
COMMANDS = {
    'demo': 'drive the simulated robot over ROS 2 and leave a report and a video',
    'eval': 'measure success, time and smoothness over seeds, schedules, memories, latencies',
    'imagine': 'imagine a video and actions from still images, open loop',
    'serve': 'serve a checkpoint to the public websocket clients',
    'train': 'train a small checkpoint from nothing: data, codec, transformer',
    'check': 'check checkpoint, policy file, embodiment and the running graph before it moves',
    'bench': 'measure the engine, a peer beside it, and the ROS path',
}


def _module_of(command: str) -> str:
    """Return the module of a command: a file of its name, or `command.py` in a folder of it."""
    module = f'lingbot_va_ros.cli.{command}'
    is_folder = importlib.util.find_spec(module).submodule_search_locations is not None
    return f'{module}.command' if is_folder else module


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that says what is wrong in one line."""

    def error(self, message: str):
        self.exit(2, f'{self.prog}: {message} (see {self.prog} --help)\n')


def main(args: Sequence[str] | None = None) -> int:
    """
    Run one subcommand and return the exit code.

    :param args: the words after the program's name; None takes those of the process.
    :raises SystemExit: after --help (code 0) and for arguments that cannot be read (code 2).
    """
    words = list(sys.argv[1:] if args is None else args)
    width = max(map(len, COMMANDS))
    parser = _Parser(
        prog='lingbot_va', usage='lingbot_va COMMAND [OPTION …]',
        description='LingBot-VA, a video-action world model, on ROS 2 arms.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='commands (each with --help):\n' + '\n'.join(
            f'  {name:{width}}  {line}' for name, line in COMMANDS.items()))
    # Options before the command are this parser's, the words behind it the command's own.
    parser.parse_args(words[:1] if words[:1] and words[0].startswith('-') else [])
    names = ', '.join(COMMANDS)
    if not words:
        parser.error(f'no command given; expected one of: {names}')
    if words[0] not in COMMANDS:
        parser.error(f'unknown command {words[0]!r}; expected one of: {names}')
    command = importlib.import_module(_module_of(words[0]))
    own = _Parser(prog=f'lingbot_va {words[0]}', description=command.__doc__.strip(),
                  formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_arguments(own)
    return command.run(own.parse_args(words[1:]))


if __name__ == '__main__':
    sys.exit(main())
