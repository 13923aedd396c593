"""Bilinear interpolation to twice the height and width, the way up in a U-Net."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle.autograd import PyLayer

from medseg_paddle.engine.onednn.convolution import Convolution, Shape
from medseg_paddle.engine.onednn.kernels import DST, SRC, TRAINING, Kernel, Passage, contiguous_strides
from medseg_paddle.engine.onednn.library import Library
from medseg_paddle.engine.onednn.runtime import Runtime, Workspace

_LINEAR = 0x2FFF1
# What a pixel gets from the four pixels above (or left to right) that were interpolated with it.
_WEIGHTS = np.array([0.25, 0.75, 0.75, 0.25], np.float32)


class Doubling:
    """The interpolation of images of one shape, pixels being areas (``align_corners=False``).

    oneDNN's own gradient of it takes ten times as long as the interpolation. It is a convolution with
    stride 2 of each channel by itself, whose weights are the interpolation's; oneDNN is quick at that. At
    the border, the interpolation repeats the outermost pixel, and the convolution would have to begin
    with the gradient's outermost pixel repeated: what that adds is little and added by numpy.

    Parameters
    ----------
    library : Library
    workspace : Workspace
    shape : tuple of int
        ``[N, C, H, W]`` of the small image.
    """

    def __init__(self, library: Library, workspace: Workspace, shape: tuple[int, ...]) -> None:
        batch, channels, height, width = self._small = shape
        self.large = (batch, channels, 2 * height, 2 * width)
        layouts = [_channels_last(library, s) for s in (self._small, self.large)]
        description = library.primitive_description(
            "resampling_forward", TRAINING, _LINEAR, ctypes.c_void_p(), *layouts, library.attributes
        )
        self._kernel = Kernel(
            library, workspace, description, (), dict(zip((SRC, DST), layouts, strict=True))
        )
        plain = [library.description(s, contiguous_strides(s)) for s in (self._small, self.large)]
        self._into = Passage(library, workspace, plain[0], layouts[0], "in")
        self._from = Passage(library, workspace, plain[1], layouts[1], "out")
        pair = (1, 1)
        self._gradient = Convolution(
            library,
            workspace,
            Shape(
                transposed=False,
                x=self.large,
                w=(channels, 1, 4, 4),
                bias=False,
                stride=(2, 2),
                before=pair,
                after=pair,
                extra=(0, 0),
                dilation=pair,
                groups=channels,
            ),
        )
        self._weights = np.ascontiguousarray(
            np.broadcast_to(np.outer(_WEIGHTS, _WEIGHTS), (channels, 1, 4, 4)), np.float32
        )

    def forward(self, x: int, y: int) -> None:
        """Interpolate the image at address `x` to the one at `y`."""
        self._kernel.run({SRC: self._into.bring(x), DST: self._from.stage(y)})
        self._from.deliver(y)

    def backward(self, dy: int, dx: int) -> None:
        """Bring the gradient at address `dy` to the one at `dx`."""
        self._gradient.forward(dy, self._weights.ctypes.data, None, dx)
        small, large = _array(dx, self._small), _array(dy, self.large)
        for edge in (0, -1):
            small[:, :, edge] += _WEIGHTS[0] * _gather(
                np.pad(large[:, :, edge], ((0, 0), (0, 0), (1, 1)), "edge")
            )
            small[:, :, :, edge] += _WEIGHTS[0] * _gather(
                np.pad(large[:, :, :, edge], ((0, 0), (0, 0), (1, 1)))
            )


def double(runtime: Runtime, x: paddle.Tensor) -> paddle.Tensor:
    """Interpolate float32 images ``[N, C, H, W]`` on the CPU bilinearly to ``[N, C, 2 H, 2 W]``.

    Raises
    ------
    OneDnnError
        It cannot be computed here; nothing was done.
    """
    shape = tuple(x.shape)
    x = x.contiguous()
    with runtime.lock:
        plan = runtime.cache.get(
            (Doubling, shape), lambda: Doubling(runtime.library, runtime.workspace, shape)
        )
    if paddle.is_grad_enabled() and not x.stop_gradient:
        return _Double.apply(x, runtime, plan)
    return _forward(runtime, plan, x)


def _forward(runtime: Runtime, plan: Doubling, x: paddle.Tensor) -> paddle.Tensor:
    y = paddle.empty(plan.large, "float32")
    with runtime.computing("bilinear_interp"):
        plan.forward(x.data_ptr(), y.data_ptr())
    return y


class _Double(PyLayer):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, runtime: Runtime, plan: Doubling) -> paddle.Tensor:
        ctx.runtime, ctx.plan, ctx.shape = runtime, plan, x.shape
        return _forward(runtime, plan, x)

    @staticmethod
    def backward(ctx: Any, dy: paddle.Tensor) -> paddle.Tensor:
        if not dy.stop_gradient and paddle.is_grad_enabled():
            raise RuntimeError("interpolation on oneDNN has no second derivative; use cpu_kernels: paddle")
        dy, dx = dy.contiguous(), paddle.empty(ctx.shape, "float32")
        with ctx.runtime.computing("bilinear_interp_grad"):
            ctx.plan.backward(dy.data_ptr(), dx.data_ptr())
        return dx


def _gather(line: NDArray[np.float32]) -> NDArray[np.float32]:
    """The gradient's convolution along the last axis, of a line with one pixel more at both ends."""
    taps = [line[..., tap : line.shape[-1] - 3 + tap : 2] for tap in range(4)]
    return np.tensordot(_WEIGHTS, taps, 1)


def _channels_last(library: Library, shape: tuple[int, ...]) -> Any:
    _, channels, height, width = shape
    return library.description(shape, (channels * height * width, 1, width * channels, channels))


def _array(address: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The memory there, not a copy."""
    memory = (ctypes.c_float * int(np.prod(shape))).from_address(address)
    return np.ctypeslib.as_array(memory).reshape(shape)
