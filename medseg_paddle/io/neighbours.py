"""Slices with their neighbours: what a network of 2.5 dimensions sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Case
from medseg_paddle.errors import DataError
from medseg_paddle.io.images import read_image

_AGAIN = "prepare the data again with this version, from its volumes, with `volumes: slices` and all of their slices"


def with_neighbours(cases: Sequence[Case], count: int, origin: str) -> tuple[Case, ...]:
    """Cases with their ``stack``: the images of `count` slices on each side of the same volume, and their own.

    Only these cases are looked at. Where they are those of a split, so are all neighbours.

    Parameters
    ----------
    cases : sequence of Case
        All slices of each volume.
    count : int
        1 or more.
    origin : str
        Where they are from, for messages.

    Raises
    ------
    DataError
        A picture was never part of a volume, a data set does not say where its slices lie, or of a volume a slice is
        missing or there twice.
    """
    volumes: dict[str, dict[int, Path]] = {}
    members: dict[str, list[Case]] = {}
    for case in cases:
        if case.slicing is None or not case.volume:
            raise DataError(
                f"{origin}: {case.id} is a picture by itself, and the recipe asks for {count} neighbours on each side",
                hint="remove `neighbours`, or train on slices of volumes (`medseg prepare` with `volumes: slices`)",
            )
        within = case.slicing.within
        if within is None or not within.towards:
            raise DataError(
                f"{origin} does not say where in its volume {case.id} lies, and the recipe asks for its neighbours",
                hint=_AGAIN,
            )
        volumes.setdefault(case.volume, {})[within.place] = case.image
        members.setdefault(case.volume, []).append(case)
    for name, slices in members.items():
        _require_all_slices(name, slices, origin)
    return tuple(_stacked(case, volumes[case.volume], count) for case in cases)


def _require_all_slices(name: str, slices: Sequence[Case], origin: str) -> None:
    found = [
        one.slicing.within for one in slices if one.slicing is not None and one.slicing.within is not None
    ]
    grids = {(one.slices, one.spacing, one.towards) for one in found}
    if len(grids) == 1 and sorted(one.place for one in found) == list(range(found[0].slices)):
        return
    raise DataError(
        f"{origin}: of {name} {len(slices)} slices are there, and they are not those of one volume, each once; the "
        "neighbours of some would be others than in the patient",
        hint=_AGAIN,
    )


def _stacked(case: Case, images: dict[int, Path], count: int) -> Case:
    assert case.slicing is not None  # noqa: S101  (with_neighbours has looked)
    assert case.slicing.within is not None  # noqa: S101
    return replace(case, stack=tuple(images[place] for place in case.slicing.within.beside(count)))


def read_stacked(
    case: Case, channels: int, neighbours: int, read: Callable[[Path, int], NDArray[Any]] = read_image
) -> NDArray[Any]:
    """Read a case's picture, of a network of 2.5 dimensions with its neighbours, as that network sees it.

    Parameters
    ----------
    case : Case
    channels : int
        Of one picture.
    neighbours : int
        On each side; 0 for the picture alone.
    read : callable
        What reads one file, as :func:`~medseg_paddle.io.images.read_image` does.

    Returns
    -------
    ndarray, shape (height, width, (2 neighbours + 1) channels)
        All channels of the first slice, of the next, and so on; in the middle those of the case itself.

    Raises
    ------
    DataError
        A file cannot be read, the slices differ in size, or neighbours are wanted and nobody said which.
    """
    if not neighbours:
        return read(case.image, channels)
    if len(case.stack) != 2 * neighbours + 1 or case.stack[neighbours] != case.image:
        raise DataError(
            f"{case.image} has no neighbours, and the network sees {neighbours} on each side",
            hint="train and score on slices of volumes that `medseg prepare` made, with all of their neighbours",
        )
    slices = {path: read(path, channels) for path in dict.fromkeys(case.stack)}
    if len({one.shape for one in slices.values()}) > 1:
        sizes = ", ".join(f"{path.name} {one.shape[:2]}" for path, one in slices.items())
        raise DataError(f"neighbouring slices of {case.volume} differ in size: {sizes}", hint=_AGAIN)
    return np.concatenate([slices[path] for path in case.stack], axis=2)


def middle(image: NDArray[Any], neighbours: int) -> NDArray[Any]:
    """The slice itself, of an image ``[H, W, C]`` that :func:`read_stacked` made; a view."""
    channels = image.shape[2] // (2 * neighbours + 1)
    return image[:, :, neighbours * channels : (neighbours + 1) * channels]
