"""The words of PaddleSeg's YAML files for transforms; checked without loading it.

Each class is called as PaddleSeg 2.8.0 calls the component, with the same keys and defaults
(`tests/config/test_components.py` compares them), so that its 2.x recipes load unchanged. Components
of our own stand beside them and say so in their first line.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from medseg_paddle.config.base import Ordered, Probability, Spec, inconsistent
from medseg_paddle.config.transforms_3d import RandomVolumeIntensity, RandomVolumePatch
from medseg_paddle.config.volume_preprocessing import VolumePreprocessing

Size = tuple[PositiveInt, PositiveInt]


class Normalize(Spec):
    """``(x / 255 - mean) / std`` per channel."""

    type: Literal["Normalize"]
    mean: tuple[float, ...] = Field((0.5,), description="mean per channel, on the 0..1 scale")
    std: tuple[PositiveFloat, ...] = Field((0.5,), description="standard deviation per channel, 0..1 scale")


class Resize(Spec):
    """Resize to a fixed size."""

    type: Literal["Resize"]
    target_size: Size = Field((512, 512), description="width and height in pixels")
    keep_ratio: Literal[False] = Field(False, description="PaddleSeg's key; only false is supported")
    size_divisor: None = Field(None, description="PaddleSeg's key; only null is supported")
    interp: Literal["NEAREST", "LINEAR", "CUBIC", "AREA", "LANCZOS4"] = Field(
        "LINEAR", description="interpolation of the image; labels are always nearest neighbour"
    )

    @field_validator("keep_ratio", "size_divisor", mode="before")
    @classmethod
    def _refuse_what_is_not_supported(cls, value: Any, info: ValidationInfo) -> Any:
        if value:
            raise inconsistent(
                f"Resize: `{info.field_name}` is not supported",
                hint=f"remove `{info.field_name}`; ResizeByLong or ResizeByShort keeps the aspect ratio, "
                "Padding fills up to a size",
            )
        return value


class ResizeByLong(Spec):
    """Resize so that the longer side has a length."""

    type: Literal["ResizeByLong"]
    long_size: PositiveInt = Field(description="length of the longer side in pixels")


class ResizeByShort(Spec):
    """Resize so that the shorter side has a length."""

    type: Literal["ResizeByShort"]
    short_size: PositiveInt = Field(description="length of the shorter side in pixels")
    max_size: PositiveFloat = Field(1e10, description="limit of the longer side in pixels")


class Padding(Spec):
    """Pad at the right and the bottom to a fixed size."""

    type: Literal["Padding"]
    target_size: Size = Field(description="width and height in pixels")
    im_padding_value: float | tuple[float, ...] = Field(127.5, description="value of padded image pixels")
    label_padding_value: int = Field(255, description="value of padded label pixels")


class RandomHorizontalFlip(Spec):
    """Flip left and right."""

    type: Literal["RandomHorizontalFlip"]
    prob: Probability = Field(0.5, description="probability")


class RandomVerticalFlip(Spec):
    """Flip top and bottom."""

    type: Literal["RandomVerticalFlip"]
    prob: Probability = Field(0.1, description="probability")


class LimitLong(Spec):
    """Keep the longer side within limits."""

    type: Literal["LimitLong"]
    max_long: PositiveInt | None = Field(None, description="upper limit in pixels")
    min_long: PositiveInt | None = Field(None, description="lower limit in pixels")


class ResizeRangeScaling(Spec):
    """Resize the longer side to a random length."""

    type: Literal["ResizeRangeScaling"]
    min_value: PositiveInt = Field(400, description="least length in pixels")
    max_value: PositiveInt = Field(600, description="greatest length in pixels")


class ResizeStepScaling(Spec):
    """Resize by a random factor."""

    type: Literal["ResizeStepScaling"]
    min_scale_factor: PositiveFloat = Field(0.75, description="least factor")
    max_scale_factor: PositiveFloat = Field(1.25, description="greatest factor")
    scale_step_size: NonNegativeFloat = Field(
        0.25, description="step between factors; 0 draws from the range"
    )


class PaddingByAspectRatio(Spec):
    """Pad to an aspect ratio."""

    type: Literal["PaddingByAspectRatio"]
    aspect_ratio: PositiveFloat = Field(1, description="width divided by height")
    im_padding_value: float = Field(127.5, description="value of padded image pixels")
    label_padding_value: int = Field(255, description="value of padded label pixels")


class RandomPaddingCrop(Spec):
    """Cut a random window, padded where the image is smaller."""

    type: Literal["RandomPaddingCrop"]
    crop_size: Size = Field((512, 512), description="width and height in pixels")
    im_padding_value: float | tuple[float, ...] = Field(127.5, description="value of padded image pixels")
    label_padding_value: int = Field(255, description="value of padded label pixels")
    category_max_ratio: Probability = Field(1.0, description="PaddleSeg's key; only 1 is supported")
    ignore_index: int = Field(255, description="PaddleSeg's key; without a meaning while the one above is 1")
    loop_times: PositiveInt = Field(10, description="PaddleSeg's key; likewise")

    @field_validator("category_max_ratio")
    @classmethod
    def _refuse_what_puts_the_label_in_place_of_the_image(cls, value: float) -> float:
        if value < 1:
            raise inconsistent(
                "RandomPaddingCrop: `category_max_ratio` below 1 is not supported; "
                "PaddleSeg 2.8.0 then returns the label in place of the image",
                hint="remove it; RandomAffinePatch with `foreground` sees that a share of the patches holds foreground",
            )
        return value


class RandomCenterCrop(Spec):
    """Crop the centre by a random share."""

    type: Literal["RandomCenterCrop"]
    retain_ratio: tuple[Probability, Probability] = Field((0.5, 0.5), description="least share kept, by side")


class ScalePadding(Spec):
    """Pad to a square, then resize."""

    type: Literal["ScalePadding"]
    target_size: Size = Field((512, 512), description="width and height in pixels")
    im_padding_value: float | tuple[float, ...] = Field(127.5, description="value of padded image pixels")
    label_padding_value: int = Field(255, description="value of padded label pixels")


class RandomNoise(Spec):
    """Add Gaussian noise."""

    type: Literal["RandomNoise"]
    prob: Probability = Field(0.5, description="probability")
    max_sigma: NonNegativeFloat = Field(10.0, description="greatest standard deviation, 0..255 scale")


class RandomBlur(Spec):
    """Blur."""

    type: Literal["RandomBlur"]
    prob: Probability = Field(0.1, description="probability")
    blur_type: Literal["gaussian", "median", "blur", "random"] = Field("gaussian", description="kind of blur")


class RandomRotation(Spec):
    """Rotate; the image grows to hold the corners."""

    type: Literal["RandomRotation"]
    max_rotation: NonNegativeFloat = Field(15, description="greatest angle in degrees")
    im_padding_value: float | tuple[float, ...] = Field(127.5, description="value of padded image pixels")
    label_padding_value: int = Field(255, description="value of padded label pixels")


class RandomScaleAspect(Spec):
    """Crop a random area of a random aspect ratio and resize it back."""

    type: Literal["RandomScaleAspect"]
    min_scale: Probability = Field(0.5, description="least share of the area")
    aspect_ratio: NonNegativeFloat = Field(0.33, description="least aspect ratio")


class RandomDistort(Spec):
    """Change brightness, contrast, saturation, hue and sharpness (8-bit images)."""

    type: Literal["RandomDistort"]
    brightness_range: NonNegativeFloat = Field(0.5, description="range of brightness")
    brightness_prob: Probability = Field(0.5, description="probability of a change of brightness")
    contrast_range: NonNegativeFloat = Field(0.5, description="range of contrast")
    contrast_prob: Probability = Field(0.5, description="probability of a change of contrast")
    saturation_range: NonNegativeFloat = Field(0.5, description="range of saturation")
    saturation_prob: Probability = Field(0.5, description="probability of a change of saturation")
    hue_range: NonNegativeInt = Field(18, description="range of hue in degrees")
    hue_prob: Probability = Field(0.5, description="probability of a change of hue")
    sharpness_range: NonNegativeFloat = Field(0.5, description="range of sharpness")
    sharpness_prob: Probability = Field(0, description="probability of a change of sharpness")


class RandomAffine(Spec):
    """Shift, rotate and scale to a fixed size."""

    type: Literal["RandomAffine"]
    size: Size = Field((224, 224), description="width and height in pixels")
    translation_offset: NonNegativeFloat = Field(0, description="greatest shift in pixels")
    max_rotation: NonNegativeFloat = Field(15, description="greatest angle in degrees")
    min_scale_factor: PositiveFloat = Field(0.75, description="least factor")
    max_scale_factor: PositiveFloat = Field(1.25, description="greatest factor")
    im_padding_value: float | tuple[float, ...] = Field(128, description="value of padded image pixels")
    label_padding_value: int = Field(255, description="value of padded label pixels")


class RandomAffinePatch(Spec):
    """Ours: cut a patch that is rotated, scaled, shifted and flipped, in one interpolation."""

    type: Literal["RandomAffinePatch"]
    size: Size = Field(description="height and width of the patch in pixels")
    rotation: NonNegativeFloat = Field(0, le=180, description="greatest angle in degrees, either way")
    scale: tuple[PositiveFloat, PositiveFloat] = Field((1, 1), description="least and greatest magnification")
    flip_horizontal: Probability = Field(0, description="probability of a left-right flip")
    flip_vertical: Probability = Field(0, description="probability of a top-bottom flip")
    rotate90: Probability = Field(0, description="probability of a turn by 90, 180 or 270 degrees")
    foreground: Probability = Field(0, description="share of patches centred on a foreground pixel")
    foreground_by: Literal["pixel", "class"] = Field(
        "pixel",
        description="drawn among all foreground pixels, or a class of the label first, then its pixels",
    )
    border: Literal["reflect", "ignore"] = Field(
        "reflect", description="beyond the image: reflected, or ignored"
    )
    shift: NonNegativeInt = Field(
        0, description="greatest shift along each axis, either way, in pixels of the patch"
    )
    rotation_prob: Probability = Field(1, description="probability of a rotation")
    scale_prob: Probability = Field(1, description="probability of a magnification")
    shift_prob: Probability = Field(1, description="probability of a shift")

    @model_validator(mode="after")
    def _require_an_ordered_scale(self) -> RandomAffinePatch:
        least, greatest = self.scale
        if least > greatest:
            raise inconsistent(
                f"RandomAffinePatch.scale: the least magnification {least:g} is above the greatest {greatest:g}",
                at=("scale",),
                hint=f"write scale: [{greatest:g}, {least:g}]",
            )
        return self


class RandomIntensity(Spec):
    """Ours: change brightness, contrast and gamma, add noise."""

    type: Literal["RandomIntensity"]
    brightness: NonNegativeFloat = Field(
        0, le=1, description="greatest shift, as a share of the 0..255 range"
    )
    contrast: NonNegativeFloat = Field(
        0, le=10, description="contrast times 1/(1+this) to 1+this, about the mean"
    )
    gamma: NonNegativeFloat = Field(0, le=10, description="exponent from 1/(1+this) to 1+this")
    noise: NonNegativeFloat = Field(
        0, le=1, description="greatest standard deviation, as a share of the range"
    )
    per_channel: bool = Field(False, description="draw for every channel anew")
    brightness_prob: Probability = Field(1, description="probability of a change of brightness")
    contrast_prob: Probability = Field(1, description="probability of a change of contrast")
    gamma_prob: Probability = Field(1, description="probability of a change of gamma")
    noise_prob: Probability = Field(1, description="probability of noise")
    gamma_inverted: Probability = Field(
        0, description="share of the changes of gamma made on the negative: dark and bright change roles"
    )


class RandomGaussianBlur(Spec):
    """Ours: blur with a Gaussian of random width."""

    type: Literal["RandomGaussianBlur"]
    sigma: Annotated[
        tuple[Annotated[float, Field(ge=0.01, le=100)], Annotated[float, Field(ge=0.01, le=100)]], Ordered
    ] = Field((0.5, 1.0), description="least and greatest standard deviation in pixels")
    per_channel: bool = Field(False, description="draw for every channel anew, also whether it is blurred")
    prob: Probability = Field(0.2, description="probability; with `per_channel`, of each channel")


class RandomLowResolution(Spec):
    """Ours: shrink and enlarge again, as a coarser scanner would have seen it."""

    type: Literal["RandomLowResolution"]
    zoom: Annotated[
        tuple[Annotated[float, Field(ge=0.01, le=1)], Annotated[float, Field(ge=0.01, le=1)]], Ordered
    ] = Field((0.5, 1.0), description="least and greatest share of the resolution that is left")
    per_channel: bool = Field(False, description="draw for every channel anew, also whether it is changed")
    prob: Probability = Field(0.25, description="probability; with `per_channel`, of each channel")


class RandomChannelDrop(Spec):
    """Ours: blank channels, as where a sequence or a stain is missing."""

    type: Literal["RandomChannelDrop"]
    channels: PositiveInt = Field(1, description="greatest number blanked at once; one always stays")
    fill: Literal["zero", "mean"] = Field("zero", description="black, or the channel's mean")
    prob: Probability = Field(0.1, description="probability")


class RandomCutout(Spec):
    """Ours: blank rectangles of the image."""

    type: Literal["RandomCutout"]
    holes: Annotated[tuple[PositiveInt, PositiveInt], Ordered] = Field(
        (1, 1), description="least and greatest number of rectangles"
    )
    size: Annotated[tuple[Probability, Probability], Ordered] = Field(
        (0.1, 0.3), description="least and greatest side, as a share of the image's side"
    )
    fill: Literal["zero", "mean"] = Field("mean", description="black, or each channel's mean")
    label: Literal["keep", "ignore"] = Field(
        "keep", description="what is beneath is to be found all the same, or is ignored"
    )
    prob: Probability = Field(0.5, description="probability")


class RandomHistogramMatch(Spec):
    """Ours: give each channel the histogram of a picture from another hospital."""

    type: Literal["RandomHistogramMatch"]
    styles: str = Field(
        description="folder of the other hospital's pictures, without labels, 200 at most: of a prepared data set "
        "its training images, else every picture directly in it; relative to the working directory"
    )
    strength: Annotated[tuple[Probability, Probability], Ordered] = Field(
        (1.0, 1.0), description="least and greatest share of the way to the other histogram"
    )
    prob: Probability = Field(0.5, description="probability")


class RandomFourierStyle(Spec):
    """Ours: take the lowest frequencies' amplitudes from a picture of another hospital (Yang and Soatto 2020)."""

    type: Literal["RandomFourierStyle"]
    styles: str = Field(
        description="folder of the other hospital's pictures, without labels, 200 at most: of a prepared data set "
        "its training images, else every picture directly in it; relative to the working directory"
    )
    beta: Annotated[
        tuple[Annotated[float, Field(ge=0, le=0.25)], Annotated[float, Field(ge=0, le=0.25)]], Ordered
    ] = Field(
        (0.0, 0.05),
        description="least and greatest share of the frequencies; at most 128 cycles along a side are taken",
    )
    prob: Probability = Field(0.5, description="probability")


class StandardizeImage(Spec):
    """Ours: shift and stretch each channel of the whole image to a given mean and spread, from its own."""

    type: Literal["StandardizeImage"]
    mean: float = Field(127.5, ge=0, le=255, description="mean of each channel afterwards, 0..255")
    std: PositiveFloat = Field(50.0, le=255, description="standard deviation of each channel afterwards")
    above: float | None = Field(
        None,
        ge=0,
        le=255,
        description="only pixels with a channel brighter than this count and are changed; 10 leaves out the black "
        "surround of a fundus picture",
    )


class ElasticDeformation(Spec):
    """Ours: smooth random displacement."""

    type: Literal["ElasticDeformation"]
    alpha: NonNegativeFloat = Field(description="standard deviation of the displacement in pixels")
    sigma: PositiveFloat = Field(description="smoothness of the displacement in pixels")
    prob: Probability = Field(0.5, description="probability")


Transform = Annotated[
    Normalize | Resize | ResizeByLong | ResizeByShort | Padding | RandomHorizontalFlip | RandomVerticalFlip
    | LimitLong | ResizeRangeScaling | ResizeStepScaling | PaddingByAspectRatio | RandomPaddingCrop
    | RandomCenterCrop | ScalePadding | RandomNoise | RandomBlur | RandomRotation | RandomScaleAspect
    | RandomDistort | RandomAffine | RandomAffinePatch | RandomIntensity | RandomGaussianBlur
    | RandomLowResolution | RandomChannelDrop | RandomCutout | RandomHistogramMatch | RandomFourierStyle
    | StandardizeImage | ElasticDeformation | VolumePreprocessing | RandomVolumePatch | RandomVolumeIntensity,
    Field(discriminator="type"),
]  # fmt: skip

DeterministicTransform = Annotated[
    Normalize | Resize | ResizeByLong | ResizeByShort | Padding | StandardizeImage | VolumePreprocessing,
    Field(discriminator="type"),
]


class Mixup(Spec):
    """Mix each image of a batch, and its loss, with another one's (Zhang et al. 2018)."""

    alpha: Annotated[float, Field(ge=0.001, le=100)] = Field(
        0.2, description="the weight of the first image is drawn from Beta(alpha, alpha), one for the batch"
    )
    prob: Probability = Field(0.5, description="probability that a batch is mixed")
