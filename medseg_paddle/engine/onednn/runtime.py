"""What the operators of one process share: lock, cache of prepared operations, and scratch memory."""

from __future__ import annotations

import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import paddle

from medseg_paddle.engine.onednn.library import Library, OneDnnError, load

# A network has some dozens of different operations per image size. One holds about 0.2 MB.
_CACHE_LIMIT = 256
_FLOAT = 4

Plan = TypeVar("Plan")


class Workspace:
    """Buffers for arrays in oneDNN's own layouts, used by one operation after the other.

    A buffer grows to the largest array of its role and stays; pages that are asked of the system anew at
    each step would cost more than the reordering.
    """

    def __init__(self) -> None:
        self._held: dict[str, paddle.Tensor] = {}

    def address(self, role: str, size: int) -> int:
        """Where `size` bytes for `role` are; what was there before for that role is lost."""
        held = self._held.get(role)
        if held is None or held.shape[0] * _FLOAT < size:
            self._held.pop(role, None)  # freed before the larger one is made
            held = self._held[role] = paddle.empty([-(-size // _FLOAT)], "float32")
        address: int = held.data_ptr()
        return address


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
                self._held[key] = error.with_traceback(None)
            while len(self._held) > self._limit:
                self._held.popitem(last=False)
        found: Plan | OneDnnError = self._held[key]
        if isinstance(found, OneDnnError):
            raise found
        return found


class Runtime:
    """The library with a lock, a cache and a workspace; whoever uses one of them holds the lock."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.lock = threading.RLock()
        self.cache = Cache(_CACHE_LIMIT)
        self.workspace = Workspace()


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
