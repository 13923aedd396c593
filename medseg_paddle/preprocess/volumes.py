"""The one path of a volume to a network's grid and back: turned, cropped, normalised, resampled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Box, Geometry, LabelMap, Volume, crop, reorient
from medseg_paddle.core.geometry import parse_axis_codes
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.preprocess import specs as spec_of
from medseg_paddle.preprocess.intensity import NORMALIZATIONS, Normalization, ZScore
from medseg_paddle.preprocess.interpolation import Interpolation
from medseg_paddle.preprocess.regions import body_mask, margin_voxels, nonzero_mask
from medseg_paddle.preprocess.resampling import resample, resample_labels, sampler_of, threads_pool
from medseg_paddle.preprocess.slabs import Read, as_float
from medseg_paddle.preprocess.streaming import StreamedSlices

CropTo = Literal["none", "nonzero", "body"]

_USUAL = Interpolation()
_REGION_BYTES = {"none": 0, "nonzero": 2, "body": 7}  # masks, and numbers of the parts


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
        source, turned, grid = self._placed(volume)
        array = np.empty((len(turned), *grid.shape), np.float32)
        for channel, plane in zip(turned, array, strict=True):
            plane[...] = resample(
                channel, grid, interpolation=self.interpolation, read=self._read(channel), threads=threads
            ).array
        return PreparedVolume(array, grid, source)

    @contextlib.contextmanager
    def streamed(
        self, volume: Volume | Sequence[Volume], *, threads: int | None = None
    ) -> Iterator[StreamedVolume]:
        """As :meth:`forward`, but slices are made when they are asked for, from the first to the last.

        The values are those of :meth:`forward`, bit for bit; that a voxel is not finite is found on the way.
        """
        source, turned, grid = self._placed(volume)
        with threads_pool(threads) as pool:
            samplers = [
                sampler_of(
                    channel, grid, interpolation=self.interpolation, read=self._read(channel), pool=pool
                )
                for channel in turned
            ]
            yield StreamedVolume(StreamedSlices(samplers, grid.shape), grid, source)

    def _placed(self, volume: Volume | Sequence[Volume]) -> tuple[Geometry, list[Volume], Geometry]:
        """The grid that a volume came on, what is kept of each channel, turned, and the network's grid."""
        channels = [volume] if isinstance(volume, Volume) else list(volume)
        source = _one_grid(channels)
        turned = [reorient(channel, self.axes) for channel in channels]
        if self.crop != "none":
            box = Box.around(self._region(turned), margin_voxels(turned[0].geometry, self.margin_mm))
            turned = [crop(channel, box) for channel in turned]
        return source, turned, self._respaced(turned[0].geometry)

    def uncropped(self, source: Geometry) -> Geometry:
        """The network's grid of a whole volume; a crop leaves a part of it, or one that lies a little otherwise."""
        order, flips = source.turn_to(self.axes)
        return self._respaced(source.transposed(order).flipped(flips))

    def _respaced(self, grid: Geometry) -> Geometry:
        return grid if self.spacing is None else grid.respaced(self.spacing)

    def _read(self, channel: Volume) -> Read:
        return as_float if self.normalization is None else self.normalization.fit(channel)

    @property
    def region_bytes(self) -> int:
        """Bytes a voxel, at most, that are taken to find a region and what is in it, and given back."""
        named = self.normalization
        found = _REGION_BYTES[self.crop]
        if isinstance(named, ZScore):
            region = _REGION_BYTES["none" if named.region == "all" else named.region]
            found = max(found, region + (0 if named.region == "all" else 4) + 4 * bool(named.percentiles))
        return found

    def _region(self, channels: Sequence[Volume]) -> NDArray[np.bool_]:
        find = body_mask if self.crop == "body" else nonzero_mask
        mask = find(channels[0])
        for channel in channels[1:]:
            mask |= find(channel)
        return mask


@dataclass(frozen=True, eq=False)
class PreparedVolume:
    """A volume as a network takes it, and where it came from.

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


@dataclass(frozen=True, eq=False)
class StreamedVolume:
    """As :class:`PreparedVolume`, but of ``array`` there are only the slices that were asked for last."""

    array: StreamedSlices
    geometry: Geometry
    source: Geometry


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
