"""Convolutions to try, and which of them oneDNN makes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import paddle
from hypothesis import strategies as st
from paddle import nn

LAYERS = {
    (2, False): nn.Conv2D,
    (3, False): nn.Conv3D,
    (2, True): nn.Conv2DTranspose,
    (3, True): nn.Conv3DTranspose,
}


@contextlib.contextmanager
def computed(kind: type[Any]) -> Iterator[list[str]]:
    """Names of what oneDNN computed of that kind in the block."""
    seen: list[str] = []
    forward, backward = kind.forward, kind.backward

    def note_forward(self, *arguments):
        seen.append("forward")
        forward(self, *arguments)

    def note_backward(self, *arguments, **named):
        seen.append("backward")
        backward(self, *arguments, **named)

    with (
        patch.object(kind, "forward", note_forward),
        patch.object(kind, "backward", note_backward),
    ):
        yield seen


def values_and_gradients(
    layer: nn.Layer, x: paddle.Tensor, dy: paddle.Tensor | None = None
) -> list[np.ndarray]:
    """Result, and gradients of input and parameters, for a gradient `dy` of the result."""
    layer.clear_gradients()
    x = x.detach()
    x.stop_gradient = False
    y = layer(x)
    y.backward(paddle.ones_like(y) if dy is None else dy)
    return [t.numpy() for t in (y, x.grad, *(p.grad for p in layer.parameters()))]


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Layer, tuple[int, ...], bool]:
    """A layer, the shape of an image for it, and whether the image shall lie oddly in memory."""
    axes, transposed = draw(st.sampled_from([2, 2, 3])), draw(st.booleans())

    def per_axis(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes))

    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 8]))
    inputs, outputs = (groups * draw(st.integers(1, 9 if groups < 8 else 2)) for _ in range(2))
    kernel, stride, dilation = per_axis(1, 4), per_axis(1, 3), per_axis(1, 2)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    before, after = ([min(p, r - 1) for p, r in zip(per_axis(0, 3), reach, strict=True)] for _ in range(2))
    padding = draw(
        st.sampled_from(
            [0, before, [p for pair in zip(before, after, strict=True) for p in pair]]
            + ([] if transposed else ["valid", "same"])
        )
    )
    if isinstance(padding, str):
        dilation = [1] * axes
    extra = {}
    if transposed:
        extra["output_padding"] = [draw(st.integers(0, s - 1)) for s in stride]
    layer = LAYERS[axes, transposed](
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias_attr=draw(st.sampled_from([None, False])),
        **extra,
    )
    # a transposed convolution's padding cuts off: leave something
    space = [
        r + draw(st.integers(0, 6)) if not transposed else r + 1 + draw(st.integers(0, 3)) for r in reach
    ]
    return layer, (draw(st.integers(1, 3)), inputs, *space), draw(st.booleans())
