"""Settings of the processor's libraries that must stand before Paddle is loaded. Standard library only."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path, PurePosixPath

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def apply_defaults(threads: int | None = None) -> None:
    """Set threads and maths library for this process, before Paddle is imported.

    Whatever the user has set in the environment stays. On AMD processors with AVX2, MKL's slow generic
    kernels are avoided by ``MKL_DEBUG_CPU_TYPE=5`` (its AVX2 path); it is undocumented and set there only.

    Parameters
    ----------
    threads : int, optional
        Threads of the maths libraries; the cores this process may use where absent.
    """
    count = threads or available_cores()
    limit = os.environ.get("OMP_THREAD_LIMIT", "")
    if limit.isdecimal():
        count = max(1, min(count, int(limit)))  # OpenMP would promise more threads than it grants
    for variable in _THREAD_VARIABLES:
        os.environ.setdefault(variable, str(count))
    if is_amd_with_avx2():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    # Paddle's own log lines below warnings tell a user nothing.
    os.environ.setdefault("GLOG_minloglevel", "2")
    # PaddleSeg makes folders in the user's home at import unless told where.
    os.environ.setdefault("SEG_HOME", str(Path(tempfile.gettempdir()) / f"medseg-paddleseg-{_user()}"))


def maths_threads() -> int:
    """Threads that the maths libraries of this process compute with: ``OMP_NUM_THREADS``, or its cores.

    The variable may be a list, by level of nesting.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else available_cores()


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
    for line in _lines(system / "proc/self/cgroup"):
        _, _, controllers_and_path = line.partition(":")
        controllers, _, path = controllers_and_path.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct") if controllers else ("sys/fs/cgroup",)
        inner = PurePosixPath(path.lstrip("/"))
        # A container may see the host's path and its own group at the top.
        for group in (system / mount / step for mount in mounts for step in (inner, *inner.parents)):
            if controllers:
                words = _lines(group / "cpu.cfs_quota_us")[:1] + _lines(group / "cpu.cfs_period_us")[:1]
            else:
                words = " ".join(_lines(group / "cpu.max")[:1]).split()
            if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]) > 0:
                quotas.append(max(1, int(words[0]) // int(words[1])))
    return quotas


def is_amd_with_avx2() -> bool:
    """Whether the processor is AMD's and shows AVX2."""
    lines = _lines(Path("/proc/cpuinfo"))
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return any("AuthenticAMD" in line for line in lines) and "avx2" in flags


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0
