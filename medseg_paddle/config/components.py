"""The words of PaddleSeg's YAML files, checked without loading PaddleSeg: what a recipe may name.

Each class here is called as PaddleSeg 2.8.0 calls the component, with the same keys and defaults
(`tests/config/test_components.py` compares them), so that its 2.x recipes load unchanged. Components
of our own stand beside them and say so in their first line.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from medseg_paddle.config.base import Spec

Probability = Annotated[float, Field(ge=0, le=1)]
Size = tuple[PositiveInt, PositiveInt]


# --- transforms -------------------------------------------------------------------------------------------


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
    category_max_ratio: Probability = Field(1.0, description="greatest share of one class in the window")
    ignore_index: int = Field(255, description="label value left out of that share")
    loop_times: PositiveInt = Field(10, description="tries to respect it")


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
    """Ours: cut a patch that is rotated, scaled and flipped, in one interpolation."""

    type: Literal["RandomAffinePatch"]
    size: Size = Field(description="height and width of the patch in pixels")
    rotation: NonNegativeFloat = Field(0, le=180, description="greatest angle in degrees, either way")
    scale: tuple[PositiveFloat, PositiveFloat] = Field((1, 1), description="least and greatest magnification")
    flip_horizontal: Probability = Field(0, description="probability of a left-right flip")
    flip_vertical: Probability = Field(0, description="probability of a top-bottom flip")
    rotate90: Probability = Field(0, description="probability of a turn by 90, 180 or 270 degrees")
    foreground: Probability = Field(0, description="share of patches centred on a foreground pixel")
    border: Literal["reflect", "ignore"] = Field(
        "reflect", description="beyond the image: reflected, or ignored"
    )


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
    | RandomDistort | RandomAffine | RandomAffinePatch | RandomIntensity | ElasticDeformation,
    Field(discriminator="type"),
]  # fmt: skip

DeterministicTransform = Annotated[
    Normalize | Resize | ResizeByLong | ResizeByShort | Padding, Field(discriminator="type")
]


# --- data sets --------------------------------------------------------------------------------------------


class _DatasetSpec(Spec):
    dataset_root: str = Field(description="folder of the data; relative to the working directory")
    mode: Literal["train", "val", "test"] = Field("train", description="which list of the data set to read")
    edge: Literal[False] = Field(False, description="PaddleSeg's key; edge labels are not supported")
    cache_mb: NonNegativeInt = Field(
        1024, description="decoded images kept in memory, MiB; 0 reads anew each time"
    )


class ListDataset(_DatasetSpec):
    """Images and labels named line by line in text files."""

    type: Literal["Dataset"]
    num_classes: Annotated[int, Field(ge=2, le=256)] = Field(description="classes, the background included")
    img_channels: Literal[1, 3] = Field(3, description="channels of the images")
    train_path: str | None = Field(None, description="list for mode train: `image label` in a line")
    val_path: str | None = Field(None, description="list for mode val")
    test_path: str | None = Field(None, description="list for mode test")
    separator: str = Field(" ", min_length=1, description="what stands between image and label")
    ignore_index: int = Field(255, description="label value that is neither learned nor scored")


class NamedDataset(_DatasetSpec):
    """PaddleSeg's two-class fundus sets: ``train_list.txt``, ``val_list.txt``, ``test_list.txt`` in the root."""

    type: Literal["DRIVE", "STARE", "CHASEDB1", "HRF", "OpticDiscSeg"]


class ManifestDataset(_DatasetSpec):
    """Ours: a data set that `medseg prepare` made; knows patients, volumes, regions of interest and classes."""

    type: Literal["Manifest"]
    img_channels: Literal[1, 3] = Field(3, description="channels of the images")
    ignore_index: int = Field(255, description="label value that is neither learned nor scored")


class TrainTransforms(Spec):
    """Mixin: transforms of a training set."""

    transforms: tuple[Transform, ...] = Field(description="what is done to image and label, in this order")


class EvalTransforms(Spec):
    """Mixin: transforms of a set that is scored."""

    transforms: tuple[DeterministicTransform, ...] = Field(
        description="preprocessing; it travels in the exported bundle"
    )


class TrainList(ListDataset, TrainTransforms):
    """See :class:`ListDataset`."""


class TrainNamed(NamedDataset, TrainTransforms):
    """See :class:`NamedDataset`."""


class TrainManifest(ManifestDataset, TrainTransforms):
    """See :class:`ManifestDataset`."""


class EvalList(ListDataset, EvalTransforms):
    """See :class:`ListDataset`."""


class EvalNamed(NamedDataset, EvalTransforms):
    """See :class:`NamedDataset`."""


class EvalManifest(ManifestDataset, EvalTransforms):
    """See :class:`ManifestDataset`."""


TrainDataset = Annotated[TrainList | TrainNamed | TrainManifest, Field(discriminator="type")]
EvalDataset = Annotated[EvalList | EvalNamed | EvalManifest, Field(discriminator="type")]
DatasetSpec = TrainList | TrainNamed | TrainManifest | EvalList | EvalNamed | EvalManifest


# --- models -----------------------------------------------------------------------------------------------


class _ModelSpec(Spec):
    num_classes: Annotated[int, Field(ge=2, le=256)] | None = Field(
        None, description="classes, the background included; taken from the data set where absent"
    )
    in_channels: Literal[1, 3] | None = Field(
        None, description="channels of the images; taken from the data set where absent"
    )


class _PretrainedSpec(_ModelSpec):
    pretrained: str | None = Field(None, description="local file of weights to start from; never fetched")


class UNet(_PretrainedSpec):
    """PaddleSeg's U-Net of 13.4 million parameters."""

    type: Literal["UNet"]
    align_corners: bool = Field(False, description="how the decoder interpolates")
    use_deconv: bool = Field(False, description="transposed convolution in place of interpolation")


class UNetPlusPlus(_PretrainedSpec):
    """PaddleSeg's UNet++."""

    type: Literal["UNetPlusPlus"]
    use_deconv: bool = Field(False, description="transposed convolution in place of interpolation")
    align_corners: bool = Field(False, description="how the decoder interpolates")
    is_ds: bool = Field(True, description="average the outputs of all decoders")


class UNet3Plus(_ModelSpec):
    """PaddleSeg's UNet 3+."""

    type: Literal["UNet3Plus"]
    is_batchnorm: bool = Field(True, description="batch normalisation")
    is_deepsup: bool = Field(
        False, description="five outputs for deep supervision; give five loss coefficients"
    )
    is_CGM: Literal[False] = Field(  # noqa: N815  (PaddleSeg's name)
        False, description="PaddleSeg's key; its classification gate is not supported"
    )


class AttentionUNet(_PretrainedSpec):
    """PaddleSeg's Attention U-Net."""

    type: Literal["AttentionUNet"]


class U2Net(_PretrainedSpec):
    """PaddleSeg's U^2-Net: seven outputs, give seven loss coefficients."""

    type: Literal["U2Net"]


class U2Netp(_PretrainedSpec):
    """PaddleSeg's small U^2-Net: seven outputs, give seven loss coefficients."""

    type: Literal["U2Netp"]


class SimpleUNet(_ModelSpec):
    """Ours: a two-level U-Net to learn and test with."""

    type: Literal["SimpleUNet"]
    width: PositiveInt = Field(16, description="channels of the first level")


class ScalableUNet(_ModelSpec):
    """Ours: a U-Net of any width and depth."""

    type: Literal["ScalableUNet"]
    width: PositiveInt = Field(32, description="channels of the first level; doubled at each level down")
    max_width: PositiveInt = Field(512, description="limit of the channels")
    depth: PositiveInt = Field(4, le=8, description="times that the image is halved")
    norm: Literal["batch", "instance"] = Field("batch", description="normalisation layer")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of channels dropped at the bottom"
    )


Model = Annotated[
    UNet | UNetPlusPlus | UNet3Plus | AttentionUNet | U2Net | U2Netp | SimpleUNet | ScalableUNet,
    Field(discriminator="type"),
]


# --- losses -----------------------------------------------------------------------------------------------


class CrossEntropyLoss(Spec):
    """Cross-entropy over the pixels that are not ignored."""

    type: Literal["CrossEntropyLoss"]
    weight: tuple[NonNegativeFloat, ...] | None = Field(None, description="weight per class")
    ignore_index: int | None = Field(None, description="label value left out; the data set's where absent")


class DiceLoss(Spec):
    """1 - soft Dice, mean over the classes."""

    type: Literal["DiceLoss"]
    weight: tuple[NonNegativeFloat, ...] | None = Field(None, description="weight per class")
    ignore_index: int | None = Field(None, description="label value left out; the data set's where absent")
    smooth: PositiveFloat = Field(1.0, description="added to numerator and denominator")
    background: bool = Field(True, description="ours: count the background as a class")


class MixedLoss(Spec):
    """A weighted sum of losses."""

    type: Literal["MixedLoss"]
    losses: Annotated[
        tuple[Annotated[CrossEntropyLoss | DiceLoss, Field(discriminator="type")], ...], Field(min_length=1)
    ] = Field(description="the losses")
    coef: tuple[float, ...] = Field(description="weight per loss")


LossType = Annotated[CrossEntropyLoss | DiceLoss | MixedLoss, Field(discriminator="type")]


class Loss(Spec):
    """Losses of the model's outputs."""

    types: Annotated[tuple[LossType, ...], Field(min_length=1)] = Field(
        description="one loss per output of the model, or one for all"
    )
    coef: Annotated[tuple[float, ...], Field(min_length=1)] = Field(
        description="weight per output of the model"
    )


# --- optimisation -----------------------------------------------------------------------------------------


class GradientClip(Spec):
    """Limit of the gradients."""

    name: Literal["ClipGradByGlobalNorm", "ClipGradByNorm", "ClipGradByValue"] = Field(
        description="kind of limit"
    )
    clip_norm: PositiveFloat | None = Field(None, description="greatest norm")
    max: PositiveFloat | None = Field(None, description="greatest value (ClipGradByValue)")
    min: float | None = Field(None, description="least value (ClipGradByValue)")


class _OptimizerSpec(Spec):
    weight_decay: NonNegativeFloat | None = Field(None, description="L2 penalty (decoupled in AdamW)")
    grad_clip_cfg: GradientClip | None = Field(None, description="limit of the gradients")


class SGD(_OptimizerSpec):
    """Stochastic gradient descent; with `momentum` it is Momentum, as in PaddleSeg."""

    type: Literal["SGD", "sgd"]
    momentum: Probability | None = Field(None, description="momentum")


class Momentum(_OptimizerSpec):
    """Stochastic gradient descent with momentum."""

    type: Literal["Momentum"]
    momentum: Probability = Field(0.9, description="momentum")
    use_nesterov: bool = Field(False, description="Nesterov's form")


class Adam(_OptimizerSpec):
    """Adam."""

    type: Literal["Adam", "adam"]
    beta1: Probability = Field(0.9, description="decay of the first moment")
    beta2: Probability = Field(0.999, description="decay of the second moment")
    epsilon: PositiveFloat = Field(1e-8, description="added to the denominator")


class AdamW(_OptimizerSpec):
    """Adam with decoupled weight decay."""

    type: Literal["AdamW"]
    beta1: Probability = Field(0.9, description="decay of the first moment")
    beta2: Probability = Field(0.999, description="decay of the second moment")
    epsilon: PositiveFloat = Field(1e-8, description="added to the denominator")
    weight_decay: NonNegativeFloat | None = Field(0.01, description="decoupled weight decay")


Optimizer = Annotated[SGD | Momentum | Adam | AdamW, Field(discriminator="type")]


class _ScheduleSpec(Spec):
    learning_rate: PositiveFloat = Field(description="learning rate after the warm-up")
    warmup_iters: NonNegativeInt | None = Field(None, description="iterations of linear warm-up")
    warmup_start_lr: NonNegativeFloat | None = Field(None, description="learning rate at the warm-up's start")


class PolynomialDecay(_ScheduleSpec):
    """``lr = (learning_rate - end_lr) (1 - iteration / decay_steps)^power + end_lr``."""

    type: Literal["PolynomialDecay"]
    decay_steps: PositiveInt | None = Field(None, description="iterations to `end_lr`; all where absent")
    end_lr: NonNegativeFloat = Field(0.0001, description="learning rate at the end")
    power: PositiveFloat = Field(1.0, description="exponent")
    cycle: bool = Field(False, description="start again after `decay_steps`")


class CosineAnnealingDecay(_ScheduleSpec):
    """Half a cosine from `learning_rate` to `eta_min`."""

    type: Literal["CosineAnnealingDecay"]
    T_max: PositiveInt | None = Field(None, description="iterations to `eta_min`; all where absent")
    eta_min: NonNegativeFloat = Field(0.0, description="learning rate at the end")


class StepDecay(_ScheduleSpec):
    """Times `gamma` every `step_size` iterations."""

    type: Literal["StepDecay"]
    step_size: PositiveInt = Field(description="iterations between the steps")
    gamma: PositiveFloat = Field(0.1, description="factor of each step")


class MultiStepDecay(_ScheduleSpec):
    """Times `gamma` at given iterations."""

    type: Literal["MultiStepDecay"]
    milestones: tuple[PositiveInt, ...] = Field(description="iterations of the steps")
    gamma: PositiveFloat = Field(0.1, description="factor of each step")


Schedule = Annotated[
    PolynomialDecay | CosineAnnealingDecay | StepDecay | MultiStepDecay, Field(discriminator="type")
]


def component_arguments(spec: Spec) -> dict[str, Any]:
    """Keys and values of a component without its `type`, as plain Python."""
    return spec.model_dump(exclude={"type"})
