"""How quick one core of this machine multiplies matrices: ``python -m medseg_paddle.core.matrix_product``.

A process of its own, for the threads of a maths library are counted as it is loaded: with several, those that wait for
each other take processor time, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

from medseg_paddle.errors import SetupError

TRIES = 20
"""Products that are timed, of which the quickest counts."""
_SIDE = 768  # of the matrices
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def core_speed() -> float:
    """Multiplications a second of a product of float32 matrices on one core.

    It is the processor time that counts, so that other work on the machine changes little; under half a second of it.

    Raises
    ------
    SetupError
        The process could not be started, or came to no end.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            env={**os.environ, **dict.fromkeys(_THREADS, "1")},
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise _unmeasured(error.strerror or str(error)) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise _unmeasured(f"exit code {done.returncode}: {last}")
    return float(done.stdout)


def time_of_one(times: Sequence[float]) -> float:
    """Time of a product, from those of several in a row: the quickest.

    A clock that moves in steps (of 10 ms, of the processor time in sandboxed containers) shows none for some of them;
    it is right about all together.
    """
    return min(times) or sum(times) / len(times)


def _unmeasured(why: str) -> SetupError:
    return SetupError(
        f"the speed of this machine could not be measured in a process of its own ({why})",
        hint="see whether memory and processes are left: `free -h`, `ulimit -u`",
    )


def _measured() -> float:
    matrix = np.ones((_SIDE, _SIDE), np.float32)
    times = []
    for _ in range(TRIES):
        start = time.process_time()
        matrix @ matrix
        times.append(time.process_time() - start)
    return float(_SIDE**3 / time_of_one(times))


if __name__ == "__main__":
    sys.stdout.write(f"{_measured():.6g}\n")
