"""Settings of the processor's libraries that must stand before Paddle is loaded."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from medseg_paddle.core.cores import available_cores, lines_of

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
    count = _granted(threads or available_cores())
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

    The variable may be a list, by level of nesting. More than ``OMP_THREAD_LIMIT`` they are not.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return _granted(int(first) if first.isdecimal() and int(first) > 0 else available_cores())


def _granted(threads: int) -> int:
    """Of so many threads those that OpenMP grants; it would promise all of them."""
    limit = os.environ.get("OMP_THREAD_LIMIT", "")
    return max(1, min(threads, int(limit))) if limit.isdecimal() else threads


def is_amd_with_avx2() -> bool:
    """Whether the processor is AMD's and shows AVX2."""
    lines = lines_of(Path("/proc/cpuinfo"))
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return any("AuthenticAMD" in line for line in lines) and "avx2" in flags


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0
