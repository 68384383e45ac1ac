"""Start nodes as separate processes, detect a crash, and end all of them in any case."""

from collections.abc import Sequence
import ctypes
from dataclasses import dataclass
import os
from pathlib import Path
import re
import signal
import socket
import subprocess
import sys
import time

from lingbot_va_ros.cli.common.failure import CommandFailed
from lingbot_va_ros.resources import PACKAGE, share_folder, shared_file

# Signal, and the time for the process to end before the next signal, s.
ENDING = ((signal.SIGINT, 6.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0))
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class NodeProcess:
    """A process that runs one node, and the log file with its output."""

    name: str
    process: subprocess.Popen
    log: Path


# Modules of the nodes, as in CMakeLists.txt.
NODE_MODULES = {
    'policy_node': 'policy.node', 'command_mux': 'command_mux.node', 'sim_robot': 'sim_robot.node'}


def node_command(name: str) -> list[str]:
    """Return the command that runs a node: the installed executable, or the checkout's module."""
    share = share_folder()
    executable = share.parents[1] / 'lib' / PACKAGE / name
    if share.parent.name == 'share' and executable.is_file():
        return [str(executable)]
    return [sys.executable, '-m', f'{PACKAGE}.nodes.{NODE_MODULES[name]}']


def ros_environment(log_folder: Path) -> dict[str, str]:
    """
    Return the environment of all processes of a command.

    Variables that the user has set are kept: domain, discovery range, Fast DDS profile, log
    folder. The defaults are a free domain, and discovery limited to this machine.
    """
    environment = dict(os.environ)
    defaults = {
        'ROS_DOMAIN_ID': str(_free_domain()),
        'ROS_LOG_DIR': str(log_folder / 'ros'),
        'PYTHONUNBUFFERED': '1', 'RCUTILS_COLORIZED_OUTPUT': '0'}
    if environment.get('ROS_DISTRO') == 'humble':  # it does not know the newer variable
        defaults['ROS_LOCALHOST_ONLY'] = '1'
    else:
        defaults['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    # Jazzy's Fast DDS reads the first, Kilted's the second; a user who has set one means both.
    profiles = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
    if not any(environment.get(name) for name in profiles):
        defaults.update(dict.fromkeys(profiles, str(shared_file('config', 'fastdds_images.xml'))))
    for name, value in defaults.items():
        if not environment.get(name):
            environment[name] = value
    if share_folder().parent.name != 'share':  # a checkout, which may not be on the path
        environment['PYTHONPATH'] = os.pathsep.join(
            filter(None, [str(share_folder()), environment.get('PYTHONPATH')]))
    return environment


def _free_domain() -> int:
    """
    Return a ROS domain that no process of this machine uses.

    The first participant of a domain on a machine takes the UDP port 7410 + 250 * domain (RTPS
    2.3, 9.6.1.1). Domains up to 101 are legal everywhere: the ports of higher ones reach into
    those that Linux gives out by itself.
    """
    first = os.getpid()
    for domain in (1 + (first + step) % 101 for step in range(101)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(('', 7410 + 250 * domain))
                return domain
            except OSError:
                continue
    raise CommandFailed('no ROS domain is free on this machine; set ROS_DOMAIN_ID')


class NodeProcesses:
    """The running processes; a context manager that ends all of them."""

    def __init__(self, environment: dict[str, str], log_folder: Path):
        self._environment = environment
        self._log_folder = log_folder
        self._running: list[NodeProcess] = []

    def __enter__(self) -> 'NodeProcesses':
        self._log_folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_error) -> None:
        self.end()

    def start(self, name: str, command: Sequence[str]) -> NodeProcess:
        """Start a process; its log is `<name>.log` in the log folder."""
        log = self._log_folder / f'{name}.log'
        with open(log, 'wb') as output:
            try:
                # In a new session: Ctrl-C reaches only the parent, which ends the processes in
                # order. If the parent is killed, the kernel signals them.
                process = subprocess.Popen(
                    list(command), stdin=subprocess.DEVNULL, stdout=output,
                    stderr=subprocess.STDOUT, env=self._environment, start_new_session=True,
                    preexec_fn=_end_with_parent)
            except OSError as error:
                raise CommandFailed(f'{name} cannot be started: {error}') from error
        node = NodeProcess(name, process, log)
        self._running.append(node)
        return node

    def check(self) -> None:
        """
        Check that all processes run.

        :raises CommandFailed: one has ended; names it, how it ended, and its log.
        """
        for node in self._running:
            code = node.process.poll()
            if code is not None:
                reason = last_match(node.log, r'cannot start: (.*)')
                raise CommandFailed(
                    f'{node.name} cannot start: {reason}' if reason
                    else f'{node.name} ended unexpectedly ({_ending(code)})', node.log)

    def end(self) -> list[str]:
        """
        End all processes by SIGINT, SIGTERM and SIGKILL; return a line for each failed one.

        Ctrl-C during this call kills them at once.
        """
        lines = []
        for number, seconds in ENDING:
            alive = [node for node in self._running if node.process.poll() is None]
            for node in alive:
                if number != signal.SIGINT:
                    lines.append(f'{node.name} did not end and was sent {number.name}')
                _send(node.process, number)
            try:
                _wait_for(alive, seconds)
            except KeyboardInterrupt:
                for node in alive:
                    _send(node.process, signal.SIGKILL)
                _wait_for(alive, seconds)
                raise
        for node in self._running:
            code = node.process.poll()
            if code not in (0, None) and not any(node.name in line for line in lines):
                lines.append(f'{node.name} ended with {_ending(code)}')
        self._running.clear()
        return lines


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process, user and system, s."""
    fields = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def last_match(log: Path, pattern: str) -> str:
    """Return the last match of a pattern's group in a log, or an empty string."""
    found = re.findall(pattern, log.read_text(errors='replace')) if log.is_file() else []
    return found[-1] if found else ''


def _end_with_parent() -> None:
    """Let the kernel end this process when its parent dies (Linux)."""
    if hasattr(_LIBC, 'prctl'):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _ending(code: int) -> str:
    return f'exit code {code}' if code >= 0 else f'signal {signal.Signals(-code).name}'


def _send(process: subprocess.Popen, number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)


def _wait_for(nodes: Sequence[NodeProcess], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(node.process.poll() is None for node in nodes):
        time.sleep(0.02)
