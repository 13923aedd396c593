"""Memory that a training shares with the processes that load its images. Standard library only."""

from __future__ import annotations

import sys

from medseg_paddle.errors import MemoryShortError
from medseg_paddle.io.memory import free_memory

AHEAD = 2
"""Batches that each process has room for; all of them may be loaded before one is trained on."""

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
    MemoryShortError
        There is too little.
    """
    if num_workers == 0 or sys.platform != "linux":
        return
    needed = AHEAD * num_workers * batch_bytes
    free = free_memory()
    if free is not None and free < needed:
        raise MemoryShortError(
            f"num_workers: {num_workers} needs {needed / _MIB:,.1f} MiB of memory shared with processes that "
            f"load images ({AHEAD * num_workers} batches), {free / _MIB:,.1f} MiB are free",
            hint="set a lower num_workers, also of a run that is resumed, or give the container more memory; a new run "
            "may have a lower batch_size, too",
        )
