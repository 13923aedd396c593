"""Memory that a training shares with the processes that load its images. Standard library only."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from medseg_paddle.errors import SetupError

AHEAD = 2
"""Batches that each process has room for; all of them may be loaded before one is trained on."""

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_MIB = 2**20


def require_shared_memory(batch_bytes: int, num_workers: int) -> None:
    """See that the batches of a training's processes have room.

    Where they have not, the kernel kills a process amid the training. The memory is no file's: the size of
    /dev/shm is no limit, that of the machine or the container is.

    Parameters
    ----------
    batch_bytes : int
        Bytes of one batch, images and labels.
    num_workers : int
        Processes that load images.

    Raises
    ------
    SetupError
        There is too little.
    """
    if num_workers == 0 or sys.platform != "linux":
        return
    needed = AHEAD * num_workers * batch_bytes
    free = free_memory()
    if free is not None and free < needed:
        raise SetupError(
            f"num_workers: {num_workers} needs {needed / _MIB:,.1f} MiB of memory shared with processes that "
            f"load images ({AHEAD * num_workers} batches), {free / _MIB:,.1f} MiB are free",
            hint="set a lower num_workers or batch_size, or give the container more memory",
        )


def free_memory() -> int | None:
    """Bytes that this machine, and the container, could still give; None where nothing says so."""
    limits = [free for free in (_of_machine(), _of_container()) if free is not None]
    return min(limits, default=None)


def _of_machine() -> int | None:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text(_MEMINFO), re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


def _of_container() -> int | None:
    """Of a control group of version 2: its limit without what is used and could not be dropped."""
    limit, used = _text(_CGROUP / "memory.max").strip(), _text(_CGROUP / "memory.current").strip()
    if not (limit.isdigit() and used.isdigit()):
        return None
    droppable = sum(
        int(size)
        for size in re.findall(r"^(?:in)?active_file (\d+)$", _text(_CGROUP / "memory.stat"), re.MULTILINE)
    )
    return max(0, int(limit) - int(used) + droppable)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
