"""Before a training on volumes: each is brought to the network's grid once, by several processes."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial

from medseg_paddle.config import Recipe
from medseg_paddle.core import Case
from medseg_paddle.core.cores import available_cores
from medseg_paddle.errors import SetupError
from medseg_paddle.io.files import NoLocksError, locked
from medseg_paddle.io.nifti import NIFTI_SUFFIXES, nifti_grid
from medseg_paddle.steps.parallel import in_order, with_room
from medseg_paddle.steps.progress import ProgressBar, say, warn
from medseg_paddle.volume_cache import SPEC, VolumeCache

# A process takes a second or two to start, some volumes to be preprocessed are there sooner.
_FEW_VOXELS = 20_000_000
# Bytes at once for a voxel of the source (as stored, in float32, turned) and for one of the grid (twice in float32, and
# what the classes of the label are compared in).
_BYTES_OF_SOURCE, _BYTES_OF_GRID = 16, 20


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
        The data set's folder cannot be written, or its disk is full or too small.
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
        _say_what_else_is_kept(cache)
        work = _work(cache, missing)
        _require_room(cache, work)
        count = min(len(missing), _suited_workers(work, len(missing)) if workers is None else workers)
        make = partial(_make, cache=cache, threads=None if count == 1 else 1)
        with (
            ProgressBar("preprocessing", len(missing)) as bar,
            contextlib.closing(in_order(make, missing, workers=count, name=_name)) as made,
        ):
            for done, case in enumerate(missing, start=1):
                next(made)
                bar.update(done, case.id)


def _say_what_else_is_kept(cache: VolumeCache) -> None:
    """Folders of other recipes are not removed: nobody knows whether a training reads them."""
    others = cache.others()
    if not others:
        return
    listed = ", ".join(
        f"{one.folder.name} ({one.size / 1e9:.2g} GB, made until "
        f"{datetime.fromtimestamp(one.written, timezone.utc).date().isoformat()})"
        for one in others
    )
    say(
        f"{others[0].folder.parent} also holds volumes that were preprocessed in other ways: {listed}; remove the "
        f"folders that no recipe needs any more ({SPEC} in each says what it is for)"
    )


def _make(case: Case, *, cache: VolumeCache, threads: int | None) -> None:
    cache.make(case, threads=threads)


def _name(case: Case) -> str:
    return str(case.image)


@dataclass(frozen=True)
class _Work:
    """A volume that is to be preprocessed, by its header; a crop makes it less.

    Attributes
    ----------
    stored, made : int
        Voxels of all channels, before and after.
    kept : int
        Bytes that it will take on the disk.
    """

    stored: int
    made: int
    kept: int


def _work(cache: VolumeCache, cases: Sequence[Case]) -> list[_Work]:
    """Of those cases whose header says it."""
    found = []
    for case in cases:
        if not case.image.name.lower().endswith(NIFTI_SUFFIXES):
            continue
        grid, channels = nifti_grid(case.image)
        onto = math.prod(cache.preprocessing.uncropped(grid).shape)
        found.append(_Work(math.prod(grid.shape) * channels, onto * channels, onto * (4 * channels + 1)))
    return found


def _suited_workers(work: Sequence[_Work], cases: int) -> int:
    """As many processes as the work is worth, the cores can do and the memory holds."""
    if sum(one.stored + one.made for one in work) < _FEW_VOXELS:
        return 1
    largest = max(_BYTES_OF_SOURCE * one.stored + _BYTES_OF_GRID * one.made for one in work)
    return with_room(min(available_cores(), cases), largest)


def _require_room(cache: VolumeCache, work: Sequence[_Work]) -> None:
    """Better now than after some hours; where volumes are cropped nobody knows yet how much they will take."""
    needed, free = sum(one.kept for one in work), shutil.disk_usage(cache.folder).free
    if needed <= free:
        return
    what = f"preprocessed, the volumes of {cache.root} take {{}}{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    if cache.preprocessing.crop == "none":
        raise SetupError(
            what.format(""),
            hint=f"make room on the disk of {cache.folder}, remove the folders beside it that no training needs any "
            "more, or choose a coarser `spacing`",
        )
    warn(what.format("up to ") + f" in {cache.folder}; less where the crop takes much away")


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
