"""How whole images are predicted: in one piece or in tiles, as they are or averaged over mirrored ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from medseg_paddle.config.base import Spec, inconsistent

_PATCH = "RandomVolumePatch"  # the transform whose `size` a 3-D network learns from


class InferenceSpec(Spec):
    """How an image larger than a patch is predicted; the same in validation, evaluation and the bundle."""

    mode: Literal["whole", "tiles"] = Field(
        "whole",
        description="the image at once, or overlapping tiles; above 1536 x 1536 pixels (or as many voxels) always "
        "tiles. tiles for a 3-D network, unless said",
    )
    tile: Annotated[tuple[PositiveInt, ...], Field(min_length=2, max_length=3)] = Field(
        (512, 512),
        description="height and width of a tile; of a 3-D network slices, rows and columns, the size of the training's "
        "patch unless said",
    )
    overlap: Annotated[float, Field(ge=0, le=0.95)] = Field(
        0.5, description="share that neighbouring tiles share"
    )
    divisor: PositiveInt | Annotated[tuple[PositiveInt, ...], Field(min_length=3, max_length=3)] = Field(
        16,
        description="sides are padded to a multiple of this many pixels; of a 3-D network it may be three numbers, and "
        "is the greatest power of two in each side of the training's patch unless said",
    )
    mirror: tuple[NonNegativeInt, ...] = Field(
        (),
        description="average over the image and its mirror images along these axes, in all combinations: 0 rows and 1 "
        "columns of a picture; 0 slices, 1 rows, 2 columns of a volume. Each axis doubles the time",
    )
    rotate90: bool = Field(
        False,
        description="average over the four turns by a quarter as well; pictures only. Four times the time",
    )
    skip_below: float | None = Field(
        None,
        description="3-D: a tile with no value above this, after normalisation, counts as background and is not "
        "computed; null computes all. Tiles of one single value are computed once, whatever this says",
    )

    @model_validator(mode="after")
    def _require_what_a_plan_takes(self) -> InferenceSpec:
        """The rules of `preprocess.tiling.InferencePlan`, which a recipe would break only after training."""
        dimensions = len(self.tile)
        divisors = (self.divisor,) * dimensions if isinstance(self.divisor, int) else self.divisor
        if len(divisors) != dimensions:
            raise inconsistent(
                f"inference.divisor has {len(divisors)} numbers, inference.tile {dimensions}",
                at=("divisor",),
                hint="write one number for all axes",
            )
        pairs = list(zip(self.tile, divisors, strict=True))
        if self.mode == "tiles" and any(side % divisor for side, divisor in pairs):
            said = self.divisor if isinstance(self.divisor, int) else list(self.divisor)
            raise inconsistent(
                f"inference.tile {list(self.tile)} is no multiple of inference.divisor {said}",
                at=("tile",),
                hint=f"use {[-(-side // divisor) * divisor for side, divisor in pairs]}",
            )
        if len(set(self.mirror)) < len(self.mirror) or max(self.mirror, default=0) >= dimensions:
            raise inconsistent(
                f"inference.mirror {list(self.mirror)} must name axes from 0 to {dimensions - 1}, each once",
                at=("mirror",),
                hint=f"write {list(range(dimensions))} for all of them",
            )
        for key, given, takes in (
            ("rotate90", self.rotate90, 2),
            ("skip_below", self.skip_below is not None, 3),
        ):
            if given and dimensions != takes:
                raise inconsistent(
                    f"inference.{key} is for {takes}-D networks, and inference.tile has {dimensions} numbers",
                    at=(key,),
                    hint=f"remove `{key}`",
                )
        return self

    def require_dimensions(self, dimensions: int) -> None:
        """Refuse a tile of other dimensions than the network's."""
        if len(self.tile) != dimensions:
            names = "height and width" if dimensions == 2 else "slices, rows and columns"
            raise inconsistent(
                f"inference.tile {list(self.tile)} has {len(self.tile)} numbers, and the network is {dimensions}-D",
                at=("inference", "tile"),
                hint=f"write {dimensions}: {names} of a tile",
            )


def with_tile_of_the_patch(recipe: Any) -> Any:
    """A recipe's mapping in which `inference` has what its training's 3-D patch implies, where it says nothing itself.

    Tiles of the size that the network learned from, and the powers of two in their sides as divisors, which any
    network that took the patch can halve.
    """
    size = _patch_size(recipe)
    given = recipe.get("inference") if isinstance(recipe, Mapping) else None
    given = {} if given is None else given
    if size is None or not isinstance(given, Mapping):
        return recipe
    tile = given.get("tile", size)
    implied: dict[str, Any] = {"mode": "tiles", "tile": tile}
    if (
        isinstance(tile, list | tuple)
        and all(type(side) is int and side > 0 for side in tile)
        and len(tile) == 3
    ):
        implied["divisor"] = [side & -side for side in tile]
    return {**recipe, "inference": {**implied, **given}}


def _patch_size(recipe: Any) -> list[int] | None:
    dataset = recipe.get("train_dataset") if isinstance(recipe, Mapping) else None
    transforms = dataset.get("transforms") if isinstance(dataset, Mapping) else None
    for transform in transforms if isinstance(transforms, list | tuple) else ():
        if isinstance(transform, Mapping) and transform.get("type") == _PATCH:
            size = transform.get("size")
            if isinstance(size, list | tuple) and len(size) == 3 and all(type(side) is int for side in size):
                return list(size)
    return None
