"""The networks that are timed, written once for Paddle and PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Network:
    """A U-Net and a batch for it.

    Attributes
    ----------
    channels : tuple of int
        Per level.
    size : int
        Pixels or voxels along each axis.
    batch : int
    axes : int
        2 or 3.
    norm : str
        ``"batch"`` or ``"instance"``.
    resample : str
        ``"resize"``: max pooling and bilinear interpolation; ``"conv"``: strided and transposed convolutions.
    inputs, classes : int
    """

    channels: tuple[int, ...]
    size: int
    batch: int
    axes: int = 2
    norm: str = "batch"
    resample: str = "resize"
    inputs: int = 3
    classes: int = 2


_PADDLESEG = (64, 128, 256, 512, 512)
NETWORKS = {
    "U-Net, 13.4 M, 128 px": Network(_PADDLESEG, size=128, batch=2),
    "U-Net, 13.4 M, 256 px": Network(_PADDLESEG, size=256, batch=1),
    "narrow U-Net, 1.2 M, 128 px": Network((24, 48, 96, 192), size=128, batch=8),
    "nnU-Net-like 2-D, 256 px": Network(
        (32, 64, 128, 256, 512, 512), size=256, batch=2, norm="instance", resample="conv", inputs=1
    ),
    "nnU-Net-like 3-D, 64^3": Network(
        (32, 64, 128, 256, 320), size=64, batch=1, axes=3, norm="instance", resample="conv", inputs=1
    ),
}


def make_batch(network: Network) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels, the same for all."""
    random = np.random.default_rng(1)
    space = (network.size,) * network.axes
    image = random.standard_normal((network.batch, network.inputs, *space)).astype("float32")
    return image, random.integers(0, network.classes, (network.batch, *space)).astype("int64")


def build(lib: Any, network: Network) -> Any:
    """The network from the layers of `lib`, with weights that do not depend on it."""
    axes, channels = network.axes, network.channels

    def block(inputs: int, outputs: int, stride: int = 1) -> Any:
        layers = []
        for first, step in ((inputs, stride), (outputs, 1)):
            layers += [
                lib.convolution(axes, first, outputs, 3, step),
                lib.norm(network.norm, axes, outputs),
                lib.relu(),
            ]
        return lib.Sequential(*layers)

    class UNet(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            step = 2 if network.resample == "conv" else 1
            self.down = lib.ModuleList(
                [block(network.inputs, channels[0])] + [block(a, b, step) for a, b in pairwise(channels)]
            )
            ups, blocks, inputs = [], [], channels[-1]
            for level in reversed(range(len(channels) - 1)):
                skip = channels[level]
                if network.resample == "conv":
                    ups.append(lib.transposed(axes, inputs, skip))
                    inputs, outputs = skip, skip
                else:  # PaddleSeg's: already as wide as the next skip
                    outputs = channels[max(level - 1, 0)]
                blocks.append(block(inputs + skip, outputs))
                inputs = outputs
            self.up, self.blocks = lib.ModuleList(ups), lib.ModuleList(blocks)
            self.head = lib.convolution(
                axes, inputs, network.classes, 3 if network.resample == "resize" else 1, 1
            )

        def forward(self, x: Any) -> Any:
            skips = []
            for level, down in enumerate(self.down):
                if level and network.resample == "resize":
                    x = lib.pool(axes, x)
                x = down(x)
                skips.append(x)
            skips.pop()
            for level, up in enumerate(self.blocks):
                x = self.up[level](x) if network.resample == "conv" else lib.resize(axes, x)
                x = up(lib.concat([skips.pop(), x]))
            return self.head(x)

    model = UNet()
    random = np.random.default_rng(2)
    for parameter in lib.trainable(model):
        shape = tuple(parameter.shape)
        if len(shape) > 1:
            scale = math.sqrt(2 / math.prod(shape[1:]))
            lib.assign(parameter, random.standard_normal(shape).astype("float32") * np.float32(scale))
    return model
