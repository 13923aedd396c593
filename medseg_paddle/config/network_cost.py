"""What a training step of a network for volumes costs: memory and multiplications, from the recipe's words alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medseg_paddle.config.networks_3d import (
    AttentionUNet3D,
    ResUNet3D,
    UNet3D,
    blocks_of,
    kernels_of,
    strides_of,
)

# Of `training_memory`; float32 has 4 bytes, and some values are kept twice for a while.
_LIBRARIES = 555e6
_BYTES_PER_VALUE = 5.3
_BYTES_PER_PARAMETER = 12

VolumeModel = UNet3D | ResUNet3D | AttentionUNet3D


@dataclass(frozen=True)
class NetworkCost:
    """What one patch asks of a network.

    Attributes
    ----------
    kept : int
        Values of the feature maps that a training step keeps for the gradients.
    widest : int
        Values of the largest input of a convolution.
    parameters : int
        Those of convolutions; norms and biases have few.
    multiplications : int
        Of a forward pass; the two of a backward pass take twice as many.
    """

    kept: int
    widest: int
    parameters: int
    multiplications: int


def network_cost(model: VolumeModel, patch: tuple[int, int, int]) -> NetworkCost:
    """Count a network's values and multiplications.

    Parameters
    ----------
    model : UNet3D, ResUNet3D or AttentionUNet3D
        With the number of its classes and channels.
    patch : three ints
        Sides that its strides divide.
    """
    count = _Count(model, patch)
    for level in range(model.depth + 1):
        count.down(level)
    for level in range(model.depth):
        count.up(level)
    return NetworkCost(count.kept, count.widest, count.parameters, count.multiplications)


class _Count:
    """The sums, while the network is gone through; follows `engine.networks_3d`."""

    def __init__(self, model: VolumeModel, patch: tuple[int, int, int]) -> None:
        self.kept = self.widest = self.parameters = self.multiplications = 0
        self._model = model
        self._strides = strides_of(model.strides, model.depth)
        self._kernels = kernels_of(model.kernels, model.depth)
        self._widths = [min(model.width * 2**level, model.max_width) for level in range(model.depth + 1)]
        voxels = math.prod(patch)
        self._voxels = [voxels]
        for stride in self._strides:
            voxels //= math.prod(stride)
            self._voxels.append(voxels)

    def down(self, level: int) -> None:
        """A level of the encoder."""
        model, width, kernel = self._model, self._widths[level], math.prod(self._kernels[level])
        inputs = self._widths[level - 1] if level else (model.in_channels or 1)
        if not isinstance(model, ResUNet3D):
            self._convolution(level, inputs, width, kernel)
            self._convolution(level, width, width, kernel)
            return
        if level == 0:
            self._convolution(level, inputs, width, kernel)
            inputs = width
        for block in range(blocks_of(model.blocks, model.depth)[level]):
            self._convolution(level, inputs, width, kernel)
            self._convolution(level, width, width, kernel)
            self._keep(level, width)  # the sum with what went past them
            if level and block == 0:
                self._keep(level, inputs)  # averaged
            if inputs != width:
                self._convolution(level, inputs, width, 1)
            inputs = width

    def up(self, level: int) -> None:
        """The step of the decoder that leads to a level, and its head."""
        model, width, below = self._model, self._widths[level], self._widths[level + 1]
        self.parameters += below * width * math.prod(self._strides[level])
        self.multiplications += self._voxels[level] * below * width
        self._keep(level, width)  # enlarged
        self._keep(level, 2 * width)  # joined
        kernel = math.prod(self._kernels[level])
        if isinstance(model, AttentionUNet3D) and level:
            for inputs in (width, below):
                self._convolution(level + 1, inputs, width // 2, 1)
            self._keep(level, width)  # weighed
            self._convolution(level, width, width, 1)
        self._convolution(level, 2 * width, width, kernel)
        if not isinstance(model, ResUNet3D):
            self._convolution(level, width, width, kernel)
        if level <= model.deep_supervision:
            classes = model.num_classes or 2
            self.parameters += width * classes
            self.multiplications += self._voxels[level] * width * classes
            self._keep(level, 3 * classes)  # logits, their probabilities, the truth of each class

    def _convolution(self, level: int, inputs: int, outputs: int, kernel: int) -> None:
        """One with a norm and an activation: each keeps what it takes."""
        self._keep(level, 3 * outputs)
        self.widest = max(self.widest, self._voxels[level] * inputs)
        self.parameters += kernel * inputs * outputs
        self.multiplications += self._voxels[level] * kernel * inputs * outputs

    def _keep(self, level: int, channels: int) -> None:
        self.kept += self._voxels[level] * channels


def training_memory(cost: NetworkCost, batch_size: int) -> int:
    """Bytes that a training's process holds at the most, as forecast.

    A straight line through measurements (`benchmarks/planned_memory.py`): the libraries, so much for each value that
    is kept, and weights, gradients and momentum. It was fitted to SGD with momentum in float32 on a CPU with oneDNN.
    """
    return int(
        _LIBRARIES + _BYTES_PER_VALUE * cost.kept * batch_size + _BYTES_PER_PARAMETER * cost.parameters
    )
