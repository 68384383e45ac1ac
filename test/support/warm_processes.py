"""
Processes of nodes that begin with their libraries imported.

Importing PyTorch and diffusers takes 4 s of a core, and the tests start dozens of nodes. One
process for each list of modules imports them once and forks for every node. The tests of launch
files, commands and installed executables start nodes as users do.
"""

import atexit
import contextlib
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading

_templates: dict[tuple[str, ...], 'Template'] = {}


class WarmProcess:
    """A forked process, with the methods of subprocess.Popen that tests use."""

    def __init__(self, template, pid):
        self._template, self.pid = template, pid

    @property
    def returncode(self):
        """Exit code, or minus the number of the signal; None while it runs."""
        return self._template.ended.get(self.pid)

    def poll(self):
        """Return `returncode`."""
        return self.returncode

    def wait(self, timeout=None):
        """
        Return the exit code when the process has ended.

        :raises subprocess.TimeoutExpired: it runs on after so many seconds.
        """
        with self._template.changed:
            if not self._template.changed.wait_for(lambda: self.returncode is not None, timeout):
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self.returncode

    def send_signal(self, number):
        """Send a signal, unless the process has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it ends just now
                os.kill(self.pid, number)

    def kill(self):
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


class Template:
    """A process that has imported modules, and forks for every node."""

    def __init__(self, modules):
        self.ended: dict[int, int] = {}
        self.changed = threading.Condition()
        self._started: list[int] = []
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__, *modules], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True)
        threading.Thread(target=self._listen, daemon=True).start()
        atexit.register(self._process.kill)

    def start(self, what, arguments, log):
        """
        Run `main` of a module, or a Python file, in a new process.

        :param log: gets what the process prints.
        """
        environment = {**os.environ, 'PYTHONUNBUFFERED': '1'}
        with self._lock:
            count = len(self._started)
            self._process.stdin.write(json.dumps(
                [str(what), list(arguments), environment, str(log)]) + '\n')
            self._process.stdin.flush()
            with self.changed:
                assert self.changed.wait_for(lambda: len(self._started) > count, 120.0), what
        return WarmProcess(self, self._started[count])

    def _listen(self):
        for line in self._process.stdout:
            pid, code = json.loads(line)
            with self.changed:
                if code is None:
                    self._started.append(pid)
                else:
                    self.ended[pid] = code
                self.changed.notify_all()


def start_warm(modules, what, arguments, log):
    """Return a process whose template has imported these modules; see `Template.start`."""
    key = tuple(modules)
    if key not in _templates:
        _templates[key] = Template(key)
    return _templates[key].start(what, arguments, log)


def _serve(modules):
    """Import the modules, then fork for every line of stdin; return in the new process."""
    import gc
    import importlib
    import select

    gc.disable()  # modules stay in memory
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    gc.enable()
    answers = os.dup(1)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for pytest

    def answer(pid, code):
        os.write(answers, (json.dumps([pid, code]) + '\n').encode())

    pending = b''
    while True:
        readable, _, _ = select.select([0, wake], [], [])
        if wake in readable:
            os.read(wake, 4096)
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if pid == 0:
                    break
                answer(pid, os.waitstatus_to_exitcode(status))
        if 0 in readable:
            data = os.read(0, 1 << 20)
            if not data:
                os._exit(0)
            pending += data
            while b'\n' in pending:
                line, pending = pending.split(b'\n', 1)
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                    for number in (answers, wake, woken):
                        os.close(number)
                    return json.loads(line)
                answer(pid, None)


def _run(what, arguments, environment, log):
    """Become the process that was asked for."""
    import importlib
    import runpy

    os.environ.clear()
    os.environ.update(environment)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    sys.argv = [what, *arguments]
    if Path(what).suffix == '.py':
        runpy.run_path(what, run_name='__main__')
    else:
        sys.exit(importlib.import_module(what).main())


if __name__ == '__main__':
    # Python puts this file's folder first, whose modules are no part of a node.
    sys.path.pop(0)
    _run(*_serve(sys.argv[1:]))
