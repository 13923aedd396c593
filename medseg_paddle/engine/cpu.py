"""Settings of the processor's libraries that must stand before Paddle is loaded. Standard library only."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def apply_defaults(threads: int | None = None) -> None:
    """Set threads and maths library for this process, before Paddle is imported.

    Whatever the user has set in the environment stays. On AMD processors MKL's slow generic kernels
    are avoided by ``MKL_DEBUG_CPU_TYPE=5`` (its AVX2 path); it is undocumented and set there only.

    Parameters
    ----------
    threads : int, optional
        Threads of the maths libraries; the cores this process may use where absent.
    """
    count = str(threads or available_cores())
    for variable in _THREAD_VARIABLES:
        os.environ.setdefault(variable, count)
    if is_amd():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    # Paddle's own log lines below warnings tell a user nothing.
    os.environ.setdefault("GLOG_minloglevel", "2")
    # PaddleSeg makes folders in the user's home at import unless told where.
    os.environ.setdefault("SEG_HOME", str(Path(tempfile.gettempdir()) / f"medseg-paddleseg-{os.getuid()}"))


def available_cores() -> int:
    """Cores this process may use: the affinity mask, limited by the container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(cores, _cgroup_cores() or cores))


def is_amd() -> bool:
    """Whether the processor is AMD's."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def _cgroup_cores() -> int | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))
