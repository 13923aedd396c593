"""What networks for volumes are said to cost, against the networks themselves."""

from __future__ import annotations

import math
from typing import Any

import paddle
import pytest
from paddle import nn
from pydantic import TypeAdapter

from medseg_paddle.config.network_cost import VolumeModel, network_cost, training_memory
from medseg_paddle.engine.networks_3d import AttentionUNet3D, ResUNet3D, UNet3D

PATCH = (8, 16, 16)
WORDS: dict[str, Any] = {
    "num_classes": 3,
    "in_channels": 2,
    "width": 4,
    "max_width": 12,
    "depth": 3,
    "strides": [[1, 2, 2], [2, 2, 2], [2, 2, 2]],
    "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
    "deep_supervision": 1,
}


@pytest.mark.parametrize("kind", [UNet3D, ResUNet3D, AttentionUNet3D])
def test_parameters_and_multiplications_are_those_of_the_network(kind: type[nn.Layer]) -> None:
    model = TypeAdapter(VolumeModel).validate_python({"type": kind.__name__, **WORDS})
    network = kind(**{**WORDS, "strides": model.strides, "kernels": model.kernels})
    done = []

    def count(layer: nn.Layer, inputs: tuple[paddle.Tensor, ...], output: paddle.Tensor) -> None:
        # A convolution multiplies for each voxel that it makes, a transposed one for each that it takes.
        made = inputs[0] if isinstance(layer, nn.Conv3DTranspose) else output
        done.append(math.prod(made.shape[2:]) * math.prod(layer.weight.shape))

    for layer in network.sublayers():
        if isinstance(layer, (nn.Conv3D, nn.Conv3DTranspose)):
            layer.register_forward_post_hook(count)
    network.train()
    network(paddle.zeros([1, 2, *PATCH]))
    cost = network_cost(model, PATCH)
    # The gates' single weights of each voxel are left out.
    assert cost.multiplications == pytest.approx(sum(done), rel=0.002 if kind is AttentionUNet3D else 1e-12)
    weights = sum(math.prod(one.shape) for one in network.parameters() if len(one.shape) == 5)
    assert cost.parameters == pytest.approx(weights, rel=0.002 if kind is AttentionUNet3D else 1e-12)


def test_memory_grows_with_the_batch_and_with_the_voxels() -> None:
    model = TypeAdapter(VolumeModel).validate_python({"type": "UNet3D", **WORDS})
    small, large = network_cost(model, PATCH), network_cost(model, (16, 16, 16))
    assert large.kept == 2 * small.kept
    assert large.multiplications == 2 * small.multiplications
    assert large.parameters == small.parameters
    assert training_memory(small, 4) == training_memory(large, 2)
    assert training_memory(small, 5) > training_memory(small, 4)
