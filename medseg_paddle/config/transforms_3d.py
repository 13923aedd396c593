"""The words of a recipe for training images of volumes; axes are 0 for slices, 1 for rows, 2 for columns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from medseg_paddle.config.base import Ordered, Probability, Spec, inconsistent

Angle = Annotated[float, Field(ge=0, le=180)]
Factor = Annotated[float, Field(ge=0, le=100)]
Exponent = Annotated[float, Field(ge=0.01, le=100)]
Share = Annotated[float, Field(ge=0.01, le=1)]
Voxels = Annotated[float, Field(ge=0, le=1000)]
Width = Annotated[float, Field(ge=0.1, le=1e6)]
BlurWidth = Annotated[float, Field(ge=0.01, le=100)]
Axis = Annotated[int, Field(ge=0, le=2)]


def _require_different(axes: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(axes)) < len(axes):
        raise inconsistent(f"an axis is named twice in {list(axes)}", hint="name each once")
    return axes


_Axes = Annotated[tuple[Axis, ...], AfterValidator(_require_different)]


class RandomVolumePatch(Spec):
    """Ours: cut a patch of a volume that is turned, scaled, deformed and mirrored, in one interpolation."""

    type: Literal["RandomVolumePatch"]
    size: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(description="slices, rows and columns")
    foreground: Probability = Field(
        0.33, description="share of patches around a voxel of a class, classes drawn evenly"
    )
    rotation: tuple[Angle, Angle, Angle] = Field(
        (30.0, 30.0, 30.0),
        description="greatest angle about each axis in degrees, either way, true in mm; "
        "[180, 0, 0] turns within slices only",
    )
    rotation_prob: Probability = Field(0.2, description="probability of a rotation")
    scale: Annotated[
        tuple[Annotated[float, Field(ge=0.01, le=100)], Annotated[float, Field(ge=0.01, le=100)]], Ordered
    ] = Field((0.7, 1.4), description="least and greatest magnification")
    scale_axes: _Axes = Field((0, 1, 2), description="axes that are magnified; [1, 2] leaves thick slices")
    scale_prob: Probability = Field(0.2, description="probability of a magnification")
    elastic_alpha: tuple[Voxels, Voxels, Voxels] = Field(
        (2.0, 2.0, 2.0),
        description="root mean square of a smooth displacement along each axis, in voxels; 0 leaves an axis",
    )
    elastic_sigma: tuple[Width, Width, Width] = Field(
        (10.0, 10.0, 10.0),
        description="smoothness of the displacement along each axis, in voxels; 1000 for the slices moves all alike",
    )
    elastic_prob: Probability = Field(0, description="probability of a displacement")
    mirror: _Axes = Field(
        (),
        description="axes along which every other patch is mirrored; none by default: left and right are not the same "
        "in a body, and a mirrored liver lies on the wrong side",
    )


class RandomVolumeIntensity(Spec):
    """Ours: noise, blur, brightness, contrast, low resolution and gamma of normalised volumes, as in nnU-Net."""

    type: Literal["RandomVolumeIntensity"]
    noise: Annotated[tuple[Factor, Factor], Ordered] = Field(
        (0.0, 0.1), description="least and greatest standard deviation, in units of the normalised image"
    )
    noise_prob: Probability = Field(0.1, description="probability of noise")
    blur: Annotated[tuple[BlurWidth, BlurWidth], Ordered] = Field(
        (0.5, 1.0), description="least and greatest standard deviation in voxels, drawn for each axis"
    )
    blur_prob: Probability = Field(0.2, description="probability of a blur")
    brightness: Annotated[tuple[Factor, Factor], Ordered] = Field(
        (0.75, 1.25), description="least and greatest factor; drawn below 1 as often as above"
    )
    brightness_prob: Probability = Field(0.15, description="probability of a change of brightness")
    contrast: Annotated[tuple[Factor, Factor], Ordered] = Field(
        (0.75, 1.25), description="least and greatest factor about the mean, drawn likewise; the range stays"
    )
    contrast_prob: Probability = Field(0.15, description="probability of a change of contrast")
    low_resolution: Annotated[tuple[Share, Share], Ordered] = Field(
        (0.5, 1.0), description="least and greatest share of the resolution that is left"
    )
    low_resolution_axes: _Axes = Field(
        (0, 1, 2), description="axes of which resolution is lost; [1, 2] leaves thick slices"
    )
    low_resolution_prob: Probability = Field(0.25, description="probability of a loss of resolution")
    gamma: Annotated[tuple[Exponent, Exponent], Ordered] = Field(
        (0.7, 1.5), description="least and greatest exponent, drawn likewise; mean and spread stay"
    )
    gamma_prob: Probability = Field(0.3, description="probability of a change of gamma")
    gamma_inverted_prob: Probability = Field(
        0.1, description="probability of one made on the negative, before it"
    )
    channel_prob: Probability = Field(
        0.5, description="where a patch is blurred or loses resolution, the probability of each channel"
    )
