"""A few small convolutions and a norm, compared with Paddle's, before a model is trusted to the library."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray

from medseg_paddle.engine.onednn.convolution import Shape
from medseg_paddle.engine.onednn.library import OneDnnError, Unavailable
from medseg_paddle.engine.onednn.normalization import Groups, normalize
from medseg_paddle.engine.onednn.operators import convolve
from medseg_paddle.engine.onednn.runtime import runtime

# Of the greatest value; rounding stays far below.
_TOLERANCE, _TOLERANCE_BF16 = 1e-4, 2e-2


@dataclass(frozen=True)
class _Convolution:
    function: Any
    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    bf16: bool = False

    @property
    def what(self) -> str:
        return "convolution in bf16" if self.bf16 else "convolution"

    @property
    def tolerance(self) -> float:
        return _TOLERANCE_BF16 if self.bf16 else _TOLERANCE

    @property
    def shape(self) -> Shape:
        axes = len(self.x) - 2
        return Shape(
            transposed=self.function is F.conv2d_transpose,
            x=self.x,
            w=self.w,
            bias=False,
            stride=(self.stride,) * axes,
            before=(self.padding,) * axes,
            after=(self.padding,) * axes,
            extra=(0,) * axes,
            dilation=(1,) * axes,
            groups=1,
        )

    def ours(self, x: paddle.Tensor, w: paddle.Tensor) -> paddle.Tensor:
        return convolve(runtime(), self.shape, x, w, None, bf16=self.bf16)

    def paddles(self, x: paddle.Tensor, w: paddle.Tensor) -> paddle.Tensor:
        return self.function(x, w, stride=self.stride, padding=self.padding)


@dataclass(frozen=True)
class _Norm:
    x: tuple[int, ...]
    w: tuple[int, ...]

    what = "norm"
    tolerance = _TOLERANCE

    def ours(self, x: paddle.Tensor, w: paddle.Tensor) -> paddle.Tensor:
        return normalize(runtime(), Groups(self.x, 1e-5), x, w, paddle.zeros_like(w))[0]

    def paddles(self, x: paddle.Tensor, w: paddle.Tensor) -> paddle.Tensor:
        mean, variance, shift = (paddle.zeros_like(w) for _ in range(3))
        shift.stop_gradient = False  # without its gradient Paddle gives the scale none either
        return F.batch_norm(x, mean, variance, w, shift, training=True, epsilon=1e-5)


# Several images, so that work is dealt to threads; strided 1 x 1 and few channels take kernels of their own.
_CONVOLUTIONS = (
    _Convolution(F.conv2d, (4, 16, 24, 24), (16, 16, 3, 3), padding=1),
    _Convolution(F.conv2d, (8, 4, 32, 32), (8, 4, 1, 1), stride=2),
    _Convolution(F.conv2d_transpose, (4, 16, 12, 12), (16, 16, 2, 2), stride=2),
    _Convolution(F.conv3d, (2, 8, 8, 8, 8), (8, 8, 3, 3, 3), padding=1),
)


@functools.cache
def require_right_results() -> None:
    """Compare results and gradients of small operations with Paddle's; once in a process.

    The library has other kernels for each kind of processor, and needs an OpenMP that keeps its promises;
    tests can only tell about the machines that they have run on.

    Raises
    ------
    Unavailable
        They differ.
    """
    _try((*_CONVOLUTIONS, _Norm((4, 16, 24, 24), (16,))))


@functools.cache
def require_bf16() -> None:
    """Make sure that convolutions in bf16 gain something here, and are right; once in a process.

    Raises
    ------
    Unavailable
        They do not, or are not.
    """
    if not runtime().library.gains_by_bf16:
        raise Unavailable("this processor does not multiply matrices in bf16 (AMX)")
    _try([replace(trial, bf16=True) for trial in _CONVOLUTIONS])


def _try(trials: Sequence[_Convolution | _Norm]) -> None:
    for trial in trials:
        try:
            ours = _computed(trial, oneDNN=True)
        except OneDnnError as error:
            raise Unavailable(str(error)) from error
        for name, found, expected in zip(
            ("result", "gradient of the image", "gradient of the weights"),
            ours,
            _computed(trial, oneDNN=False),
            strict=True,
        ):
            if not np.abs(found - expected).max() <= trial.tolerance * np.abs(expected).max():
                raise Unavailable(
                    f"on this machine oneDNN computes a {trial.what} wrongly ({name}, image {trial.x})"
                )


def _computed(trial: _Convolution | _Norm, *, oneDNN: bool) -> list[NDArray[np.float32]]:  # noqa: N803  (its name)
    """Result and both gradients."""
    random = np.random.default_rng(0)  # Paddle's own generator is the training's
    x, w = (
        paddle.to_tensor(random.standard_normal(shape, np.float32), place="cpu", stop_gradient=False)
        for shape in (trial.x, trial.w)
    )
    with paddle.enable_grad():
        y = (trial.ours if oneDNN else trial.paddles)(x, w)
        y.backward(y.detach() ** 2)  # a norm's own result has next to no gradient
    return [tensor.numpy() for tensor in (y, x.grad, w.grad)]
