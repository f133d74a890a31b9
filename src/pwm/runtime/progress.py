"""Progress of long work: a live bar on a terminal, plain lines in a log. Goes to stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True)


class ProgressBar:
    """Context manager; call :meth:`advance` with the steps done and a short status text.

    Args:
        description: what is going on.
        total: steps in all.
        start: steps done before (a resumed run).
        log_every: seconds between lines when stderr is no terminal.
    """

    def __init__(self, description: str, total: int, start: int = 0, log_every: float = 15.0):
        self.description, self.total, self.done = description, total, start
        self.log_every = log_every
        self._status = ""
        self._begin = self._last = time.monotonic()
        self._first = start
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
                TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[status]}"),
                console=console,
            )  # fmt: skip
            self._task = self._bar.add_task(description, total=total, completed=start, status="")

    def __enter__(self) -> ProgressBar:
        if self._bar is not None:
            self._bar.start()
        return self

    def rate(self) -> float:
        """Steps a second since the start of this process."""
        return (self.done - self._first) / max(time.monotonic() - self._begin, 1e-9)

    def advance(self, steps: int = 1, status: str | None = None) -> None:
        self.done += steps
        if status is not None:
            self._status = status
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, status=self._status)
        elif time.monotonic() - self._last >= self.log_every or self.done >= self.total:
            self._last = time.monotonic()
            self._print_line()

    def _print_line(self) -> None:
        left = (self.total - self.done) / max(self.rate(), 1e-9)
        print(
            f"{self.description}: {self.done}/{self.total} "
            f"({self.rate():.1f}/s, {left:.0f} s left) {self._status}",
            file=sys.stderr,
            flush=True,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def say(text: str) -> None:
    """A line for the person in front of the command; stdout stays free for results."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
