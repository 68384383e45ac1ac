"""Progress display of a command: a panel in a terminal, plain lines elsewhere."""

import time

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from lingbot_va_ros.cli.common import interrupts

REFRESH = 0.25  # s between two updates of the panel


class ProgressDisplay:
    """
    A title, fields with their newest values, and permanent lines; a context manager.

    No thread draws the panel. Call `refresh` often; it limits the rate.
    """

    def __init__(self, title: str, console: Console | None = None):
        self.title = title
        self._console = console or Console(highlight=False)
        self._fields: dict[str, str] = {}
        self._live: Live | None = None
        self._drawn = 0.0

    def __enter__(self) -> 'ProgressDisplay':
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_error) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, line: str) -> None:
        """Print a permanent line."""
        self._console.print(escape(line), soft_wrap=True)

    def show(self, **fields: str) -> None:
        """Set fields of the panel; without a terminal, print the changed ones in one line."""
        interrupts.check()
        changed = {
            name: value for name, value in fields.items() if self._fields.get(name) != value}
        self._fields.update(changed)
        if changed and self._live is None:
            self.say(', '.join(f'{name} {value}' for name, value in changed.items()))

    def show_in_panel(self, **fields: str) -> None:
        """Set fields that change often; without a terminal they are not printed."""
        if self._live is not None:
            self._fields.update(fields)

    def refresh(self, now: bool = False) -> None:
        """Draw the panel if the last drawing is REFRESH old, or if `now` is true."""
        interrupts.check()
        if self._live is None or (time.monotonic() - self._drawn < REFRESH and not now):
            return
        self._drawn = time.monotonic()
        table = Table.grid(padding=(0, 2))
        for name, value in self._fields.items():
            table.add_row(f'[bold]{name}', escape(value))
        self._live.update(Panel(table, title=escape(self.title), expand=False), refresh=True)
