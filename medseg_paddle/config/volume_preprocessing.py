"""The words for what is done to a whole volume before a network sees it; all of them ours.

Ranges, keys and defaults are those of `preprocess.volumes.VolumePreprocessing`, which is above this room
(`tests/config/test_volume_words.py` compares them).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from medseg_paddle.config.base import Spec, inconsistent
from medseg_paddle.core.geometry import parse_axis_codes
from medseg_paddle.errors import RecipeError

Millimetres = Annotated[float, Field(ge=1e-3, le=1e3)]
Percent = Annotated[float, Field(ge=0, le=100)]
InterpolationKind = Literal["cubic", "linear", "nearest"]


class HuWindow(Spec):
    """A window of Hounsfield units, as 0..1; values beyond are 0 or 1."""

    type: Literal["HuWindow"]
    level: float = Field(description="centre of the window, HU")
    width: PositiveFloat = Field(description="full width of the window, HU")


class ZScore(Spec):
    """Mean 0 and standard deviation 1 over a region of each volume, as is usual for MR."""

    type: Literal["ZScore"]
    region: Literal["all", "nonzero", "body"] = Field(
        "all",
        description="whose voxels are counted; `nonzero` leaves voxels of value 0 at 0, `body` is for CT in HU",
    )
    percentiles: tuple[Percent, Percent] | None = Field(
        None, description="values beyond these percentiles of the region are clipped first"
    )

    @model_validator(mode="after")
    def _require_ordered_percentiles(self) -> ZScore:
        if self.percentiles is not None and self.percentiles[0] > self.percentiles[1]:
            raise inconsistent(
                f"ZScore.percentiles: the lower {self.percentiles[0]:g} is above the upper {self.percentiles[1]:g}",
                at=("percentiles",),
                hint=f"write [{self.percentiles[1]:g}, {self.percentiles[0]:g}]",
            )
        return self


class ForegroundRange(Spec):
    """Clip to a fixed range of HU, subtract a mean, divide by a deviation: nnU-Net's way with CT."""

    type: Literal["ForegroundRange"]
    low: float = Field(description="values below are this, HU; nnU-Net: 0.5th percentile of the foreground")
    high: float = Field(description="values above are this, HU; nnU-Net: 99.5th percentile")
    mean: float = Field(description="subtracted, HU; nnU-Net: mean of the foreground of all training cases")
    std: PositiveFloat = Field(description="divided by, HU; nnU-Net: their standard deviation")

    @model_validator(mode="after")
    def _require_a_range(self) -> ForegroundRange:
        if self.low >= self.high:
            raise inconsistent(
                f"ForegroundRange.low {self.low:g} is not below high {self.high:g}",
                at=("low",),
                hint="give the range of the foreground",
            )
        return self


class VolumeInterpolation(Spec):
    """How intensities are resampled to `spacing`."""

    kind: InterpolationKind = Field("cubic", description="interpolation; `cubic` is a B-spline")
    across: InterpolationKind = Field(
        "linear", description="in place of `kind` along the axis of thick slices"
    )
    anisotropy: float = Field(
        3.0, ge=1, description="slices are thick from so many times the least spacing on"
    )
    antialias: bool = Field(True, description="smooth along axes that get coarser")


class VolumePreprocessing(Spec):
    """Ours: bring a whole volume to the network's grid (turn, crop, normalise, resample); first in all data sets."""

    type: Literal["VolumePreprocessing"]
    axes: str = Field(
        "SPL",
        description="where slices, rows and columns run to: L(eft) or R(ight), P(osterior) or A(nterior), S(uperior) "
        "or I(nferior); SPL shows axial slices as a radiologist sees them",
    )
    spacing: tuple[Millimetres | None, Millimetres | None, Millimetres | None] | None = Field(
        None,
        description="mm along slices, rows and columns; null for an axis that keeps its voxels; absent keeps all",
    )
    crop: Literal["none", "nonzero", "body"] = Field(
        "none", description="the smallest box around the region that is kept; `body` is for CT in HU"
    )
    margin_mm: float = Field(0.0, ge=0, description="the box is this much wider on each side, mm")
    normalization: Annotated[HuWindow | ZScore | ForegroundRange, Field(discriminator="type")] | None = Field(
        None, description="intensities on the network's scale; as they are where absent"
    )
    interpolation: VolumeInterpolation = Field(
        VolumeInterpolation(), description="how intensities are resampled"
    )

    @model_validator(mode="after")
    def _require_axes_and_a_crop_to_widen(self) -> VolumePreprocessing:
        try:
            parse_axis_codes(self.axes)
        except RecipeError as error:
            raise inconsistent(f"axes: {error.message}", at=("axes",), hint=error.hint) from None
        if self.margin_mm and self.crop == "none":
            raise inconsistent(
                "margin_mm is the margin of a crop, and crop is none",
                at=("margin_mm",),
                hint="name a `crop`, or leave margin_mm out",
            )
        return self
