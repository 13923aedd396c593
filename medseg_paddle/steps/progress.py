"""How long work says how far it is: a live bar on a terminal, plain lines in a log file."""

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
from typing_extensions import Self

from medseg_paddle.core.text import visible

_SECONDS_BETWEEN_LINES = 10.0


def say(text: str) -> None:
    """Print a line as it is: no markup, no emoji, however long."""
    Console(markup=False, emoji=False).print(visible(text), highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print a line to standard error, as :func:`say` does."""
    Console(markup=False, emoji=False, stderr=True).print(
        f"warning: {visible(text)}", highlight=False, soft_wrap=True
    )


class ProgressBar:
    """One task's progress with ETA; a context manager.

    Parameters
    ----------
    title : str
        What is being done.
    total : int
        Steps to do.
    done : int
        Steps done before.
    """

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        # The stream is taken now: while PaddleSeg trains, sys.stdout is its log file.
        # Paths and names are printed as they are, whatever brackets and colons are in them.
        self._console = Console(file=sys.stdout, markup=False, emoji=False)
        self._title, self._total, self._first = title, total, done
        self._done: float = done
        self._note = ""
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", style="bold", markup=False),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task(title, total=total, completed=done, note="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: float, note: str = "") -> None:
        """Say how many steps are done, also a part of one, and a word on them."""
        self._done, self._note = done, visible(note) or self._note
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=self._note)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES or done >= self._total:
            self._last_line = time.monotonic()
            self._console.print(
                f"{self._title} {int(done)}/{self._total} {self._note} ETA {self._eta()}",
                highlight=False,
                soft_wrap=True,
            )

    def advance(self, done: int, total: int, what: str) -> None:
        """Like :meth:`update`, for work that knows its total only when it runs."""
        self._total = total
        if self._bar is not None:
            self._bar.update(self._task, total=total)
        self.update(done, what)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        (self._bar.console if self._bar is not None else self._console).print(
            visible(text), highlight=False, soft_wrap=True
        )

    def _eta(self) -> str:
        fresh = self._done - self._first
        if fresh <= 0:
            return "-:--"
        seconds = int((time.monotonic() - self._started) / fresh * max(self._total - self._done, 0))
        return (
            f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
            if seconds >= 3600
            else f"{seconds // 60}:{seconds % 60:02}"
        )


class TrainingBar:
    """What any listener of a training shows: the look at the data, doubts, then iterations; a context manager.

    Parameters
    ----------
    title : str
        What is done before the first iteration.
    """

    def __init__(self, title: str) -> None:
        self._bar = ProgressBar(title, 1).__enter__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__(None, None, None)

    def surveyed(self, done: int, total: int, what: str) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        self._bar.advance(done, total, what)

    def doubted(self, what: str) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        self._bar.say(f"warning: {what}")

    def begin(self, title: str, total: int, done: int) -> None:
        """Show a new bar in place of the one before."""
        self._bar.__exit__(None, None, None)
        self._bar = ProgressBar(title, total, done).__enter__()
