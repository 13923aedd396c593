"""SIGTERM and Ctrl-C: the end at once, or, while a model is trained, after the iteration. Standard library only."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from typing_extensions import Self

from medseg_paddle.errors import MedsegError

_SHOW_CURSOR = b"\x1b[?25h"


class Stopped(Exception):  # noqa: N818  (no error: it leaves a loop that knows no other way out)
    """What is called from inside a loop raises it to leave the loop."""


class StopSignals:
    """SIGTERM and SIGINT as Python exceptions; a context manager.

    A signal ends the block, with ``SystemExit(143)`` (SIGTERM) or ``KeyboardInterrupt`` (SIGINT). Inside
    :meth:`deferred` it is only noted in :attr:`wanted`, and raised when the block has ended by itself. A
    second signal ends the process at once.

    Signals that the process was started to ignore stay ignored, and outside the main thread, where
    Python hears no signals, nothing is changed.

    Parameters
    ----------
    patient : bool
        A second signal is only noted, too: for a process that another one ends, which may be told thrice (so
        `paddle.distributed.launch` does it).
    """

    def __init__(self, *, patient: bool = False) -> None:
        self._patient = patient
        self._received: int | None = None
        self._deferring = False
        self._raised = False
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    @property
    def wanted(self) -> bool:
        """Whether a signal has come."""
        return self._received is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        # What is raised amid an import of Paddle may arrive as something else, or be swallowed.
        if self.wanted and (self._raised or not isinstance(error, MedsegError)):
            raise (KeyboardInterrupt if self._received == signal.SIGINT else SystemExit(143)) from None

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a signal only be noted."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a process that loads images; it ends when the training ends it
            return
        if self.wanted:
            if self._patient:
                return
            self._end_now(number)
        self._received = number
        if not self._deferring:
            self._raised = True
            # Not KeyboardInterrupt yet: where that passes an `exec` of text, as in dataclasses, CPython 3.11
            # ends itself by the signal, whatever exit code is asked for later.
            raise SystemExit(128 + number)

    @staticmethod
    def _end_now(number: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()
        if os.isatty(1):
            os.write(1, _SHOW_CURSOR)  # a live progress bar hides it
        os._exit(128 + number)
