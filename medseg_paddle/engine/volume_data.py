"""Patches of whole volumes as the endless stream that the training loop reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.config import Recipe
from medseg_paddle.config.transforms_3d import RandomVolumePatch
from medseg_paddle.core import Case
from medseg_paddle.engine.data import DRAWS, ROUNDING, Survey, anywhere
from medseg_paddle.engine.loading import Allocate
from medseg_paddle.engine.sampling import order_of
from medseg_paddle.io.case_volumes import case_grid, read_case_labels
from medseg_paddle.preprocess.augment.volume_augmentation import VolumeAugmentation
from medseg_paddle.volume_cache import VolumeCache, VolumeFacts

Progress = Callable[[int, int, str], None]


def survey_kept(cases: Sequence[Case], recipe: Recipe, progress: Progress | None = None) -> Survey:
    """What was noted of a training's volumes when they were preprocessed.

    Parameters
    ----------
    cases : sequence of Case
        See :func:`medseg_paddle.steps.volumes.ready_volumes`.
    recipe : Recipe
    progress : callable, optional
        Told after each case: done, in all, what.

    Returns
    -------
    Survey
        Voxels are those of the network's grid.

    Raises
    ------
    DataError
        A case is not there, or its source has changed since.
    """
    cache = VolumeCache.of(recipe)
    found = []
    for done, case in enumerate(cases, start=1):
        found.append(cache.facts(case))
        if progress is not None:
            progress(done, len(cases), "preprocessed volumes looked at")
    return replace(
        _survey(cases, found), kept={case.id: noted for case, noted in zip(cases, found, strict=True)}
    )


def survey_stored(cases: Sequence[Case], recipe: Recipe, progress: Progress | None = None) -> Survey:
    """Read the labels of whole volumes as they are stored, as they are scored: better now than when they are.

    Of an image in NIfTI the header is enough: of hundreds of CTs, reading the voxels would take minutes at each start.

    Raises
    ------
    DataError
        A label or a header is unreadable, a label is missing, on another grid than its image, or holds a value that is
        no class, or there are more or fewer channels.
    """
    found = []
    for done, case in enumerate(cases, start=1):
        grid = case_grid(case, recipe.in_channels)
        label = read_case_labels(case, grid, recipe.label_set, recipe.ignore_index).array
        found.append(VolumeFacts.of(label, recipe.num_classes, recipe.ignore_index))
        if progress is not None:
            progress(done, len(cases), "labels read")
    return _survey(cases, found)


def _survey(cases: Sequence[Case], found: Sequence[VolumeFacts]) -> Survey:
    return Survey(
        pixels=tuple(sum(column) for column in zip(*(one.counts for one in found), strict=True)),
        sizes=frozenset(),
        only_ignored=tuple(
            case.label
            for case, one in zip(cases, found, strict=True)
            if case.label is not None and one.ignored and not one.holds_foreground
        ),
        holds_foreground=tuple(one.holds_foreground for one in found),
    )


def batch_bytes(recipe: Recipe) -> int:
    """Bytes of a batch that :class:`VolumeStream` serves: float32 images, and labels of 8 bits."""
    return recipe.batch_size * math.prod(_patch(recipe).size) * (4 * recipe.in_channels + 1) + ROUNDING


class VolumeStream:
    """Position in the stream -> augmented patch of a volume and of its label.

    Each pass over the cases is in a fresh order, see :class:`medseg_paddle.engine.sampling.Order`; a position stands
    for one patch of one case. Everything drawn at a position depends on the seed and the position alone: not on
    workers, not on when the run was interrupted. Of a volume only the patch is read, and no file stays open.

    Parameters
    ----------
    cases : sequence of Case
        Preprocessed, see :func:`medseg_paddle.steps.volumes.ready_volumes`.
    recipe : Recipe
    found : Survey, optional
        See :func:`survey_kept`; of cases that are not in it the notes are read.

    Raises
    ------
    DataError
        A case is not there, or what the recipe names for sampling cannot be read or does not fit.
    """

    def __init__(self, cases: Sequence[Case], recipe: Recipe, found: Survey | None = None) -> None:
        self.num_classes, self.ignore_index = recipe.num_classes, recipe.ignore_index
        self._cases, self._recipe = tuple(cases), recipe
        self._cache = VolumeCache.of(recipe)
        known = {} if found is None else found.kept
        self._facts: dict[str, VolumeFacts] = {
            case.id: known.get(case.id) or self._cache.facts(case) for case in self._cases
        }
        self._augmentation = VolumeAugmentation.from_specs(
            [one.model_dump() for one in recipe.train_dataset.transforms[1:]],
            ignore_index=recipe.ignore_index,
        )
        self._order = order_of(
            recipe.train_dataset.sampling,
            self._cases,
            recipe.seed,
            lambda: [self._facts[case.id].holds_foreground for case in self._cases],
        )

    def __len__(self) -> int:
        """Volumes in one pass; the sampler goes beyond it."""
        return len(self._cases)

    def case_at(self, position: int) -> Case:
        """The case that stands at a position of the stream."""
        return self._cases[self._order[position]]

    def names(self, positions: Sequence[int]) -> list[str]:
        """The files of the volumes at these positions."""
        return [str(self.case_at(position).image) for position in positions]

    def batch(self, positions: Sequence[int], allocate: Allocate = anywhere) -> dict[str, NDArray[Any]]:
        """Patches of several positions.

        Parameters
        ----------
        positions : sequence of int
        allocate : callable
            Gives the arrays to write to, by name, shape and dtype.

        Returns
        -------
        dict
            ``img`` float32 ``[N, C, D, H, W]``, ``label`` uint8 ``[N, D, H, W]``.
        """
        count, size = len(positions), self._augmentation.size
        images = allocate("img", (count, self._recipe.in_channels, *size), np.float32)
        labels = allocate("label", (count, *size), np.uint8)
        for number, position in enumerate(positions):
            case = self.case_at(position)
            kept = self._cache.open(case, self._facts[case.id])
            rng = np.random.default_rng([self._recipe.seed, DRAWS, position])
            images[number], labels[number] = self._augmentation.patch(
                kept.image, kept.label, kept.foreground, rng, spacing=kept.spacing
            )
        return {"img": images, "label": labels}


def _patch(recipe: Recipe) -> RandomVolumePatch:
    found = recipe.train_dataset.transforms[1]
    assert isinstance(found, RandomVolumePatch)  # noqa: S101  (the recipe was checked for it)
    return found
