"""How much memory is free, what says that there was too little, and which folders lie in it. Standard library only."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_MOUNTS = Path("/proc/self/mountinfo")
# What Paddle, CUDA, C++ and the system say of it.
_TOO_LITTLE = re.compile("out of memory|resourceexhausted|bad_alloc|cannot allocate", re.IGNORECASE)


def free_memory() -> int | None:
    """Bytes that this machine, and the container, could still give; None where nothing says so."""
    limits = [free for free in (_of_machine(), _of_container()) if free is not None]
    return min(limits, default=None)


def memory_ran_out(error: Exception) -> bool:
    """Whether an error says that memory, also a GPU's, could not be had."""
    if isinstance(error, RuntimeError | OSError):
        return _TOO_LITTLE.search(str(error)) is not None
    return isinstance(error, MemoryError)


def lies_in_memory(folder: Path) -> bool:
    """Whether what is written to a folder takes memory: on Linux, whether its file system is tmpfs or ramfs.

    Raises
    ------
    OSError
        There is no such folder.
    """
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    lines = (line.partition(" - ") for line in _text(_MOUNTS).splitlines())
    return any(
        mount.split()[2] == number and kind.split()[0] in ("tmpfs", "ramfs")
        for mount, _, kind in lines
        if kind
    )


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
