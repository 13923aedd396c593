"""How many processor cores this process may use. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath


def available_cores() -> int:
    """Cores this process may use: the affinity mask, limited by the CPU quota of container or service."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min([cores, *cgroup_quotas()]))


def cgroup_quotas(system: Path = Path("/")) -> list[int]:
    """Whole cores that the control groups around this process grant, versions 1 and 2.

    Parameters
    ----------
    system : Path
        Folder with ``proc`` and ``sys``.
    """
    quotas = []
    for line in lines_of(system / "proc/self/cgroup"):
        _, _, controllers_and_path = line.partition(":")
        controllers, _, path = controllers_and_path.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct") if controllers else ("sys/fs/cgroup",)
        inner = PurePosixPath(path.lstrip("/"))
        # A container may see the host's path and its own group at the top.
        for group in (system / mount / step for mount in mounts for step in (inner, *inner.parents)):
            if controllers:
                words = lines_of(group / "cpu.cfs_quota_us")[:1] + lines_of(group / "cpu.cfs_period_us")[:1]
            else:
                words = " ".join(lines_of(group / "cpu.max")[:1]).split()
            if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]) > 0:
                quotas.append(max(1, int(words[0]) // int(words[1])))
    return quotas


def lines_of(path: Path) -> list[str]:
    """Lines of a text file that the system keeps; none where it does not."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
