"""Work on many files by several processes, each a fresh program: nothing is forked.

A fork would copy threads that hold locks (Paddle's, OpenCV's, the progress bar's). The standard library's other
start methods run the user's own script again in every process. So this module is its own worker:
``python -m medseg_paddle.steps.parallel`` reads pickled work from its standard input and writes answers to its
standard output.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, TypeVar

from medseg_paddle.core.cores import available_cores
from medseg_paddle.errors import DataError, MedsegError
from medseg_paddle.io.memory import free_memory

T = TypeVar("T")
R = TypeVar("R")

# A worker is one of several: its libraries start no threads of their own.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_OF_FREE = 0.7  # of the free memory, for processes that hold volumes
_AHEAD = 4  # work given out per process beyond what is read, so that memory stays flat


def in_order(
    work: Callable[[T], R], items: Sequence[T], *, workers: int, name: Callable[[T], str] = str
) -> Generator[R, None, None]:
    """Results of `work` for all items, in their order, whoever is ready first.

    Parameters
    ----------
    work : callable
        A module's function, or a partial of one; what it takes and returns is pickled.
    items : sequence
    workers : int
        Processes; with 1 the work is done in this one.
    name : callable
        What an item is called in messages.

    Yields
    ------
    result
        Of the first item, the second, ...

    Raises
    ------
    DataError
        A process ended without an answer, for example because memory ran out.
    MedsegError
        What `work` raised for the first item, in order, that it failed for.
    """
    if workers <= 1:
        yield from map(work, items)
        return
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    started: list[_Worker] = []
    threads = ThreadPoolExecutor(workers, thread_name_prefix="worker")
    try:
        for _ in range(workers):
            started.append(_Worker(work))
            idle.put(started[-1])

        def ask(item: T) -> R:
            worker = idle.get()
            try:
                answer: R = worker.ask(item, name(item))
                return answer
            finally:
                idle.put(worker)

        waiting: list[Future[R]] = []
        upcoming = iter(items)
        for item in upcoming:
            waiting.append(threads.submit(ask, item))
            if len(waiting) >= workers * _AHEAD:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        for worker in started:
            worker.stop()
        threads.shutdown(wait=True, cancel_futures=True)


def suited_workers(files: int, size: int) -> int:
    """How many processes so much work is worth: starting one takes about as long as reading some hundred files.

    Parameters
    ----------
    files : int
    size : int
        Bytes of all files together.
    """
    if files < 400 and size < 64 << 20:
        return 1
    return available_cores()


def with_room(workers: int, each: int) -> int:
    """As many of some processes as the free memory holds, where each takes so many bytes; one at least."""
    free = free_memory()
    return max(1, workers if free is None else min(workers, int(_OF_FREE * free / each)))


class _Worker:
    """One process, and the two pipes to it."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        where = os.pathsep.join(place for place in sys.path if place)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": where},
        )
        self._work: Callable[[Any], Any] | None = work

    def ask(self, item: Any, name: str) -> Any:
        """Have one item worked on."""
        to, answers = self._process.stdin, self._process.stdout
        if to is None or answers is None:
            raise AssertionError("both are pipes")
        try:
            if self._work is not None:
                _send(to, self._work)
                self._work = None
            _send(to, item)
            good, value = pickle.load(answers)  # noqa: S301  (of our own process)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise DataError(
                f"the process that read {name} ended without an answer ({self._end()})",
                hint="memory may have run out: try `--workers 1`; if it ends again, leave this file out",
            ) from error
        if not good:
            raise value
        return value

    def stop(self) -> None:
        """End the process; what it was working on is lost."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()

    def _end(self) -> str:
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "its answer was damaged"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _send(to: BinaryIO | Any, value: Any) -> None:
    pickle.dump(value, to, protocol=pickle.HIGHEST_PROTOCOL)
    to.flush()


def serve() -> None:
    """Do what is asked for on standard input until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this process
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get among the answers
    try:
        work = pickle.load(requests)  # noqa: S301  (of our own parent)
        while True:
            item = pickle.load(requests)  # noqa: S301
            try:
                answer: tuple[bool, Any] = (True, work(item))
            except MedsegError as error:
                answer = (False, error)
            except Exception:  # noqa: BLE001  (a defect of ours: the parent shows where it was)
                answer = (False, RuntimeError(f"in a worker process:\n{traceback.format_exc()}"))
            _send(answers, answer)
    except EOFError:
        return


if __name__ == "__main__":
    serve()
