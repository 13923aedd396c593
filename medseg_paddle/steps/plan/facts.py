"""What a plan goes by: sizes, spacings, intensities and parts of a training set's volumes, looked at one by one."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from medseg_paddle.core import Case, LabelMap, LabelSet, Manifest, Units, Volume, reorient
from medseg_paddle.core.planning import Millimetres, Triple
from medseg_paddle.errors import DataError
from medseg_paddle.io.case_volumes import read_case_labels, read_case_volumes
from medseg_paddle.io.nifti import NIFTI_SUFFIXES, nifti_grid
from medseg_paddle.io.volumes import is_volume
from medseg_paddle.preprocess import VolumePreprocessing, foreground_values
from medseg_paddle.steps.parallel import in_order, suited_workers, with_room

AXES = "SPL"  # the axes that volumes are planned, and learned, along
IGNORED = 255  # a data set's `ignore_index` where it says nothing
_SAMPLED = 10_000  # voxels of the foreground of a case
# Bytes at once for a voxel and channel: as stored, in float32, and what is compared and counted.
_BYTES = 16

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class CaseFacts:
    """What was seen of one case.

    Attributes
    ----------
    id : str
    shape : three ints
        Voxels along :data:`AXES`, without what is cropped away.
    spacing : three floats
        mm along these axes.
    kept : float
        Share of the voxels that the crop leaves.
    units : {"HU", "arbitrary", "unknown"}
    lowest : float
        The least value.
    foreground : tuple of ndarray
        Values of some voxels of the foreground, of each channel; of CT only.
    parts : tuple of int
        How many parts each class has that do not touch, the background left out; 0 of a class that is not there.
    """

    id: str
    shape: Triple
    spacing: Millimetres
    kept: float
    units: Units
    lowest: float
    foreground: tuple[NDArray[np.float64], ...]
    parts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class DataFacts:
    """What was seen of a training set.

    Attributes
    ----------
    root : Path
    name : str
    labels : LabelSet
    channels : int
    cases : tuple of CaseFacts
        By id: nothing depends on the order of a file.
    has_val : bool
        Whether cases are held out to choose the best checkpoint.
    has_test : bool
        Whether cases are held out to be scored in the end.
    """

    root: Path
    name: str
    labels: LabelSet
    channels: int
    cases: tuple[CaseFacts, ...]
    has_val: bool
    has_test: bool

    @property
    def units(self) -> Units:
        """Those of all cases."""
        return self.cases[0].units

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """Of each class but the background, how many parts it has in each case."""
        counts = zip(*(case.parts for case in self.cases), strict=True)
        return dict(zip(self.labels.names[1:], counts, strict=True))


def look_at_training_set(
    root: Path, *, workers: int | None = None, progress: Progress | None = None
) -> DataFacts:
    """Read every volume of a data set's training split, one at a time, and note what a plan needs.

    Nothing of the validation and the test set is opened: what is planned must not depend on them.

    Parameters
    ----------
    root : Path
        A data set that ``medseg prepare`` made with ``volumes: whole``.
    workers : int, optional
        Processes; as many as the work is worth and the memory holds where absent.
    progress : callable, optional
        Told after each case: done, in all, what.

    Raises
    ------
    DataError
        There is no data set, or no volume to learn from; one is unreadable, blank or without label; some are CT in HU
        and others not.
    """
    manifest = Manifest.load(root)
    cases = sorted(manifest.cases("train"), key=lambda case: case.id)
    _require_volumes(cases, root)
    channels = int(manifest.source.get("channels", 1))
    look = partial(_look, channels=channels, labels=manifest.labels)
    count = _suited_workers(cases, channels) if workers is None else workers
    facts = []
    with contextlib.closing(in_order(look, cases, workers=count, name=_name)) as found:
        for done, one in enumerate(found, start=1):
            facts.append(one)
            if progress is not None:
                progress(done, len(cases), one.id)
    _require_one_unit(facts, root)
    has_val, has_test = bool(manifest.cases("val")), bool(manifest.cases("test"))
    return DataFacts(root, manifest.name, manifest.labels, channels, tuple(facts), has_val, has_test)


def _require_volumes(cases: Sequence[Case], root: Path) -> None:
    if not cases:
        raise DataError(f"{root} has no case to learn from", hint="prepare it with cases in split train")
    for case in cases:
        if not is_volume(case.image):
            raise DataError(
                f"{root} holds pictures, such as {case.image.name}; a plan is made for whole volumes",
                hint="prepare the data again with `volumes: whole` and without a `window`; for pictures, start from "
                "one of `medseg recipe list`",
            )
        missing = [path for path in (case.image, case.label) if path is not None and not path.is_file()]
        if missing:
            raise DataError(f"{missing[0]} is not there", hint="prepare the data again")


def _require_one_unit(facts: Sequence[CaseFacts], root: Path) -> None:
    other = next((one for one in facts if one.units != facts[0].units), None)
    if other is not None:
        raise DataError(
            f"{root}: {facts[0].id} is in units {facts[0].units}, {other.id} in {other.units}; they cannot be "
            "normalised alike",
            hint="prepare CT and other images as two data sets, or say `units: HU` in `prepare` if all are CT",
        )


def _look(case: Case, *, channels: int, labels: LabelSet) -> CaseFacts:
    volumes = read_case_volumes(case, channels)
    label_map = reorient(read_case_labels(case, volumes[0].geometry, labels, IGNORED), AXES)
    turned = [reorient(volume, AXES) for volume in volumes]
    geometry, array = turned[0].geometry, label_map.array.copy()
    array[array == IGNORED] = 0
    shape = _cropped(turned, case)
    foreground: tuple[NDArray[np.float64], ...] = ()
    if turned[0].units == "HU":
        # By its name: the same voxels whatever was looked at before.
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(case.id.encode()).digest()[:8], "big"))
        known = LabelMap(array, geometry, labels)
        foreground = tuple(foreground_values(one, known, _SAMPLED, rng) for one in turned)
    return CaseFacts(
        id=case.id,
        shape=shape,
        spacing=geometry.spacing,
        kept=math.prod(shape) / math.prod(geometry.shape),
        units=turned[0].units,
        lowest=float(min(one.array.min() for one in turned)),
        foreground=foreground,
        parts=_parts(array, len(labels)),
    )


def _cropped(channels: Sequence[Volume], case: Case) -> Triple:
    """The shape that is left of a volume; all of a CT, where 0 is water."""
    if channels[0].units == "HU":
        return channels[0].geometry.shape
    try:
        return VolumePreprocessing(axes=AXES, crop="nonzero").kept(channels).shape
    except DataError as error:
        raise DataError(f"{case.image} is 0 throughout", hint="leave it out, or correct the file") from error


def _parts(array: NDArray[Any], classes: int) -> tuple[int, ...]:
    """Parts of each class; voxels that share a corner hang together, as in the rule `KeepLargest`."""
    neighbours = scipy.ndimage.generate_binary_structure(3, 3)
    boxes = scipy.ndimage.find_objects(array, classes - 1)
    return tuple(
        0 if box is None else int(scipy.ndimage.label(array[box] == index, neighbours)[1])
        for index, box in enumerate(boxes, start=1)
    )


def _suited_workers(cases: Sequence[Case], channels: int) -> int:
    size = sum(case.image.stat().st_size for case in cases)
    count = min(suited_workers(len(cases), size), len(cases))
    grids = [nifti_grid(one.image)[0] for one in cases if one.image.name.lower().endswith(NIFTI_SUFFIXES)]
    largest = max((math.prod(grid.shape) for grid in grids), default=1) * channels * _BYTES
    return with_room(count, largest)


def _name(case: Case) -> str:
    return str(case.image)
