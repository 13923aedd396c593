"""Batch and instance normalisation on oneDNN as functions of Paddle tensors, with gradients."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import paddle
from paddle.autograd import PyLayer

from medseg_paddle.engine.onednn.kernels import (
    DIFF_DST,
    DIFF_SRC,
    DST,
    SRC,
    TRAINING,
    Kernel,
    contiguous_strides,
)
from medseg_paddle.engine.onednn.library import Library
from medseg_paddle.engine.onednn.runtime import Runtime, Workspace

# dnnl_types.h
_MEAN, _VARIANCE, _SCALE, _SHIFT, _DIFF_SCALE, _DIFF_SHIFT = 49, 50, 51, 52, 255, 256
_USE_SCALE_AND_SHIFT = 2 | 4
_BACKWARD = 128


@dataclass(frozen=True)
class Groups:
    """What is normalised; the key that a prepared one is kept under.

    Attributes
    ----------
    shape : tuple of int
        ``[N, C, (D,) H, W]``. All numbers of a channel make a group: an instance norm is the batch norm of
        one image with ``N * C`` channels.
    epsilon : float
        Added to the variance.
    """

    shape: tuple[int, ...]
    epsilon: float


class Normalization:
    """Forward and backward computation for arrays of one shape. To be used under the runtime's lock."""

    def __init__(self, library: Library, workspace: Workspace, groups: Groups) -> None:
        self._array = library.description(groups.shape, contiguous_strides(groups.shape))
        self._channel = library.description((groups.shape[1],), (1,))
        self._library, self._workspace = library, workspace
        self._rule = (ctypes.c_float(groups.epsilon), ctypes.c_uint(_USE_SCALE_AND_SHIFT))
        self._description = library.primitive_description(
            "batch_normalization_forward", TRAINING, self._array, self._array, *self._rule, library.attributes
        )
        self._forward = self._kernel(self._description, (SRC, DST), (_MEAN, _VARIANCE, _SCALE, _SHIFT))
        self._backward: Kernel | None = None

    def prepare_backward(self) -> None:
        """Make sure that the gradients can be computed.

        Raises
        ------
        OneDnnError
            They cannot.
        """
        if self._backward is None:
            description = self._library.primitive_description(
                "batch_normalization_backward",
                _BACKWARD,
                *(self._array,) * 3,
                *self._rule,
                self._description,
                self._library.attributes,
            )
            self._backward = self._kernel(
                description,
                (SRC, DIFF_DST, DIFF_SRC),
                (_MEAN, _VARIANCE, _SCALE, _DIFF_SCALE, _DIFF_SHIFT),
            )

    def forward(self, x: int, scale: int, shift: int, y: int, mean: int, variance: int) -> None:
        """Compute the result at address `y`, and each group's mean and biased variance at theirs."""
        self._forward.run({SRC: x, _SCALE: scale, _SHIFT: shift, DST: y, _MEAN: mean, _VARIANCE: variance})

    def backward(
        self, x: int, scale: int, mean: int, variance: int, dy: int, dx: int, dscale: int, dshift: int
    ) -> None:
        """Compute the gradients at the last three addresses."""
        assert self._backward is not None  # noqa: S101  (prepare_backward)
        given = {SRC: x, _SCALE: scale, _MEAN: mean, _VARIANCE: variance, DIFF_DST: dy}
        self._backward.run({**given, DIFF_SRC: dx, _DIFF_SCALE: dscale, _DIFF_SHIFT: dshift})

    def _kernel(self, description: Any, arrays: tuple[int, ...], channels: tuple[int, ...]) -> Kernel:
        layouts = {**dict.fromkeys(arrays, self._array), **dict.fromkeys(channels, self._channel)}
        return Kernel(self._library, self._workspace, description, (), layouts)


@dataclass(frozen=True)
class Statistics:
    """Of each group, without gradients.

    Attributes
    ----------
    mean, variance : Tensor
        One number per group; the variance is the biased one.
    """

    mean: paddle.Tensor
    variance: paddle.Tensor


def normalize(
    runtime: Runtime, groups: Groups, x: paddle.Tensor, scale: paddle.Tensor, shift: paddle.Tensor
) -> tuple[paddle.Tensor, Statistics]:
    r"""Normalise: :math:`(x - mean) / \sqrt{variance + epsilon} \cdot scale + shift` in each group.

    Parameters
    ----------
    runtime : Runtime
    groups : Groups
        Of `x`, or of `x` seen as one image of ``N * C`` channels.
    x, scale, shift : Tensor
        float32 on the CPU, `scale` and `shift` contiguous, of C numbers each.

    Returns
    -------
    Tensor
        The result, of `x`'s shape.
    Statistics

    Raises
    ------
    OneDnnError
        It cannot be computed here; nothing was done.
    """
    recording = paddle.is_grad_enabled() and not all(t.stop_gradient for t in (x, scale, shift))
    x = x.contiguous()
    with runtime.lock:
        plan = runtime.cache.get(groups, lambda: Normalization(runtime.library, runtime.workspace, groups))
        if recording:
            plan.prepare_backward()
    statistics = Statistics(*(paddle.empty([groups.shape[1]], "float32") for _ in range(2)))
    compute = _Normalize.apply if recording else _forward
    return compute(x, scale, shift, statistics, runtime, plan), statistics


def _forward(
    x: paddle.Tensor,
    scale: paddle.Tensor,
    shift: paddle.Tensor,
    statistics: Statistics,
    runtime: Runtime,
    plan: Normalization,
) -> paddle.Tensor:
    y = paddle.empty(x.shape, "float32")
    scale, shift = (_per_group(values, statistics) for values in (scale, shift))
    with runtime.computing("norm"):
        plan.forward(*_addresses(x, scale, shift, y, statistics.mean, statistics.variance))
    return y


class _Normalize(PyLayer):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        x: paddle.Tensor,
        scale: paddle.Tensor,
        shift: paddle.Tensor,
        statistics: Statistics,
        runtime: Runtime,
        plan: Normalization,
    ) -> paddle.Tensor:
        ctx.save_for_backward(x, scale)
        ctx.versions = (x.inplace_version, scale.inplace_version)
        ctx.wanted = tuple(not tensor.stop_gradient for tensor in (x, scale, shift))
        ctx.statistics, ctx.runtime, ctx.plan = statistics, runtime, plan
        return _forward(x, scale, shift, statistics, runtime, plan)

    @staticmethod
    def backward(ctx: Any, dy: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        x, scale = ctx.saved_tensor()
        ctx.container = None  # freed as soon as may be
        if (x.inplace_version, scale.inplace_version) != ctx.versions:
            raise RuntimeError("a norm's input or scale was changed in place before its gradient")
        if not dy.stop_gradient and paddle.is_grad_enabled():
            raise RuntimeError("norms on oneDNN have no second derivative; use cpu_kernels: paddle")
        statistics, dy = ctx.statistics, dy.contiguous()
        dx = paddle.empty(x.shape, "float32")
        dscale, dshift = (paddle.empty_like(statistics.mean) for _ in range(2))
        each = _per_group(scale, statistics)
        with ctx.runtime.computing("norm_grad"):
            ctx.plan.backward(
                *_addresses(x, each, statistics.mean, statistics.variance, dy, dx, dscale, dshift)
            )
        channels = scale.shape[0]
        if dscale.shape[0] != channels:
            dscale, dshift = (grad.reshape([-1, channels]).sum(0) for grad in (dscale, dshift))
        return tuple(
            grad if wanted else None for grad, wanted in zip((dx, dscale, dshift), ctx.wanted, strict=True)
        )


def _per_group(values: paddle.Tensor, statistics: Statistics) -> paddle.Tensor:
    """The channels' values, again for each image where each image is normalised by itself."""
    images = statistics.mean.shape[0] // values.shape[0]
    return values if images == 1 else paddle.tile(values.detach(), [images])


def _addresses(*tensors: paddle.Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]
