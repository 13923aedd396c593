"""The preprocessing a model was trained with: from a picture to the network's input, and back.

The transforms carry PaddleSeg's names and give the numbers of PaddleSeg 2.8.0's own
(``paddleseg/transforms/transforms.py``), so that a recipe written for it means the same here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess import specs as spec_of
from medseg_paddle.preprocess.standardize import StandardizeImage

Size = tuple[int, int]
"""Rows, columns."""

_INTERPOLATION = {
    "NEAREST": cv2.INTER_NEAREST,
    "LINEAR": cv2.INTER_LINEAR,
    "CUBIC": cv2.INTER_CUBIC,
    "AREA": cv2.INTER_AREA,
    "LANCZOS4": cv2.INTER_LANCZOS4,
}


class _Step(Protocol):
    """One deterministic transform."""

    def output_size(self, size: Size) -> Size:
        """Return the size after the step of an image of `size`."""

    def forward(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the step to an image HWC."""

    def backward(self, planes: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
        """Undo the step's geometry on ``[C, h, w]``, where its input had `size`."""


@dataclass(frozen=True)
class Normalize:
    """``(x / 255 - mean) / std``, one number for all channels or one per channel."""

    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", spec_of.numbers(self.mean, "Normalize.mean"))
        object.__setattr__(self, "std", spec_of.numbers(self.std, "Normalize.std"))
        if min(self.std) <= 0:
            raise RecipeError(f"Normalize.std must be above 0, got {list(self.std)}", hint="correct it")

    def output_size(self, size: Size) -> Size:
        """Return the size after the step of an image of `size`."""
        return size

    def forward(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the step to an image HWC."""
        _require_per_channel(self.mean, image, "Normalize.mean")
        _require_per_channel(self.std, image, "Normalize.std")
        # float64 operands and float32 results in place: bit for bit what PaddleSeg computes.
        result: NDArray[np.float32] = image / np.float32(255)
        result -= np.array(self.mean)
        result /= np.array(self.std)
        return result

    def backward(self, planes: NDArray[np.float32], size: Size) -> NDArray[np.float32]:  # noqa: ARG002
        """Return `planes`: nothing was moved."""
        return planes


class _Resizing:
    """What all resizing steps share: they differ in the size they aim at."""

    interp: str = "LINEAR"

    def output_size(self, size: Size) -> Size:
        """Return the size after the step of an image of `size`."""
        raise NotImplementedError

    def forward(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the step to an image HWC."""
        return _resized(image, self.output_size(_size(image)), _INTERPOLATION[self.interp])

    def backward(self, planes: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
        """Undo the step's geometry on ``[C, h, w]``, where its input had `size`."""
        return np.stack([_resized(plane[..., None], size, cv2.INTER_LINEAR)[..., 0] for plane in planes])


@dataclass(frozen=True)
class Resize(_Resizing):
    """Resize to ``target_size`` = [width, height]."""

    target_size: tuple[int, int] = (512, 512)
    interp: str = "LINEAR"

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_size", spec_of.whole_pair(self.target_size, "Resize.target_size"))
        if self.interp not in _INTERPOLATION:
            raise RecipeError(
                f"Resize.interp '{self.interp}' is not supported",
                hint=f"use one of {', '.join(_INTERPOLATION)}; a random one would differ from run to run",
            )

    def output_size(self, size: Size) -> Size:  # noqa: ARG002
        """Return the size after the step of an image of `size`."""
        columns, rows = self.target_size
        return rows, columns


@dataclass(frozen=True)
class ResizeByLong(_Resizing):
    """Resize so that the longer side is ``long_size``, same aspect."""

    long_size: int

    def __post_init__(self) -> None:
        spec_of.whole_number(self.long_size, "ResizeByLong.long_size")

    def output_size(self, size: Size) -> Size:
        """Return the size after the step of an image of `size`."""
        scale = float(self.long_size) / float(max(size))
        return round(size[0] * scale), round(size[1] * scale)


@dataclass(frozen=True)
class ResizeByShort(_Resizing):
    """Resize so that the shorter side is ``short_size``, the longer at most ``max_size``, same aspect."""

    short_size: int
    max_size: float = 1e10

    def __post_init__(self) -> None:
        spec_of.whole_number(self.short_size, "ResizeByShort.short_size")
        spec_of.number(self.max_size, "ResizeByShort.max_size", 1)

    def output_size(self, size: Size) -> Size:
        """Return the size after the step of an image of `size`."""
        # PaddleSeg overwrites its own short_size at the first long image and keeps it for all later ones;
        # here every image is taken by itself.
        short = self.short_size
        if short / min(size) * max(size) > self.max_size:
            short = int(self.max_size / max(size) * min(size))
        scale = float(short) / float(min(size))
        return round(size[0] * scale), round(size[1] * scale)


@dataclass(frozen=True)
class Padding:
    """Pad bottom and right to ``target_size`` = [width, height] with one value, or one per channel."""

    target_size: tuple[int, int]
    im_padding_value: float | tuple[float, ...] = 127.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_size", spec_of.whole_pair(self.target_size, "Padding.target_size"))
        if isinstance(self.im_padding_value, Sequence):
            values = spec_of.numbers(self.im_padding_value, "Padding.im_padding_value")
            object.__setattr__(self, "im_padding_value", values)
        else:
            spec_of.number(self.im_padding_value, "Padding.im_padding_value")

    def output_size(self, size: Size) -> Size:
        """Return the size after the step of an image of `size`."""
        columns, rows = self.target_size
        if size[0] > rows or size[1] > columns:
            raise RecipeError(
                f"an image of {size[1]} x {size[0]} (width x height) does not fit Padding.target_size "
                f"{columns} x {rows}",
                hint="put a ResizeByLong before it, or make target_size larger",
            )
        return rows, columns

    def forward(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the step to an image HWC."""
        rows, columns = _size(image)
        if isinstance(self.im_padding_value, tuple):
            _require_per_channel(self.im_padding_value, image, "Padding.im_padding_value")
        result = np.full(
            (*self.output_size((rows, columns)), image.shape[2]), self.im_padding_value, np.float32
        )
        result[:rows, :columns] = image
        return result

    def backward(self, planes: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
        """Undo the step's geometry on ``[C, h, w]``, where its input had `size`."""
        return planes[:, : size[0], : size[1]]


TRANSFORMS: dict[str, type[_Step]] = {
    step.__name__: step
    for step in (Normalize, Padding, Resize, ResizeByLong, ResizeByShort, StandardizeImage)
}
"""What a recipe may name under ``val_dataset.transforms``."""


@dataclass(frozen=True)
class Preprocessing:
    """A fixed row of transforms, written once and carried from training to the bundle.

    Attributes
    ----------
    steps : tuple
        Normalize, Resize, ResizeByLong, ResizeByShort, Padding or StandardizeImage objects, applied in order.
    """

    steps: tuple[_Step, ...]

    @classmethod
    def from_specs(cls, specs: Sequence[Mapping[str, Any]]) -> Preprocessing:
        """Build from a recipe's list, e.g. ``[{"type": "Normalize", "mean": [0.5], "std": [0.5]}]``.

        Raises
        ------
        RecipeError
            A transform is not supported, or a parameter is unknown, missing or wrong.
        """
        return cls(tuple(spec_of.build(spec, TRANSFORMS) for spec in specs))

    @property
    def specs(self) -> list[dict[str, Any]]:
        """What :meth:`from_specs` needs to make this object again; goes into JSON as it is."""
        return [{"type": type(step).__name__, **asdict(step)} for step in self.steps]  # type: ignore[call-overload]

    def forward(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring a picture into the form the network takes.

        Parameters
        ----------
        image : ndarray, shape (H, W, C), float32
            Intensities on the scale 0..255; is not changed.

        Returns
        -------
        ndarray, shape (C, h, w), float32, contiguous
        """
        if image.ndim != 3:
            raise ValueError(f"image must be HWC, got shape {image.shape}")
        result = image.astype(np.float32, copy=False)
        for step in self.steps:
            result = step.forward(result)
        return np.ascontiguousarray(result.transpose(2, 0, 1))

    def restore(self, probabilities: NDArray[np.float32], original_size: Size) -> NDArray[np.float32]:
        """Bring the network's output back onto the picture's own pixels.

        Undoes the geometry in reverse order: padding is cropped, resizing is undone linearly.

        Parameters
        ----------
        probabilities : ndarray, shape (C, h, w), float32
        original_size : tuple of int
            Rows and columns of the picture that :meth:`forward` was given.

        Returns
        -------
        ndarray, shape (C, H, W), float32
        """
        sizes = [original_size]
        for step in self.steps:
            sizes.append(step.output_size(sizes[-1]))
        if probabilities.shape[1:] != sizes[-1]:
            raise ValueError(
                f"probabilities of size {probabilities.shape[1:]} do not belong to a picture of "
                f"{original_size}, which is {sizes[-1]} after preprocessing"
            )
        result = probabilities
        for step, size in zip(reversed(self.steps), reversed(sizes[:-1]), strict=True):
            result = step.backward(result, size)
        return np.ascontiguousarray(result, dtype=np.float32)


def _size(image: NDArray[np.float32]) -> Size:
    return image.shape[0], image.shape[1]


def _require_per_channel(values: tuple[float, ...], image: NDArray[np.float32], where: str) -> None:
    channels = image.shape[2]
    if len(values) not in (1, channels):
        raise RecipeError(
            f"{where} has {len(values)} numbers, the image has {channels} channels",
            hint=f"give one number, or {channels}",
        )


def _resized(image: NDArray[np.float32], size: Size, interpolation: int) -> NDArray[np.float32]:
    if min(size) < 1:
        raise RecipeError(
            f"an image of {_size(image)} would be resized to {size}", hint="choose a larger size"
        )
    result: NDArray[np.float32] = np.asarray(
        cv2.resize(np.ascontiguousarray(image), (size[1], size[0]), interpolation=interpolation),
        dtype=np.float32,
    )
    return result.reshape(*size, image.shape[2])  # OpenCV drops the channel axis of one-channel images
