"""How much memory is free, what says that there was too little, and which folders lie in it. Standard library only."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_GROUPS = Path("/proc/self/cgroup")
_MOUNTS = Path("/proc/self/mountinfo")
# What Paddle, CUDA, C++ and the system say of it.
_TOO_LITTLE = re.compile("out of memory|resourceexhausted|bad_alloc|cannot allocate", re.IGNORECASE)


def free_memory() -> int | None:
    """Bytes that this machine, and the container or batch job, could still give; None where nothing says so."""
    machine = _of_machine()
    return min([*([] if machine is None else [machine]), *_of_groups()], default=None)


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


def _of_groups() -> Iterator[int]:
    """Of each control group that holds this process: its limit without what is used and could not be dropped.

    A container sees its own group as the root, a batch job (Slurm, systemd) lies some groups below; a limit may be set
    at any of them. Docker of older systems has groups of version 1, in which files have other names.
    """
    for line in ("0::/", *_text(_GROUPS).splitlines()):
        number, controllers, path = line.split(":", 2)
        root, names, hierarchical = _CGROUP, ("memory.max", "memory.current"), ""
        if number != "0":
            if "memory" not in controllers.split(","):
                continue
            root, hierarchical = _CGROUP / "memory", "total_"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for depth in range(len(parts) + 1):
            group = root.joinpath(*parts[:depth])
            limit, used = (_text(group / name).strip() for name in names)
            if limit.isdigit() and used.isdigit():
                droppable = re.findall(
                    rf"^{hierarchical}(?:in)?active_file (\d+)$", _text(group / "memory.stat"), re.MULTILINE
                )
                yield max(0, int(limit) - int(used) + sum(map(int, droppable)))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
