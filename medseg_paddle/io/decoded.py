"""Pictures decoded once, in a file that all processes of a training map."""

from __future__ import annotations

import mmap
import shutil
import tempfile
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from medseg_paddle.io.memory import free_memory, lies_in_memory

_ALIGNMENT = 64  # bytes; every type may start there
_MIB = 2**20


@dataclass(frozen=True)
class _Place:
    """Where an array lies in the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class DecodedImages:
    """Arrays that are written once, and then read by this process and all that are forked from it; a context manager.

    They lie in a file without a name in the temporary folder (`TMPDIR`). So two trainings at once have two
    files, none is ever stale, and nothing has to be tidied up: the file is gone with the last process that has
    it open, however that ends. It is filled by plain writes and mapped after that, so that a full disk is an
    error of a write, and not a bus error of a read: what found no room is just not held. The system keeps in
    memory what is in use, once for all processes, and may drop it, since the file has it; but where the folder
    itself lies in memory (tmpfs, as /tmp often does in a container), nothing can be dropped.

    Parameters
    ----------
    limit : int
        Most bytes of the file. It never takes more than half of what is free in the temporary folder, nor, where
        that lies in memory, more than half of the free memory.

    Attributes
    ----------
    shortage : str
        Why something is not held, in words; empty where all is.
    """

    def __init__(self, limit: int) -> None:
        self.shortage = ""
        self._limit, self._reason, self._end = limit, f"cache_mb is {limit / _MIB:,.0f}", 0
        self._places: dict[Hashable, tuple[_Place, ...]] = {}
        self._file: IO[bytes] | None = None
        self._map: mmap.mmap | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; arrays that are in use stay what they are."""
        self._places.clear()
        self._map = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def __len__(self) -> int:
        return len(self._places)

    def keep(self, key: Hashable, *arrays: NDArray[Any]) -> bool:
        """Write arrays under `key`, unless there is no room for them.

        Returns
        -------
        bool
            Whether they are held.
        """
        if key in self._places:
            return True
        room = sum(_padded(array.nbytes) for array in arrays)
        if self.shortage or not self._fits(room):
            return False
        places, end = [], self._end
        try:
            for array in arrays:
                places.append(_Place(end, array.shape, array.dtype))
                end = self._write(array, end)
        except OSError as error:
            self.shortage = f"{tempfile.gettempdir()} cannot hold more: {error.strerror or error}"
            return False
        self._end = end
        self._places[key] = tuple(places)
        return True

    def get(self, key: Hashable) -> tuple[NDArray[Any], ...] | None:
        """The arrays under `key`, read-only, not copied; None where they are not held."""
        places = self._places.get(key)
        if places is None or self._file is None:
            return None
        if self._map is None or len(self._map) < self._end:
            self._map = mmap.mmap(self._file.fileno(), self._end, access=mmap.ACCESS_READ)
        return tuple(
            np.frombuffer(
                self._map, place.dtype, count=int(np.prod(place.shape)), offset=place.offset
            ).reshape(place.shape)
            for place in places
        )

    def _fits(self, room: int) -> bool:
        if self._file is None:
            try:
                folder = Path(tempfile.gettempdir())
                bounds = _bounds(folder)
                # Without a buffer, so that each write says whether there was room. Closed by __exit__.
                self._file = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115
            except OSError as error:
                self.shortage = f"no temporary folder can be written ({error.strerror or error})"
                return False
            self._limit, self._reason = min((self._limit, self._reason), *bounds)
        if self._end + room > self._limit:
            # A smaller picture might still fit; a first shortage ends it, so that what is held is easy to tell.
            self.shortage = self._reason
            return False
        return True

    def _write(self, array: NDArray[Any], offset: int) -> int:
        """Write an array at `offset`; returns where the next one may start."""
        assert self._file is not None  # noqa: S101  (opened by _fits)
        self._file.seek(offset)
        rest = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        while rest:
            rest = rest[self._file.write(rest) :]
        end = offset + _padded(array.nbytes)
        self._file.truncate(end)  # a map must not reach beyond the file
        return end


def _bounds(folder: Path) -> list[tuple[int, str]]:
    """Most bytes that a file in `folder` is to have, and why, in words."""
    half = shutil.disk_usage(folder).free // 2
    found = [(half, f"half of what {folder} has free is {half / _MIB:,.0f} MiB")]
    free = free_memory() if lies_in_memory(folder) else None
    if free is not None:
        half = free // 2
        found.append(
            (half, f"{folder} lies in memory, and half of what that has free is {half / _MIB:,.0f} MiB")
        )
    return found


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
