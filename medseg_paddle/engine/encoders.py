"""A U-Net around one of PaddleSeg's backbones."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paddle
from paddle import nn
from paddle.utils import unique_name
from paddleseg.models.backbones import ghostnet, hrnet, mobilenetv2, mobilenetv3, resnet_vd, stdcnet

from medseg_paddle.config.networks import BackboneName
from medseg_paddle.engine.blocks import double_convolution, resized
from medseg_paddle.engine.paddleseg_adapter import manager

_ONE_PER_HALVING = (4, 8, 16, 32)
_STEM_OF_RESNET = 64  # channels at half the size, which `feat_channels` leaves out


@dataclass(frozen=True)
class _Kind:
    """How a backbone is made, and how many pixels of the image one of each of its outputs stands for."""

    make: Callable[..., nn.Layer]
    strides: tuple[int, ...] = _ONE_PER_HALVING


def _resnet(make: Callable[..., nn.Layer]) -> _Kind:
    # Without an output stride PaddleSeg's ResNets halve the image three times and dilate, for DeepLab.
    return _Kind(lambda **arguments: make(output_stride=32, **arguments), (2, *_ONE_PER_HALVING))


# Left out: Lite_HRNet, which lets no gradient through its first output; UHRNet and the transformers, which take
# three channels or one image size only.
_KINDS: dict[BackboneName, _Kind] = {
    "ResNet18_vd": _resnet(resnet_vd.ResNet18_vd),
    "ResNet34_vd": _resnet(resnet_vd.ResNet34_vd),
    "ResNet50_vd": _resnet(resnet_vd.ResNet50_vd),
    "ResNet101_vd": _resnet(resnet_vd.ResNet101_vd),
    "HRNet_W18_Small_V1": _Kind(hrnet.HRNet_W18_Small_V1, (4,)),
    "HRNet_W18": _Kind(hrnet.HRNet_W18, (4,)),
    "MobileNetV2_x1_0": _Kind(mobilenetv2.MobileNetV2_x1_0),
    "MobileNetV3_small_x1_0": _Kind(mobilenetv3.MobileNetV3_small_x1_0),
    "MobileNetV3_large_x1_0": _Kind(mobilenetv3.MobileNetV3_large_x1_0),
    "GhostNet_x1_0": _Kind(ghostnet.GhostNet_x1_0),
    "STDC1": _Kind(stdcnet.STDC1, (2, *_ONE_PER_HALVING)),
    "STDC2": _Kind(stdcnet.STDC2, (2, *_ONE_PER_HALVING)),
}


def _fresh(kind: _Kind, in_channels: int) -> nn.Layer:
    """A backbone with fresh weights.

    MobileNetV2 and GhostNet name their parameters themselves. Paddle 3.2.2 refuses a name that a process had before,
    and two networks in one graph would share their weights; so each gets names of its own, numbered as Paddle's are.
    """
    generator, known = unique_name.switch()
    unique_name.switch(generator)  # the numbers go on; no name is known
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # "No pretrained model to load": we load it ourselves
            backbone = kind.make(in_channels=in_channels, pretrained=None)
    finally:
        unique_name.switch(generator, known)
    named = [
        value for value in backbone.state_dict().values() if "." not in value.name
    ]  # Paddle's have a dot
    if named:
        prefix = unique_name.generate("backbone")
        for value in named:
            value.name = f"{prefix}.{value.name}"
    return backbone


@manager.MODELS.add_component
class EncoderUNet(nn.Layer):  # type: ignore[misc]
    """U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) with a backbone for its way down.

    The decoder doubles the size step by step up to the image's, by bilinear interpolation and two 3x3
    convolutions; at each size where the backbone has an output it is a skip connection. At full size, where
    no backbone has one, two convolutions of the image itself are. Any image size goes through.

    Parameters
    ----------
    num_classes, in_channels : int
    backbone : dict
        ``type``, a :data:`~medseg_paddle.config.networks.BackboneName`; ``pretrained`` is not read here.
    width, max_width : int
        Channels of the decoder at full size, doubled at each level down, and their limit.
    norm : str
        ``"batch"`` or ``"instance"``, in the decoder.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        backbone: dict[str, Any],
        width: int = 16,
        max_width: int = 256,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        kind = _KINDS[backbone["type"]]
        self.encoder = _fresh(kind, in_channels)
        channels = list(self.encoder.feat_channels)
        if isinstance(self.encoder, resnet_vd.ResNet_vd):
            channels = [_STEM_OF_RESNET, *channels]
        self._strides = kind.strides
        skips = {1: width, **dict(zip(kind.strides, channels, strict=True))}
        deepest = max(kind.strides)
        self.bottom_channels = skips[deepest]
        self._steps = [stride for stride in (32, 16, 8, 4, 2, 1) if stride < deepest]
        self.image = double_convolution(in_channels, width, norm)
        blocks, inputs = [], skips[deepest]
        for stride in self._steps:
            outputs = min(width * stride, max_width)
            blocks.append(double_convolution(inputs + skips.get(stride, 0), outputs, norm))
            inputs = outputs
        self.up = nn.LayerList(blocks)
        self.head = nn.Conv2D(inputs, num_classes, 1)

    def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Logits ``[N, K, H, W]`` of images ``[N, C, H, W]``, in a list as PaddleSeg wants them."""
        return self.decode(self.encode(x))

    def encode(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Features of images at each size, the finest first; the last have `bottom_channels` channels."""
        found = self._encoded(x)
        return [self.image(x), *found]

    def decode(self, levels: list[paddle.Tensor]) -> list[paddle.Tensor]:
        """What :meth:`forward` returns, from what :meth:`encode` did."""
        size = paddle.shape(levels[0])[2:]
        skips = {stride: levels[1 + number] for number, stride in enumerate(self._strides)}
        skips[1] = levels[0]
        y = skips[max(self._strides)]
        for number, block in enumerate(self.up):
            stride = self._steps[number]
            if stride in skips:
                skip = skips[stride]
                y = paddle.concat([resized(y, paddle.shape(skip)[2:]), skip], axis=1)
            else:
                y = resized(y, (size + (stride - 1)) // stride)
            y = block(y)
        return [self.head(y)]

    def _encoded(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """The backbone's outputs, finest first."""
        if not isinstance(self.encoder, resnet_vd.ResNet_vd):
            return list(self.encoder(x))
        # As PaddleSeg's own forward, which keeps its output at half the size in an attribute instead: no graph
        # can be traced from it after it has run, and the attribute outlives the step.
        stem = self.encoder.conv1_3(self.encoder.conv1_2(self.encoder.conv1_1(x)))
        found, y = [stem], self.encoder.pool2d_max(stem)
        for stage in self.encoder.stage_list:
            for block in stage:
                y = block(y)
            found.append(y)
        return found
