"""What our networks are built of."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn


def double_convolution(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    """Two 3x3 convolutions, each with normalisation (``"batch"`` or ``"instance"``) and ReLU."""
    make_norm = nn.BatchNorm2D if norm == "batch" else nn.InstanceNorm2D
    layers: list[nn.Layer] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2D(channels, outputs, 3, padding=1, bias_attr=False), make_norm(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def resized(x: paddle.Tensor, size: paddle.Tensor) -> paddle.Tensor:
    """`x` ``[N, C, h, w]`` interpolated bilinearly to ``[N, C, *size]``; `size` as `paddle.shape` gives it."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
