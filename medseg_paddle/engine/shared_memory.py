"""Memory that processes which load images pass them on in. Standard library only."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from medseg_paddle.errors import SetupError

MOUNT = Path("/dev/shm")  # noqa: S108  (where Linux keeps it; nothing is written)
_MIB = 2**20
# Paddle 3.2.2's DataLoader lets each process load two batches ahead, and one is trained on: seen with 1, 2
# and 4 processes. One more for the rounding to pages, and to be safe.
_AHEAD, _MORE = 2, 2


def require_shared_memory(batch_bytes: int, num_workers: int) -> None:
    """See that the batches of a training's processes have room.

    Where they have not, the kernel kills a process with a bus error amid the training.

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
    needed = (_AHEAD * num_workers + _MORE) * batch_bytes
    free = shutil.disk_usage(MOUNT).free if MOUNT.is_dir() else 0
    if free < needed:
        raise SetupError(
            f"num_workers: {num_workers} needs {needed / _MIB:,.1f} MiB of shared memory, "
            f"{MOUNT} has {free / _MIB:,.1f} MiB free",
            hint="give more (shm_size in docker-compose.yml, docker run --shm-size=2g), or set num_workers: 0",
        )
