"""How quick one core of this machine multiplies matrices: ``python -m medseg_paddle.core.matrix_product``.

A process of its own, for the threads of a maths library are counted as it is loaded: with several, those that wait for
each other take processor time, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np

TRIES = 20
"""Products that are timed, of which the quickest counts."""
_SIDE = 768  # of the matrices
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def core_speed() -> float:
    """Multiplications a second of a product of float32 matrices on one core.

    It is the processor time that counts, so that other work on the machine changes little; under half a second of it.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        env={**os.environ, **dict.fromkeys(_THREADS, "1")},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def _measured() -> float:
    matrix = np.ones((_SIDE, _SIDE), np.float32)
    times = []
    for _ in range(TRIES):
        start = time.process_time()
        matrix @ matrix
        times.append(time.process_time() - start)
    return float(_SIDE**3 / min(times))


if __name__ == "__main__":
    sys.stdout.write(f"{_measured():.6g}\n")
