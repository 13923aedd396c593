"""The one path of a volume to a network's grid and back: turned, cropped, normalised, resampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Box, Geometry, LabelMap, LabelSet, Volume, crop, reorient
from medseg_paddle.core.geometry import parse_axis_codes
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.preprocess import specs as spec_of
from medseg_paddle.preprocess.intensity import NORMALIZATIONS, Normalization
from medseg_paddle.preprocess.interpolation import Interpolation
from medseg_paddle.preprocess.regions import body_mask, margin_voxels, nonzero_mask
from medseg_paddle.preprocess.resampling import (
    most_probable,
    resample,
    resample_labels,
    resample_probabilities,
)
from medseg_paddle.preprocess.slabs import as_float

CropTo = Literal["none", "nonzero", "body"]

_USUAL = Interpolation()


@dataclass(frozen=True)
class VolumePreprocessing:
    """How volumes are brought to the form that a 3-D network takes; the same in training and in use.

    In this order: turn, crop, normalise, resample. Intensities are clipped before they are interpolated, so that metal
    does not ring into its surroundings, and cropped at the source's resolution, so that only what is kept is worked on.

    Attributes
    ----------
    axes : str
        Where slices, rows and columns run to, see :attr:`~medseg_paddle.core.Geometry.axis_codes`. ``SPL`` shows axial
        slices as a radiologist sees them. Oblique volumes are turned to the nearest, not interpolated.
    spacing : three floats, optional
        mm along these axes, or None for an axis that keeps its voxels; None keeps all.
    crop : {"none", "nonzero", "body"}
        The smallest box around the region, see :mod:`~medseg_paddle.preprocess.regions`.
    margin_mm : float
        The box is this much wider on each side, within the image.
    normalization : HuWindow, ZScore or ForegroundRange, optional
        Its statistics are those of the part that is left.
    interpolation : Interpolation

    Raises
    ------
    RecipeError
        A value is out of range.
    """

    axes: str = "SPL"
    spacing: tuple[float | None, float | None, float | None] | None = None
    crop: CropTo = "none"
    margin_mm: float = 0.0
    normalization: Normalization | None = None
    interpolation: Interpolation = _USUAL

    def __post_init__(self) -> None:
        parse_axis_codes(self.axes)
        if self.spacing is not None:
            object.__setattr__(self, "spacing", _checked_spacing(self.spacing))
        if self.crop not in get_args(CropTo):
            raise RecipeError(
                f"crop '{self.crop}' is unknown", hint=f"use one of {', '.join(get_args(CropTo))}"
            )
        spec_of.number(self.margin_mm, "margin_mm", 0)
        if self.margin_mm and self.crop == "none":
            raise RecipeError(
                "margin_mm is the margin of a crop, and crop is none",
                hint="name a crop, or leave margin_mm out",
            )

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> VolumePreprocessing:
        """Make the object again that :attr:`spec` describes.

        Raises
        ------
        RecipeError
            A key is unknown or a value wrong.
        """
        values = dict(spec)
        if values.get("normalization") is not None:
            values["normalization"] = spec_of.build(values["normalization"], NORMALIZATIONS)
        if "interpolation" in values:
            named = {"type": "Interpolation", **values["interpolation"]}
            values["interpolation"] = spec_of.build(named, {"Interpolation": Interpolation})
        return spec_of.build({"type": cls.__name__, **values}, {cls.__name__: cls})

    @property
    def spec(self) -> dict[str, Any]:
        """What :meth:`from_spec` needs; goes into JSON as it is."""
        named = self.normalization
        return {
            "axes": self.axes,
            "spacing": None if self.spacing is None else list(self.spacing),
            "crop": self.crop,
            "margin_mm": self.margin_mm,
            "normalization": None if named is None else {"type": type(named).__name__, **_plain(named)},
            "interpolation": _plain(self.interpolation),
        }

    def forward(self, volume: Volume | Sequence[Volume], *, threads: int | None = None) -> PreparedVolume:
        """Bring a volume to the network's grid and scale.

        Parameters
        ----------
        volume : Volume, or a sequence of Volume
            Of any type and direction; is not changed. Several are the channels of one image, on one grid: the part
            that is kept is the smallest box around the region in all of them together, and each is normalised by
            itself.
        threads : int, optional
            As many as there are processors, unless told otherwise.

        Raises
        ------
        DataError
            The volume has no such region, is in other units than the normalisation needs, is blank or not finite, or
            the channels do not lie on one grid.
        """
        channels = [volume] if isinstance(volume, Volume) else list(volume)
        source = _one_grid(channels)
        turned = [reorient(channel, self.axes) for channel in channels]
        if self.crop != "none":
            box = self.kept(turned)
            turned = [crop(channel, box) for channel in turned]
        grid = self._respaced(turned[0].geometry)
        array = np.empty((len(turned), *grid.shape), np.float32)
        for channel, plane in zip(turned, array, strict=True):
            read = as_float if self.normalization is None else self.normalization.fit(channel)
            plane[...] = resample(
                channel, grid, interpolation=self.interpolation, read=read, threads=threads
            ).array
        return PreparedVolume(array, grid, source)

    def uncropped(self, source: Geometry) -> Geometry:
        """The network's grid of a whole volume; a crop leaves a part of it, or one that lies a little otherwise."""
        order, flips = source.turn_to(self.axes)
        return self._respaced(source.transposed(order).flipped(flips))

    def _respaced(self, grid: Geometry) -> Geometry:
        return grid if self.spacing is None else grid.respaced(self.spacing)

    def kept(self, channels: Sequence[Volume]) -> Box:
        """The part that a crop leaves of channels that were turned to :attr:`axes`.

        Raises
        ------
        DataError
            None of them has such a region.
        """
        find = body_mask if self.crop == "body" else nonzero_mask
        mask = find(channels[0])
        for channel in channels[1:]:
            mask |= find(channel)
        return Box.around(mask, margin_voxels(channels[0].geometry, self.margin_mm))


@dataclass(frozen=True, eq=False)
class PreparedVolume:
    """A volume as a network takes it, and the way back to where it came from.

    What was cropped away comes back as background.

    Attributes
    ----------
    array : ndarray, shape (channels, *geometry.shape), float32
    geometry : Geometry
        The network's grid: where the array's voxels lie in the patient.
    source : Geometry
        The grid that the volume came on.
    """

    array: NDArray[np.float32]
    geometry: Geometry
    source: Geometry

    def labels(self, label_map: LabelMap, *, vote: bool = False, threads: int | None = None) -> LabelMap:
        """A label map of the source on the network's grid, to learn from; see :func:`resample_labels`."""
        return resample_labels(label_map, self.geometry, vote=vote, threads=threads)

    def restore_labels(self, label_map: LabelMap, *, threads: int | None = None) -> LabelMap:
        """A label map of the network's grid on the source's, each voxel as the nearest one.

        Where there are probabilities, :meth:`restore` draws finer outlines.
        """
        self._require_grid(label_map.geometry)
        return resample_labels(label_map, self.source, threads=threads)

    def restore(
        self, probabilities: NDArray[Any], labels: LabelSet, *, threads: int | None = None
    ) -> LabelMap:
        """The most probable class at each voxel of the source, the probabilities having been interpolated.

        Slab by slab, so that no more is held than `probabilities`, the labels, and some tens of slices of each class.

        Parameters
        ----------
        probabilities : ndarray, shape (classes, *geometry.shape), floating point
            Background first; may be memory-mapped.
        labels : LabelSet
        threads : int, optional
        """
        return most_probable(probabilities, self.geometry, self.source, labels, threads=threads)

    def restore_probabilities(
        self, probabilities: NDArray[Any], *, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Probabilities on the source's grid, shape (classes, *source.shape), float32: large."""
        return resample_probabilities(probabilities, self.geometry, self.source, threads=threads)

    def _require_grid(self, geometry: Geometry) -> None:
        if not geometry.is_at(self.geometry):
            raise DataError(
                "the label map does not lie on the grid that the volume was brought to",
                hint="give the labels of this volume, on its own grid",
            )


def _one_grid(channels: Sequence[Volume]) -> Geometry:
    if not channels:
        raise DataError("an image without a channel", hint="name at least one file per image")
    first = channels[0].geometry
    for number, channel in enumerate(channels[1:], start=2):
        if not channel.geometry.is_at(first):
            raise DataError(
                f"channel {number} of an image does not lie where channel 1 lies: {channel.geometry.shape} voxels and "
                f"{first.shape}, or another place or direction",
                hint="resample the channels to one grid, as `medseg prepare` with `volumes: whole` asks for",
            )
    return first


def _checked_spacing(spacing: Any) -> tuple[float | None, float | None, float | None]:
    if not isinstance(spacing, Sequence) or isinstance(spacing, str) or len(spacing) != 3:
        raise RecipeError(
            f"spacing must be three numbers in mm, got {spacing!r}",
            hint="write it as [slices, rows, columns]",
        )
    one, two, three = (None if mm is None else spec_of.number(mm, "spacing", 1e-3, 1e3) for mm in spacing)
    return one, two, three


def _plain(spec: Any) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(spec).items()}
