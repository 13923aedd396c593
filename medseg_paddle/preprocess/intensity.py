"""Intensities of volumes on the scale of a network: windows, z-scores, ranges of the foreground.

Each way is a frozen value that looks at a volume once (:meth:`fit`) and then treats every voxel by itself, so that it
can be done slice by slice while a volume is resampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import LabelMap, Volume
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.preprocess import specs as spec_of
from medseg_paddle.preprocess.regions import body_mask, nonzero_mask

Region = Literal["all", "nonzero", "body"]


@dataclass(frozen=True)
class Ramp:
    """``(clip(x, low, high) - subtract) / divide`` of each value, in float32; 0 stays 0 where `keep_zero` says so."""

    low: float
    high: float
    subtract: float
    divide: float
    keep_zero: bool = False

    def __call__(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Values on the new scale, of any stored type."""
        values = np.array(stored, np.float32)
        np.clip(values, np.float32(self.low), np.float32(self.high), out=values)
        values -= np.float32(self.subtract)
        values /= np.float32(self.divide)
        if self.keep_zero:
            values[stored == 0] = 0
        return values


class Normalization(Protocol):
    """A way to bring intensities to the scale of a network."""

    def fit(self, volume: Volume) -> Ramp:
        """What it does to the values of `volume`."""


@dataclass(frozen=True)
class HuWindow:
    """A window of Hounsfield units, ``level - width / 2 .. level + width / 2``, as 0..1; values beyond are 0 or 1.

    Attributes
    ----------
    level, width : float
        HU; the lung window is -600 and 1500, that of soft tissue 40 and 400.
    """

    level: float
    width: float

    def __post_init__(self) -> None:
        spec_of.number(self.level, "HuWindow.level")
        _require_positive(self.width, "HuWindow.width")

    def fit(self, volume: Volume) -> Ramp:
        """What it does to the values of `volume`, which must be in HU."""
        _require_hu(volume, "HuWindow")
        low = self.level - self.width / 2
        return Ramp(low, low + self.width, subtract=low, divide=self.width)


@dataclass(frozen=True)
class ZScore:
    """Mean 0 and standard deviation 1 over a region of the volume, as is usual for MR.

    Attributes
    ----------
    region : {"all", "nonzero", "body"}
        Whose voxels are counted. ``nonzero`` leaves voxels of value 0 at 0 (skull-stripped images; nnU-Net's
        ``use_mask_for_norm`` but for zeros that the brain encloses); the others treat all voxels alike. ``body`` is
        :func:`~medseg_paddle.preprocess.regions.body_mask`, of a CT.
    percentiles : two floats, optional
        Values beyond these percentiles of the region, 0..100, are clipped before mean and deviation are taken: a
        few bright vessels or a metal artefact do not set the scale.
    """

    region: Region = "all"
    percentiles: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.region not in get_args(Region):
            raise RecipeError(
                f"ZScore.region '{self.region}' is unknown", hint=f"use one of {', '.join(get_args(Region))}"
            )
        if self.percentiles is not None:
            object.__setattr__(
                self, "percentiles", spec_of.interval(self.percentiles, "ZScore.percentiles", 0, 100)
            )

    def fit(self, volume: Volume) -> Ramp:
        """What it does to the values of `volume`.

        Raises
        ------
        DataError
            The region is empty or all of one value, a voxel of it is not finite, or ``body`` is asked for without HU.
        """
        values = self._counted(volume)
        low, high = -math.inf, math.inf
        if self.percentiles is not None:
            low, high = (float(value) for value in np.percentile(values, self.percentiles))
        mean, spread = _moments(values, low, high)
        if not (math.isfinite(mean) and math.isfinite(spread)):
            raise DataError(
                "the volume has voxels that are not finite (NaN or infinite)",
                hint="export the image again, or fill these voxels with the value of air on purpose",
            )
        if spread <= 1e-6 * max(abs(mean), 1e-6):
            raise DataError(
                f"there is no contrast to normalise: the volume is {mean:g} throughout (ZScore, region {self.region})",
                hint="look at the image; leave it out if it is blank",
            )
        return Ramp(low, high, subtract=mean, divide=spread, keep_zero=self.region == "nonzero")

    def _counted(self, volume: Volume) -> NDArray[Any]:
        if self.region == "all":
            return volume.array.reshape(-1)
        mask = body_mask(volume) if self.region == "body" else nonzero_mask(volume)
        values = volume.array[mask]
        if not len(values):
            raise DataError(
                f"there is nothing to normalise: no voxel of the region {self.region}",
                hint="look at the image; leave it out if it is blank",
            )
        return values


@dataclass(frozen=True)
class ForegroundRange:
    """Clip to a fixed range, then subtract a mean and divide by a deviation: nnU-Net's way with CT.

    The four numbers are those of the foreground of all training cases, 0.5th and 99.5th percentile, mean and standard
    deviation (Isensee et al. 2021, Nature Methods; ``CTNormalization``), so that a value means the same in every
    patient.

    Attributes
    ----------
    low, high, mean, std : float
        HU.
    """

    low: float
    high: float
    mean: float
    std: float

    def __post_init__(self) -> None:
        spec_of.number(self.mean, "ForegroundRange.mean")
        _require_positive(self.std, "ForegroundRange.std")
        spec_of.interval((self.low, self.high), "ForegroundRange.low and high")
        if self.low == self.high:
            raise RecipeError(
                f"ForegroundRange.low and high are both {self.low:g}", hint="give the range of the foreground"
            )

    @classmethod
    def of(cls, samples: Sequence[NDArray[Any]]) -> ForegroundRange:
        """From values of the foreground, an array for each training case (:func:`foreground_values`)."""
        values = np.concatenate([np.asarray(one, np.float64) for one in samples]) if samples else np.empty(0)
        if not len(values):
            raise DataError("no training case has foreground", hint="check the label maps")
        low, high = (float(value) for value in np.percentile(values, (0.5, 99.5)))
        if low == high:
            raise DataError(
                f"the foreground of all training cases is {low:g} throughout: no contrast to normalise by",
                hint="look at the images: they may hold the labels' values",
            )
        return cls(low, high, float(values.mean()), float(values.std()))

    def fit(self, volume: Volume) -> Ramp:
        """What it does to the values of `volume`, which must be in HU."""
        _require_hu(volume, "ForegroundRange")
        return Ramp(self.low, self.high, subtract=self.mean, divide=self.std)


def foreground_values(
    volume: Volume, label_map: LabelMap, count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Intensities of `count` voxels of the foreground, drawn with repeats; none where there is no foreground.

    As many of each case, so that a large organ in one does not outweigh the others (nnU-Net draws 10,000).

    Raises
    ------
    DataError
        Volume and label map are of different shape.
    """
    if volume.array.shape != label_map.array.shape:
        raise DataError(
            f"a label map of {label_map.array.shape} voxels beside a volume of {volume.array.shape}",
            hint="resample one to the grid of the other",
        )
    places = np.flatnonzero(label_map.array)
    if not len(places):
        return np.empty(0)
    drawn = rng.choice(places, size=count)
    return np.asarray(volume.array[np.unravel_index(drawn, volume.array.shape)], np.float64)


NORMALIZATIONS: dict[str, type[Normalization]] = {
    one.__name__: one for one in (HuWindow, ZScore, ForegroundRange)
}
"""What a recipe may name."""


def _moments(values: NDArray[Any], low: float, high: float) -> tuple[float, float]:
    """Mean and standard deviation of clipped values in float64, a piece at a time."""
    pieces = [values[first : first + (1 << 20)] for first in range(0, len(values), 1 << 20)]

    def total(power: int, middle: float) -> float:
        return math.fsum(
            float(((np.clip(piece.astype(np.float64), low, high) - middle) ** power).sum())
            for piece in pieces
        )

    mean = total(1, 0.0) / len(values)
    return mean, math.sqrt(total(2, mean) / len(values)) if math.isfinite(mean) else math.nan


def _require_positive(value: Any, where: str) -> None:
    if spec_of.number(value, where, 0) == 0:
        raise RecipeError(f"{where} must be above 0", hint="correct it")


def _require_hu(volume: Volume, name: str) -> None:
    if volume.units != "HU":
        raise DataError(
            f"{name} is for Hounsfield units, the volume's are {volume.units}",
            hint="for MR there is ZScore; of CT in NIfTI files say `units: HU` in `prepare` and prepare again",
        )
