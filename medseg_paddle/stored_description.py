"""What kinds of values a ``bundle.json`` may hold: it may come from anybody, and is used without further questions.

Values with a meaning of their own (preprocessing, plan, rules) are checked where they are made objects of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

_Byte = Annotated[int, Field(ge=0, le=255)]
_Units = Annotated[list[Literal["HU", "arbitrary", "unknown"]], Field(min_length=1)]


class _Strict(BaseModel):
    """A number is a number, and finite; what is not named here is passed over."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Label(_Strict):
    index: int
    name: str
    color: Annotated[list[_Byte], Field(min_length=3, max_length=3)]


class _Window(_Strict):
    level: float
    width: PositiveFloat
    bits: Literal[8, 16] = 8


class _Range(_Strict):
    smallest: PositiveFloat
    median: PositiveFloat
    largest: PositiveFloat

    @model_validator(mode="after")
    def _require_order(self) -> _Range:
        if not self.smallest <= self.median <= self.largest:
            raise ValueError(f"a range from {self.smallest:g} to {self.largest:g} about {self.median:g}")
        return self


class _OfPictures(_Strict):
    planes: Annotated[list[Literal["axial", "coronal", "sagittal", "oblique"]], Field(min_length=1)]
    units: _Units
    rows: _Range
    columns: _Range
    between: _Range | None = None


class _OfVolumes(_Strict):
    units: _Units
    spacing: Annotated[list[_Range], Field(min_length=3, max_length=3)]
    tilt: Annotated[float, Field(ge=0, le=90)]


class _Parity(_Strict):
    shapes: list[list[PositiveInt]]
    max_difference: Annotated[float, Field(ge=0)]
    differing_pixels: Annotated[float, Field(ge=0, le=1)]


class _Stored(_Strict):
    name: str
    created: str
    dimensions: Literal[2, 3]
    labels: list[_Label]
    in_channels: PositiveInt
    window: _Window | None
    trained_on: _OfPictures | _OfVolumes | None
    preprocessing: list[dict[str, Any]]
    plan: dict[str, Any]
    tolerance: Annotated[float, Field(ge=0)]
    provenance: dict[str, Any]
    recipe: dict[str, Any]
    versions: dict[str, str]
    channel_windows: list[_Window]
    picture_windows: list[_Window]
    files_per_case: PositiveInt
    members: PositiveInt
    postprocessing: list[dict[str, Any]]
    neighbours: Annotated[int, Field(ge=0, le=32)]
    parity: _Parity


def require_kinds(content: Mapping[str, Any]) -> None:
    """See that the values of a ``bundle.json`` are of their kinds.

    Raises
    ------
    ValueError
        One is not, or is not there.
    """
    _Stored.model_validate(content)
