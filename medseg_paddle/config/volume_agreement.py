"""Rules on what belongs to networks that see pictures, and what to those that see volumes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from medseg_paddle.config.base import inconsistent
from medseg_paddle.config.datasets import ManifestDataset, TrainManifest
from medseg_paddle.config.networks_3d import AttentionUNet3D, ResUNet3D, UNet3D, strides_of
from medseg_paddle.config.transforms_3d import RandomVolumeIntensity, RandomVolumePatch
from medseg_paddle.config.volume_preprocessing import VolumePreprocessing

if TYPE_CHECKING:
    from medseg_paddle.config.datasets import DatasetSpec
    from medseg_paddle.config.recipe import Recipe

_OF_VOLUMES = (VolumePreprocessing, RandomVolumePatch, RandomVolumeIntensity)
_AXES = ("slices", "rows", "columns")


def require_one_kind_of_image(recipe: Recipe) -> None:
    """Check that network, data sets and transforms are all for pictures, or all for volumes.

    See :func:`medseg_paddle.config.agreement.require_agreement`.
    """
    named = {
        name: dataset
        for name in ("train_dataset", "val_dataset", "test_dataset")
        if (dataset := getattr(recipe, name)) is not None
    }
    if recipe.dimensions == 2:
        _require_no_words_for_volumes(recipe, named)
        return
    for name, dataset in named.items():
        _require_volumes(recipe, name, dataset)
    _require_one_way_to_the_grid(named)
    _require_patches(recipe)
    _require_tiles(recipe)
    _require_what_volumes_have(recipe)


def _require_no_words_for_volumes(recipe: Recipe, named: dict[str, DatasetSpec]) -> None:
    for name, dataset in named.items():
        for i, transform in enumerate(dataset.transforms):
            if isinstance(transform, _OF_VOLUMES):
                raise inconsistent(
                    f"{transform.type} is for networks that see volumes; {recipe.model.type} sees pictures",
                    at=(name, "transforms", i),
                    hint="use UNet3D, ResUNet3D or AttentionUNet3D, or the transforms for pictures, such as Normalize",
                )


def _require_volumes(recipe: Recipe, name: str, dataset: DatasetSpec) -> None:
    model = recipe.model.type
    if not isinstance(dataset, ManifestDataset):
        raise inconsistent(
            f"{model} sees volumes, and {name} is a {dataset.type}, which holds pictures",
            at=(name, "type"),
            hint="write `type: Manifest`, for a data set that `medseg prepare` made with `volumes: whole`",
        )
    for i, transform in enumerate(dataset.transforms):
        if not isinstance(transform, _OF_VOLUMES):
            raise inconsistent(
                f"{transform.type} is for pictures; {model} sees volumes",
                at=(name, "transforms", i),
                hint="use VolumePreprocessing first; in training RandomVolumePatch and RandomVolumeIntensity after it",
            )
    found = [i for i, one in enumerate(dataset.transforms) if isinstance(one, VolumePreprocessing)]
    if found != [0]:
        raise inconsistent(
            f"{model} sees volumes, and {name} has "
            + ("no VolumePreprocessing" if not found else f"VolumePreprocessing at place {found[-1] + 1}"),
            at=(name, "transforms"),
            hint="let `transforms` begin with one VolumePreprocessing, the same in all data sets",
        )


def _require_one_way_to_the_grid(named: dict[str, DatasetSpec]) -> None:
    learned = named["train_dataset"].transforms[0]
    for name, dataset in named.items():
        if dataset.transforms[0] != learned:
            raise inconsistent(
                f"train_dataset and {name} have different VolumePreprocessing; "
                "the model would see other volumes than it learned",
                at=(name, "transforms", 0),
                hint="write the same values in both",
            )


def _require_patches(recipe: Recipe) -> None:
    steps = recipe.train_dataset.transforms[1:]
    if not (steps and isinstance(steps[0], RandomVolumePatch)) or any(
        isinstance(step, RandomVolumePatch) for step in steps[1:]
    ):
        raise inconsistent(
            "a network for volumes learns from patches; RandomVolumePatch stands "
            + (
                "nowhere"
                if not any(isinstance(s, RandomVolumePatch) for s in steps)
                else "elsewhere, or twice"
            ),
            at=("train_dataset", "transforms"),
            hint="write one RandomVolumePatch right after VolumePreprocessing in train_dataset",
        )
    size = steps[0].size
    _require_multiples(recipe, "RandomVolumePatch.size", size, ("train_dataset", "transforms", 1, "size"))
    shrink = _shrink(recipe)
    if size == shrink:
        raise inconsistent(
            f"of a patch of {list(size)} voxels {recipe.model.type} leaves one, whose deviation is nothing to "
            "normalise by",
            at=("train_dataset", "transforms", 1, "size"),
            hint=f"use a larger patch, such as {[2 * side for side in size]}, or a smaller `model.depth`",
        )


def _require_tiles(recipe: Recipe) -> None:
    if recipe.inference.mode == "tiles" and len(recipe.inference.tile) == len(_AXES):
        _require_multiples(recipe, "inference.tile", recipe.inference.tile, ("inference", "tile"))


def _require_multiples(recipe: Recipe, what: str, size: tuple[int, ...], at: tuple[str | int, ...]) -> None:
    shrink = _shrink(recipe)
    for axis, side, times in zip(_AXES, size, shrink, strict=True):
        if side % times:
            fitting = [-(-one // many) * many for one, many in zip(size, shrink, strict=True)]
            raise inconsistent(
                f"{what} has {side} {axis}, which {recipe.model.type} cannot make {times} times smaller",
                at=at,
                hint=f"use multiples of {list(shrink)}, such as {fitting}",
            )


def _shrink(recipe: Recipe) -> tuple[int, ...]:
    """How many times smaller the network's deepest level is, along slices, rows and columns."""
    model = recipe.model
    assert isinstance(model, (UNet3D, ResUNet3D, AttentionUNet3D))  # noqa: S101  (no others see volumes)
    steps = strides_of(model.strides, model.depth)
    return tuple(math.prod(step[axis] for step in steps) for axis in range(3))


def _require_what_volumes_have(recipe: Recipe) -> None:
    train = recipe.train_dataset
    if recipe.prepare is not None and recipe.prepare.volumes != "whole":
        raise inconsistent(
            f"{recipe.model.type} sees volumes, and `prepare` makes slices of them",
            at=("prepare", "volumes"),
            hint="write `volumes: whole` in `prepare`, and take `window` out",
        )
    if train.mixup is not None:
        raise inconsistent(
            "mixup mixes pictures; with volumes it has never been tried",
            at=("train_dataset", "mixup"),
            hint="remove `mixup`",
        )
    if train.cache_mb != TrainManifest.model_fields["cache_mb"].default:
        raise inconsistent(
            "cache_mb keeps decoded pictures; preprocessed volumes are kept on the disk, in the data set's folder",
            at=("train_dataset", "cache_mb"),
            hint="remove `cache_mb`",
        )
    if not 0 <= recipe.ignore_index <= 255:
        raise inconsistent(
            f"label {recipe.ignore_index} is ignored, but labels of volumes are 0 to 255",
            at=("train_dataset", "ignore_index"),
            hint="write `ignore_index: 255` in the data sets",
        )
