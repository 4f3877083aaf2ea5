"""How the story is shown: headings, commands with their output, and checks that count."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

_WIDTH = 118


class DemoFailedError(Exception):
    """Something that the story shows did not happen."""


class Stage:
    """Prints the story and keeps the count of what was checked."""

    def __init__(self) -> None:
        self._console = Console(width=_WIDTH, highlight=False, color_system="standard", force_terminal=True)
        self._started = time.monotonic()
        self.checks = 0

    @contextmanager
    def scene(self, title: str) -> Iterator[None]:
        """A part of the story, with the time it took."""
        started = time.monotonic()
        self._console.print()
        self._console.rule(f"[bold cyan]{title}", align="left", style="cyan")
        yield
        self._console.print(f"[dim]({time.monotonic() - started:.1f} s)")

    def tell(self, text: str) -> None:
        """A sentence for the reader."""
        self._console.print(text)

    def show(self, command: str, output: str) -> None:
        """A command and what it printed."""
        self._console.print(f"[bold]$ {command}")
        self._console.print(Text.from_ansi(output.rstrip()), soft_wrap=True)

    def check(self, claim: str, holds: bool, seen: str = "") -> None:
        """A claim of the story. Raises DemoFailedError when it does not hold."""
        self._console.print(f"[{'green' if holds else 'bold red'}]{'✓' if holds else '✗'} {claim}")
        if not holds:
            raise DemoFailedError(f"{claim}: {seen}" if seen else claim)
        self.checks += 1

    def end(self) -> None:
        """The summary, in one line."""
        took = time.monotonic() - self._started
        self._console.print()
        self._console.print(f"[bold green]demo: all {self.checks} checks held, in {took:.0f} s on the emulated node")
