"""The words of PaddleSeg's YAML files for networks; checked without loading it.

Each class is called as PaddleSeg 2.8.0 calls the component, with the same keys and defaults
(`tests/config/test_components.py` compares them), so that its 2.x recipes load unchanged. Components
of our own stand beside them and say so in their first line.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from medseg_paddle.config.base import Spec
from medseg_paddle.config.networks_3d import AttentionUNet3D, ResUNet3D, UNet3D
from medseg_paddle.config.networks_base import ModelSpec, require_levels_to_supervise


class _PretrainedSpec(ModelSpec):
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


class UNet3Plus(ModelSpec):
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


class SimpleUNet(ModelSpec):
    """Ours: a two-level U-Net to learn and test with."""

    type: Literal["SimpleUNet"]
    width: PositiveInt = Field(16, description="channels of the first level")


class ScalableUNet(ModelSpec):
    """Ours: a U-Net of any width and depth."""

    type: Literal["ScalableUNet"]
    width: PositiveInt = Field(32, description="channels of the first level; doubled at each level down")
    max_width: PositiveInt = Field(512, description="limit of the channels")
    depth: PositiveInt = Field(4, le=8, description="times that the image is halved")
    norm: Literal["batch", "instance"] = Field("batch", description="normalisation layer")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of channels dropped at the bottom"
    )
    deep_supervision: NonNegativeInt = Field(
        0,
        description="lower levels of the decoder that also learn to segment, at 1/2, 1/4, ... of the size; "
        "one more loss coefficient for each; the trained network has one output",
    )

    @model_validator(mode="after")
    def _require_levels_to_supervise(self) -> ScalableUNet:
        require_levels_to_supervise(self.deep_supervision, self.depth)
        return self


BackboneName = Literal[
    "ResNet18_vd", "ResNet34_vd", "ResNet50_vd", "ResNet101_vd",
    "HRNet_W18_Small_V1", "HRNet_W18",
    "MobileNetV2_x1_0", "MobileNetV3_small_x1_0", "MobileNetV3_large_x1_0", "GhostNet_x1_0",
    "STDC1", "STDC2",
]  # fmt: skip


class Backbone(Spec):
    """One of PaddleSeg's networks that were made to tell photographs apart, without its last layer."""

    type: BackboneName = Field(description="PaddleSeg's name of it")
    pretrained: str | None = Field(
        None, description="local .pdparams file of its weights, for example from ImageNet; never fetched"
    )


class EncoderUNet(ModelSpec):
    """Ours: a U-Net whose way down is one of PaddleSeg's backbones."""

    type: Literal["EncoderUNet"]
    backbone: Backbone = Field(description="the way down")
    width: PositiveInt = Field(
        16, description="channels of the decoder at full size; doubled at each level down"
    )
    max_width: PositiveInt = Field(256, description="limit of the decoder's channels")
    norm: Literal["batch", "instance"] = Field("batch", description="normalisation layer of the decoder")


Model = Annotated[
    UNet
    | UNetPlusPlus
    | UNet3Plus
    | AttentionUNet
    | U2Net
    | U2Netp
    | SimpleUNet
    | ScalableUNet
    | EncoderUNet
    | UNet3D
    | ResUNet3D
    | AttentionUNet3D,
    Field(discriminator="type"),
]
