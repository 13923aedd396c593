"""Before a training on volumes: each is brought to the network's grid once, by several processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

from medseg_paddle.config import Recipe
from medseg_paddle.core import Case
from medseg_paddle.core.cores import available_cores
from medseg_paddle.io.files import NoLocksError, locked
from medseg_paddle.io.memory import free_memory
from medseg_paddle.io.nifti import NIFTI_SUFFIXES, nifti_grid
from medseg_paddle.steps.parallel import in_order
from medseg_paddle.steps.progress import ProgressBar, say
from medseg_paddle.volume_cache import VolumeCache

# A process takes a second or two to start, some volumes to be preprocessed are there sooner.
_FEW_VOXELS = 20_000_000
# Bytes at once for a voxel of the source (as stored, in float32, turned) and for one of the grid (twice in float32, and
# what the classes of the label are compared in).
_BYTES_OF_SOURCE, _BYTES_OF_GRID = 16, 20
_OF_FREE = 0.7


def ready_volumes(recipe: Recipe, cases: Sequence[Case], *, workers: int | None = None) -> None:
    """See that every case of a training is preprocessed, and preprocess those that are not.

    Of a recipe for pictures there is nothing to do. Another process that does the same is waited for.

    Parameters
    ----------
    recipe : Recipe
    cases : sequence of Case
        The training's.
    workers : int, optional
        Processes; as many as there are cores and room for their volumes in memory where absent.

    Raises
    ------
    DataError
        A volume or its labels are unreadable, do not fit each other or the recipe.
    SetupError
        The data set's folder cannot be written, or its disk is full.
    """
    if recipe.dimensions != 3:
        return
    cache = VolumeCache.of(recipe)
    if not cache.lacking(cases):
        return
    with _alone(cache):
        missing = cache.lacking(cases)  # another process may have made them meanwhile
        if not missing:
            return
        cache.begin()
        count = min(len(missing), _suited_workers(cache, missing) if workers is None else workers)
        make = partial(_make, cache=cache, threads=None if count == 1 else 1)
        with (
            ProgressBar("preprocessing", len(missing)) as bar,
            contextlib.closing(in_order(make, missing, workers=count, name=_name)) as made,
        ):
            for done, case in enumerate(missing, start=1):
                next(made)
                bar.update(done, case.id)


def _make(case: Case, *, cache: VolumeCache, threads: int | None) -> None:
    cache.make(case, threads=threads)


def _name(case: Case) -> str:
    return str(case.image)


def _suited_workers(cache: VolumeCache, cases: Sequence[Case]) -> int:
    """As many processes as the work is worth, the cores can do and the memory holds."""
    voxels, largest = 0, 1
    for case in cases:
        if not case.image.name.lower().endswith(NIFTI_SUFFIXES):
            continue
        grid, channels = nifti_grid(case.image)
        turned = grid.transposed(grid.turn_to(cache.preprocessing.axes)[0])
        spacing = cache.preprocessing.spacing
        onto = turned if spacing is None else turned.respaced(spacing)
        stored, made = _voxels(grid.shape) * channels, _voxels(onto.shape) * channels
        voxels += stored + made
        largest = max(largest, _BYTES_OF_SOURCE * stored + _BYTES_OF_GRID * made)
    if voxels < _FEW_VOXELS:
        return 1
    free = free_memory()
    room = len(cases) if free is None else int(_OF_FREE * free / largest)
    return max(1, min(available_cores(), room))


def _voxels(shape: tuple[int, int, int]) -> int:
    return shape[0] * shape[1] * shape[2]


@contextlib.contextmanager
def _alone(cache: VolumeCache) -> Iterator[None]:
    """Hold the lock of a cache, where its disk has locks; wait for who holds it."""
    with contextlib.ExitStack() as held:
        try:
            with cache.writing():
                mine = held.enter_context(locked(cache.lock, wait=False))
            if not mine:
                held.close()
                say(f"another process preprocesses the volumes of {cache.root}; waiting for it")
                held.enter_context(locked(cache.lock))
        except NoLocksError:
            # Each file is whole or not there, and two processes write the same.
            say(f"warning: the disk of {cache.root} has no locks; do not start a second training on it yet")
        yield
