"""Batches of training images: loaded beside the training, handed to it as Paddle's tensors."""

from __future__ import annotations

import contextlib
import gc
import mmap
import multiprocessing
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import cv2
import numpy as np
import paddle
from numpy.typing import NDArray

from medseg_paddle.engine.shared_memory import AHEAD
from medseg_paddle.errors import MedsegError, MemoryShortError, SetupError

# While a training runs, its name in Paddle stands for what loads from here.
_PaddleLoader = paddle.io.DataLoader
_ALIGNMENT = 64
_PATIENCE = 10  # seconds until a process whose pipe is closed has ended
_NAMED = 8  # images of a batch in a message

Allocate = Callable[[str, tuple[int, ...], Any], NDArray[Any]]
"""Name, shape and dtype of an array of a batch -> the array to write to."""


class Stream(Protocol):
    """What serves images; see :func:`medseg_paddle.engine.streams.training_stream`."""

    def batch(self, positions: Sequence[int], allocate: Allocate) -> dict[str, NDArray[Any]]:
        """Return the batch of these positions, in arrays from `allocate`."""

    def names(self, positions: Sequence[int]) -> Sequence[str]:
        """What a message calls the images of these positions."""


@dataclass(frozen=True)
class _Written:
    """An array in a room."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _Room:
    """Memory for one batch."""

    def __init__(self, memory: Any) -> None:
        self._memory, self._size = memory, len(memory)
        self._written: dict[str, _Written] = {}
        self._end = 0

    def empty(self) -> None:
        """Make it free for the next batch."""
        self._written, self._end = {}, 0

    def allocate(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An array in it, or of its own if it does not fit: where sizes are drawn, none is the largest."""
        written = _Written(self._end, shape, np.dtype(dtype))
        end = self._end + int(np.prod(shape)) * written.dtype.itemsize
        if end > self._size:
            return np.empty(shape, dtype)
        self._written[name], self._end = written, -(-end // _ALIGNMENT) * _ALIGNMENT
        return self.array(written)

    def array(self, written: _Written) -> NDArray[Any]:
        count = int(np.prod(written.shape))
        return np.frombuffer(self._memory, written.dtype, count, written.offset).reshape(written.shape)

    def described(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, _Written | NDArray[Any]]:
        """What another process needs to have the batch."""
        return {name: self._written.get(name, array) for name, array in batch.items()}


class _Here:
    """Batches loaded by the thread that asks for them."""

    def __init__(self, stream: Stream, orders: Iterator[Sequence[int]], room_bytes: int) -> None:
        self._stream, self._orders = stream, orders
        self._room = _Room(bytearray(room_bytes))

    def __next__(self) -> dict[str, NDArray[Any]]:
        self._room.empty()
        return self._stream.batch(next(self._orders), self._room.allocate)

    def end(self) -> None:
        """Nothing is left to end."""


class _Processes:
    """Batches loaded by processes, each up to two ahead, in order.

    They pass images on in memory that is mapped before they start and belongs to no file: however small
    /dev/shm is, and however the training ends, there is nothing that overflows or is left.
    """

    def __init__(
        self, stream: Stream, orders: Iterator[Sequence[int]], room_bytes: int, num_workers: int
    ) -> None:
        self._orders, self._sent, self._received = orders, 0, 0
        size = -(-room_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = memoryview(mmap.mmap(-1, size * AHEAD * num_workers))
        self._rooms = [_Room(memory[start : start + size]) for start in range(0, len(memory), size)]
        self._stream, self._asked = stream, deque[Sequence[int]]()
        self._pipes: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []
        # The thread that reads asks how a process ended, and the training ends them all: only one may wait for one.
        self._waiting = threading.Lock()
        forking = multiprocessing.get_context("fork")  # the stream, with what it has decoded, is not copied
        for number in range(num_workers):
            ours, theirs = forking.Pipe()
            self._pipes.append(ours)
            process = forking.Process(
                target=_work,
                args=(stream, self._rooms, theirs, self._pipes),
                name=f"images-{number}",
                daemon=True,
            )
            with _no_collection():
                process.start()
            self._processes.append(process)
            theirs.close()
        for _ in self._rooms:
            self._order()

    def __next__(self) -> dict[str, NDArray[Any]]:
        if self._received:
            self._order()  # whoever asks has copied the batch before; its room is free
        if self._received == self._sent:
            raise StopIteration
        room = self._rooms[self._received % len(self._rooms)]
        try:
            answer = self._pipe(self._received).recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        self._asked.popleft()
        self._received += 1
        if isinstance(answer, Exception):
            raise answer
        return {
            name: room.array(array) if isinstance(array, _Written) else array
            for name, array in answer.items()
        }

    def end(self) -> None:
        """End the processes; they hold nothing that a kill could damage."""
        for process in self._processes:
            process.kill()
        with self._waiting:
            for process in self._processes:
                process.join()
                process.close()  # else its file descriptors stay until a collection of garbage
            self._processes.clear()
        for pipe in self._pipes:
            pipe.close()

    def _lost(self) -> SetupError:
        """Why there is no answer to the oldest order; a process takes its orders one after another."""
        with self._waiting:
            if not self._processes:
                raise StopIteration  # they have all been ended, on purpose
            process = self._processes[self._received % len(self._processes)]
            process.join(_PATIENCE)
            return _ended(process.exitcode, self._stream.names(self._asked[0]))

    def _order(self) -> None:
        positions = next(self._orders, None)
        if positions is None:
            return
        self._asked.append(positions)
        number, self._sent = self._sent, self._sent + 1
        with contextlib.suppress(OSError):  # a process that was killed is noticed where its answer is read
            self._pipe(number).send((number % len(self._rooms), positions))

    def _pipe(self, number: int) -> Connection:
        return self._pipes[number % len(self._pipes)]


def _ended(exit_code: int | None, images: Sequence[str]) -> SetupError:
    """The error for a process that is gone, by how it ended (`Process.exitcode`) and what it had to load."""
    listed = ", ".join(images[:_NAMED]) + (
        f" and {len(images) - _NAMED} more" if len(images) > _NAMED else ""
    )
    if exit_code == -signal.SIGKILL:
        return MemoryShortError(
            f"a process that loads images was killed (signal 9) while it had to load {listed}",
            hint="the system does so where memory runs out: give the machine or the container more, or set a lower "
            "num_workers",
        )
    if exit_code is not None and exit_code < 0:
        how = f"crashed (signal {-exit_code}, {signal.strsignal(-exit_code)})"
    else:
        how = f"ended (exit code {exit_code})"
    return SetupError(
        f"a process that loads images {how} while it had to load {listed}",
        hint="this is no lack of memory: see whether these images open in a viewer, and export again what does not",
    )


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Python's garbage stays where it is, here and in a process that is forked meanwhile."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _work(stream: Stream, rooms: Sequence[_Room], pipe: Connection, inherited: Sequence[Connection]) -> None:
    """What a process does: batches, until the training ends it or is gone."""
    # Garbage of the training is not this process's to end: the end of one of Paddle's readers waits for a thread, which
    # is not there after a fork.
    gc.freeze()
    gc.enable()
    for other in inherited:
        other.close()  # else the pipes of a training that was killed would never end
    # Ctrl-C and a stop of all processes are for the training.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Its threads are not there after a fork, and would only take cores from the other processes.
    cv2.setNumThreads(0)
    with contextlib.suppress(EOFError, OSError):
        while True:
            number, positions = pipe.recv()
            pipe.send(_answer(stream, rooms[number], positions))


def _answer(stream: Stream, room: _Room, positions: Sequence[int]) -> Any:
    room.empty()
    try:
        return room.described(stream.batch(positions, room.allocate))
    except MedsegError as error:
        return error
    except Exception:  # noqa: BLE001  (a bug is told where somebody sees it)
        return RuntimeError(f"in a process that loads images:\n{traceback.format_exc()}")


class _Source(paddle.io.IterableDataset):  # type: ignore[misc]
    """What Paddle's thread reads; keeps the error that ended it, which in that thread nobody would see."""

    def __init__(self, batches: _Here | _Processes) -> None:
        self._batches: _Here | _Processes | None = batches
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        return self

    def forget(self) -> None:
        """Let go of images and memory; Paddle keeps a reader, and this with it, until it makes the next one."""
        self._batches = None

    def __next__(self) -> dict[str, NDArray[Any]]:
        if self._batches is None:
            raise StopIteration
        try:
            return next(self._batches)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise StopIteration from error


@contextlib.contextmanager
def loaded(
    stream: Stream, orders: Iterable[Sequence[int]], *, num_workers: int, batch_bytes: int
) -> Iterator[Iterator[dict[str, paddle.Tensor]]]:
    """Load batches while the block runs; its processes and threads end with it, however that ends.

    Paddle's own reader copies each batch from where it was written, and onto a GPU ahead of its use.

    Parameters
    ----------
    stream : Stream
        Serves the images. Whatever it draws must depend on the position alone.
    orders : iterable of sequence of int
        Positions of each batch.
    num_workers : int
        Processes that load; 0 loads in a thread.
    batch_bytes : int
        Room for one batch. A larger one takes another, slower way.

    Yields
    ------
    iterator of dict
        The batches, as tensors, in order.

    Raises
    ------
    MedsegError
        What the stream raised, where the batch was to be read; SetupError where a process was killed or
        crashed.
    """
    batches: _Here | _Processes
    if num_workers:
        batches = _Processes(stream, iter(orders), batch_bytes, num_workers)
    else:
        batches = _Here(stream, iter(orders), batch_bytes)
    source = _Source(batches)
    with contextlib.ExitStack() as running:
        running.callback(source.forget)
        running.callback(batches.end)
        reader = iter(_PaddleLoader(source, batch_size=None))
        # The only way to end it; after the processes, whose end wakes its thread.
        running.callback(reader.__del__)
        running.callback(batches.end)
        yield _read(reader, source)


def _read(reader: Iterator[dict[str, paddle.Tensor]], source: _Source) -> Iterator[dict[str, paddle.Tensor]]:
    yield from reader
    if source.error is not None:
        raise source.error
