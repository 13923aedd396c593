"""The transforms that a recipe names, PaddleSeg's and ours, as one deterministic function."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddleseg.transforms  # noqa: F401  (registers PaddleSeg's transforms with the manager)
from numpy.typing import NDArray

from medseg_paddle.config import transforms as spec_of
from medseg_paddle.config.base import component_arguments
from medseg_paddle.config.transforms import Transform
from medseg_paddle.engine.paddleseg_adapter import manager
from medseg_paddle.errors import RecipeError
from medseg_paddle.io.images import read_image
from medseg_paddle.io.unlabelled import style_files
from medseg_paddle.preprocess.augment import (
    TRAIN_TRANSFORMS,
    RandomAffinePatch,
    RandomFourierStyle,
    RandomHistogramMatch,
)
from medseg_paddle.preprocess.augment.arrays import resized_label
from medseg_paddle.preprocess.augment.planes import NormalizedPlanes, write_planes
from medseg_paddle.preprocess.foreground import Foreground, ForegroundClasses

_PATCH_BORDER = 255  # what RandomAffinePatch with border "ignore" writes into a label beyond the image

Size = tuple[int, int]


class TrainingTransform:
    """Image and label through a recipe's transforms.

    PaddleSeg's transforms draw from the global generators of `random` and numpy; these are seeded from
    `rng` before each call, so that a draw depends on nothing but `rng`.

    A uint8 image stays uint8 until a step works in float32: intensities then come from tables.

    Parameters
    ----------
    specs : sequence
        The transforms in the order of the recipe.
    ignore_index : int
        Label value that is neither learned nor scored.
    channels : int
        Of the images; the pictures that lend their style are read with as many.

    Raises
    ------
    DataError
        A picture that a transform names cannot be read.
    """

    def __init__(self, specs: Sequence[Transform], ignore_index: int = 255, *, channels: int = 3) -> None:
        self._ignore_index = ignore_index
        last = specs[-1] if specs else None
        self._finish: Callable[[NDArray[Any], NDArray[np.float32]], None] = write_planes
        if isinstance(last, spec_of.Normalize):
            self._finish = NormalizedPlanes(last.mean, last.std).write
            specs = specs[:-1]
        self._steps = [(spec.type in TRAIN_TRANSFORMS, _built(spec, channels)) for spec in specs]

    def __call__(
        self,
        image: NDArray[Any],
        label: NDArray[Any],
        rng: np.random.Generator,
        foreground: NDArray[Any] | Foreground | ForegroundClasses,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """CHW float32 image and HW int64 label from an HWC image 0..255, uint8 or float32, and its HW label.

        The inputs may be shared and read-only; the outputs are new arrays.
        """
        image, label = self.augmented(image, label, rng, foreground)
        planes = np.empty((image.shape[2], *image.shape[:2]), np.float32)
        self.write(image, planes)
        return planes, label.astype(np.int64, order="C")

    def write(self, image: NDArray[Any], planes: NDArray[np.float32]) -> None:
        """Write an image from :meth:`augmented` to CHW float32 planes, normalised if that is the last step."""
        self._finish(image, planes)

    def augmented(
        self,
        image: NDArray[Any],
        label: NDArray[Any],
        rng: np.random.Generator,
        foreground: NDArray[Any] | Foreground | ForegroundClasses,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """HWC image 0..255, uint8 or float32, and HW label, through all steps but a last Normalize.

        What goes in is not changed, and may come out if no step touches it.
        """
        for number, (ours, step) in enumerate(self._steps):
            if isinstance(step, RandomAffinePatch):
                # After another transform the pixels found in the stored label are no longer the right ones.
                image, label = self._patch(step, image, label, rng, None if number else foreground)
            elif ours:
                image, label = step(image, label, rng)
            else:
                seed = int(rng.integers(2**32))
                random.seed(seed)
                np.random.seed(seed)  # noqa: NPY002  (PaddleSeg draws from it)
                image, label = _stock(step, image, label)
        return image, label

    def _patch(
        self,
        step: RandomAffinePatch,
        image: NDArray[Any],
        label: NDArray[Any],
        rng: np.random.Generator,
        foreground: NDArray[Any] | Foreground | ForegroundClasses | None,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        kind = foreground_kind(step)
        if step.foreground > 0 and (foreground is None or kind is ForegroundClasses is not type(foreground)):
            foreground = kind(label, self._ignore_index)
        if step.border != "ignore" or self._ignore_index == _PATCH_BORDER:
            return step(image, label, rng, foreground=foreground)
        # Moved beyond it, no value of the label can be taken for the border's.
        moved = label.astype(np.int32) + (_PATCH_BORDER + 1)
        image, moved = step(image, moved, rng, foreground=foreground)
        result = np.where(moved == _PATCH_BORDER, self._ignore_index, moved - (_PATCH_BORDER + 1))
        # OpenCV, which later steps use, knows no int64; float32 holds every integer up to 2**24.
        fits = np.can_cast(np.min_scalar_type(self._ignore_index), label.dtype)
        return image, result.astype(label.dtype if fits else np.float32)


def foreground_kind(first: Transform | RandomAffinePatch | None) -> type[Foreground | ForegroundClasses]:
    """What the first step wants to know of a label's foreground."""
    by_class = getattr(first, "foreground_by", "pixel") == "class"
    return ForegroundClasses if by_class else Foreground


def sizes_after(specs: Sequence[Transform], sizes: Collection[Size]) -> frozenset[Size] | None:
    """Sizes (rows, columns) of images after the transforms; None where each draw has another.

    Parameters
    ----------
    specs : sequence
        The transforms in the order of the recipe.
    sizes : collection of (int, int)
        Rows and columns of the images before.

    Raises
    ------
    RecipeError
        A Padding is smaller than an image that it gets; PaddleSeg's does not crop.
    """
    known: frozenset[Size] | None = frozenset(sizes)
    for spec in specs:
        fixed = _fixed_size(spec)
        if isinstance(spec, spec_of.Padding) and fixed is not None:
            _require_room(fixed, known or ())
        if fixed is not None:
            known = frozenset({fixed})
        elif _draws_size(spec):
            known = None
        elif known is not None and isinstance(spec, _BY_INPUT):
            known = frozenset(_measured(spec, size) for size in known)
    return known


# These make of one size always the same other one, and of two sizes two or one. With nothing to draw
# from (least and greatest factor equal) the random ones are among them.
_BY_INPUT = (
    spec_of.ResizeByLong,
    spec_of.ResizeByShort,
    spec_of.LimitLong,
    spec_of.PaddingByAspectRatio,
    spec_of.ResizeStepScaling,
    spec_of.ResizeRangeScaling,
)


def _fixed_size(spec: Transform) -> Size | None:
    """Rows and columns that a transform gives every image; None where they depend on image or draw."""
    if isinstance(spec, spec_of.RandomAffinePatch):
        return spec.size
    if isinstance(spec, (spec_of.Resize, spec_of.Padding, spec_of.ScalePadding)):
        columns, rows = spec.target_size
    elif isinstance(spec, spec_of.RandomPaddingCrop):
        columns, rows = spec.crop_size
    elif isinstance(spec, spec_of.RandomAffine):
        columns, rows = spec.size
    else:
        return None
    return rows, columns


def _draws_size(spec: Transform) -> bool:
    if isinstance(spec, spec_of.ResizeStepScaling):
        return spec.min_scale_factor != spec.max_scale_factor
    if isinstance(spec, spec_of.ResizeRangeScaling):
        return spec.min_value != spec.max_value
    if isinstance(spec, spec_of.RandomRotation):
        return spec.max_rotation > 0
    return isinstance(spec, spec_of.RandomCenterCrop) and spec.retain_ratio != (1, 1)


def _measured(spec: Transform, size: Size) -> Size:
    _, label = _stock(_built(spec, 1), np.zeros((*size, 1), np.float32), np.zeros(size, np.uint8))
    rows, columns = label.shape
    return rows, columns


def _require_room(target: Size, sizes: Collection[Size]) -> None:
    larger = [size for size in sizes if size[0] > target[0] or size[1] > target[1]]
    if larger:
        raise RecipeError(
            f"Padding to {target} (rows, columns) is smaller than an image of {max(larger)} that it gets",
            hint="give Padding a larger target_size, or use RandomPaddingCrop in its place",
        )


def _built(spec: Transform, channels: int) -> Any:
    """The callable that a recipe's words stand for, for images of so many channels."""
    arguments = component_arguments(spec)
    if isinstance(spec, (spec_of.RandomHistogramMatch, spec_of.RandomFourierStyle)):
        kind = RandomHistogramMatch if spec.type == "RandomHistogramMatch" else RandomFourierStyle
        pictures = (read_image(path, channels) for path in style_files(Path(spec.styles)))
        return kind(**{**arguments, "styles": tuple(kind.style_of(picture) for picture in pictures)})
    ours = TRAIN_TRANSFORMS.get(spec.type)
    if ours is not None:
        return ours(**arguments)
    arguments = {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()}
    step = manager.TRANSFORMS[spec.type](**arguments)
    if isinstance(spec, spec_of.ScalePadding):
        return _Squared(step)
    if isinstance(spec, spec_of.RandomScaleAspect):
        return _Cropped(step)
    # With NEAREST both are taken from the same corner.
    nearest = isinstance(spec, spec_of.Resize) and spec.interp == "NEAREST"
    return _Resized(step) if isinstance(spec, _RESIZING) and not nearest else step


# Of s pixels that become one, PaddleSeg's labels take the first, where the image shows the middle.
_RESIZING = (
    spec_of.Resize,
    spec_of.ResizeByLong,
    spec_of.ResizeByShort,
    spec_of.LimitLong,
    spec_of.ResizeRangeScaling,
    spec_of.ResizeStepScaling,
)


class _Resized:
    """One of PaddleSeg's that resize the whole; the label goes where the image goes."""

    def __init__(self, step: Any) -> None:
        self._step = step

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        image = copy.copy(self._step)({**data, "gt_fields": []})
        return {**image, "label": resized_label(data["label"], image["img"].shape[:2])}


class _Cropped:
    """PaddleSeg's RandomScaleAspect, with a label that goes where the image goes."""

    def __init__(self, step: Any) -> None:
        self._step = step

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        label = data["label"]
        # What it crops it tells nobody; the first and the last number that is left do.
        numbers = np.arange(label.size, dtype=np.float64).reshape(label.shape)
        image = self._step({**data, "numbers": numbers, "gt_fields": ["numbers"]})
        left = image.pop("numbers")
        (top, first), (bottom, last) = (divmod(int(n), label.shape[1]) for n in (left[0, 0], left[-1, -1]))
        crop = label[top : bottom + 1, first : last + 1]
        return {**image, "label": resized_label(crop, label.shape)}


class _Squared:
    """PaddleSeg's ScalePadding, but for the label: cubic interpolation makes classes between two classes."""

    def __init__(self, step: Any) -> None:
        self._step = step

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        label = data["label"]
        rows, columns = label.shape
        side = max(rows, columns)
        top, left = (side - rows) // 2, (side - columns) // 2
        square = np.full((side, side), self._step.label_padding_value, label.dtype)
        square[top : top + rows, left : left + columns] = label
        columns, rows = self._step.target_size
        return {**self._step({**data, "gt_fields": []}), "label": resized_label(square, (rows, columns))}


def _stock(step: Any, image: NDArray[Any], label: NDArray[Any]) -> tuple[NDArray[np.float32], Any]:
    """One of PaddleSeg's transforms; HWC in, float32 out, which is what PaddleSeg computes with.

    Grey images go in as HW, which is how PaddleSeg reads them: OpenCV drops a channel axis of length
    one, and Pillow (RandomDistort) refuses it. The step is a copy: ResizeByShort changes itself when
    `max_size` bites, and all later images would shrink with it.
    """
    image, label = np.require(image, np.float32, "W"), np.require(label, requirements="W")
    grey = image.shape[2] == 1
    data = copy.copy(step)(
        {
            "img": image[:, :, 0] if grey else image,
            "label": label,
            "gt_fields": ["label"],
            "trans_info": [],
        }
    )
    result = np.asarray(data["img"], dtype=np.float32)
    return result[:, :, None] if grey else result, data["label"]
