"""The exception that ends a command with one line."""

from pathlib import Path


class CommandFailed(Exception):
    """
    The command has failed; the message is one line.

    :param log: a log file with details; its last lines are kept as they are now.
    :param exit_code: of the process, 2 where the arguments are wrong.
    """

    def __init__(self, message: str, log: Path | None = None, exit_code: int = 1):
        super().__init__(message)
        self.log = log
        self.last_lines = [] if log is None else last_lines(log)
        self.exit_code = exit_code


def last_lines(log: Path, count: int = 10) -> list[str]:
    """Return the last lines of a log file that are not empty."""
    text = log.read_text(errors='replace') if log.is_file() else ''
    return [line for line in text.splitlines() if line.strip()][-count:]


def one_line(error: BaseException | str) -> str:
    """Return an error's message with its lines joined by semicolons."""
    return '; '.join(line.strip() for line in str(error).splitlines() if line.strip())
