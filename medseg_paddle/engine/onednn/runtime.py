"""What the operators of one process share: lock, cache of prepared operations, and scratch memory."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import paddle
from paddle.base.core import TracerEventType
from paddle.profiler import RecordEvent

from medseg_paddle.engine.onednn.library import Library, OneDnnError, load

# A network has some dozens of different operations per image size. One holds about 0.2 MB.
_CACHE_LIMIT = 256
_FLOAT = 4
# A training step of a U-Net uses a buffer some dozens of times.
_PATIENCE = 1000

Plan = TypeVar("Plan")


class Workspace:
    """Buffers for arrays in oneDNN's own layouts, used by one operation after the other.

    A buffer grows to the largest array of its role and stays while such arrays come; pages that are asked of
    the system anew at each step would cost more than the reordering. What a few large images have left,
    such as a validation's, goes when it was not filled for some steps.

    Parameters
    ----------
    patience : int
        Uses of a role, all of at most half its buffer, after which the buffer goes.
    """

    def __init__(self, patience: int = _PATIENCE) -> None:
        self._patience = patience
        self._held: dict[str, _Buffer] = {}

    @property
    def held_bytes(self) -> int:
        """Of all buffers."""
        return sum(buffer.bytes for buffer in self._held.values())

    def address(self, role: str, size: int) -> int:
        """Where `size` bytes for `role` are, the same place until more are asked for or :meth:`tidy` is called."""
        held = self._held.get(role)
        if held is None or held.bytes < size:
            self._held.pop(role, None)
            held = None  # freed before the next one is made
            held = self._held[role] = _Buffer(paddle.empty([-(-size // _FLOAT)], "float32"))
        held.uses, held.most = held.uses + 1, max(held.most, size)
        address: int = held.array.data_ptr()
        return address

    def tidy(self) -> None:
        """Let go of buffers that are too large; between two operations, for an operation asks again for its places."""
        for role, held in list(self._held.items()):
            if held.uses >= self._patience:
                if 2 * held.most <= held.bytes:
                    del self._held[role]
                held.uses = held.most = 0


@dataclass
class _Buffer:
    array: paddle.Tensor
    uses: int = 0
    most: int = 0

    @property
    def bytes(self) -> int:
        return int(self.array.shape[0]) * _FLOAT


@dataclass(frozen=True)
class _Refusal:
    function: str
    status: int


class Cache:
    """The operations that were used last, `limit` of them; also remembers what cannot be made."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[Hashable, Any] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Hashable, make: Callable[[], Plan]) -> Plan:
        """The operation of that key.

        Raises
        ------
        OneDnnError
            It cannot be made, now or when it was asked for first.
        """
        if key in self._held:
            self._held.move_to_end(key)
        else:
            try:
                self._held[key] = make()
            except OneDnnError as error:
                if not error.is_final:
                    raise
                self._held[key] = _Refusal(error.function, error.status)
            while len(self._held) > self._limit:
                self._held.popitem(last=False)
        found: Plan | _Refusal = self._held[key]
        if isinstance(found, _Refusal):
            # A new one each time: an exception keeps the frames that it passed, and their tensors.
            raise OneDnnError(found.function, found.status)
        return found


class Runtime:
    """The library with a lock, a cache and a workspace; whoever uses one of them holds the lock."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.lock = threading.RLock()
        self.cache = Cache(_CACHE_LIMIT)
        self.workspace = Workspace()

    @contextlib.contextmanager
    def computing(self, what: str) -> Iterator[None]:
        """Hold the lock for one operation; a profiler sees it under the name `what`."""
        with self.lock, RecordEvent(f"{what} (oneDNN)", TracerEventType.PythonOp):
            self.workspace.tidy()
            yield


_former: list[Runtime] = []


@functools.cache
def runtime() -> Runtime:
    """The process's own.

    Raises
    ------
    Unavailable
        The library cannot be used here.
    """
    made = Runtime(load())
    _guard_forks()
    return made


@functools.cache
def _guard_forks() -> None:
    """Fork while nothing computes, and give the child a lock and a cache of its own.

    The child computes in one thread: of its parent's other threads it has only what they left in memory, and
    a child that waited for one of them was seen once in some thousands.
    """

    def renew() -> None:
        runtime().library.keep_to_one_thread()
        # Kept: to destroy objects that the parent made is not the child's business.
        _former.append(runtime())
        runtime.cache_clear()

    def acquire() -> None:  # of the runtime of the day: a child that forks has another than its parent
        runtime().lock.acquire()

    def release() -> None:
        runtime().lock.release()

    os.register_at_fork(before=acquire, after_in_parent=release, after_in_child=renew)
