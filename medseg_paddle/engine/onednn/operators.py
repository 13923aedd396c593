"""Convolutions on oneDNN as functions of Paddle tensors, with gradients."""

from __future__ import annotations

from typing import Any

import paddle
from paddle.autograd import PyLayer

from medseg_paddle.engine.onednn.convolution import Convolution, Shape
from medseg_paddle.engine.onednn.runtime import Runtime


def convolve(
    runtime: Runtime,
    shape: Shape,
    x: paddle.Tensor,
    w: paddle.Tensor,
    b: paddle.Tensor | None,
    *,
    bf16: bool = False,
) -> paddle.Tensor:
    """The convolution of that shape.

    Parameters
    ----------
    runtime : Runtime
    shape : Shape
        Of `x`, `w` and `b`, all float32 on the CPU, `w` and `b` contiguous.
    bf16 : bool
        Round what is multiplied to bf16, here and for the gradients.

    Raises
    ------
    OneDnnError
        It cannot be computed here; nothing was done.
    """
    recording = paddle.is_grad_enabled()
    needs_x = recording and not x.stop_gradient
    needs_weights = recording and not (w.stop_gradient and (b is None or b.stop_gradient))
    x = x.contiguous()
    with runtime.lock:
        plan = runtime.cache.get(
            (shape, bf16), lambda: Convolution(runtime.library, runtime.workspace, shape, bf16=bf16)
        )
        plan.prepare_backward(source=needs_x, weights=needs_weights)
    if needs_x or needs_weights:
        return _Convolve.apply(x, w, b, runtime, plan, (needs_x, needs_weights))
    return _forward(runtime, plan, x, w, b)


def _forward(
    runtime: Runtime, plan: Convolution, x: paddle.Tensor, w: paddle.Tensor, b: paddle.Tensor | None
) -> paddle.Tensor:
    y = paddle.empty(plan.shape.y, "float32")
    with runtime.computing(plan.shape.kind):
        plan.forward(x.data_ptr(), w.data_ptr(), None if b is None else b.data_ptr(), y.data_ptr())
    return y


class _Convolve(PyLayer):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        x: paddle.Tensor,
        w: paddle.Tensor,
        b: paddle.Tensor | None,
        runtime: Runtime,
        plan: Convolution,
        needs: tuple[bool, bool],
    ) -> paddle.Tensor:
        # Hooks on saved tensors want tensors.
        kept = [tensor for tensor, needed in ((x, needs[1]), (w, needs[0])) if needed]
        ctx.save_for_backward(*kept)
        ctx.versions = [tensor.inplace_version for tensor in kept]
        ctx.wanted = (not x.stop_gradient, not w.stop_gradient, None if b is None else not b.stop_gradient)
        ctx.runtime, ctx.plan, ctx.needs = runtime, plan, needs
        return _forward(runtime, plan, x, w, b)

    @staticmethod
    def backward(ctx: Any, dy: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        kept, plan, (needs_x, needs_weights) = ctx.saved_tensor(), ctx.plan, ctx.needs
        ctx.container = None  # else all that is kept stays until the last gradient is there
        x, w = kept[0] if needs_weights else None, kept[-1] if needs_x else None
        for tensor, version in zip(kept, ctx.versions, strict=True):
            if tensor.inplace_version != version:
                raise RuntimeError(
                    "a convolution's input or weights were changed in place before its gradient"
                )
        if not dy.stop_gradient and paddle.is_grad_enabled():
            raise RuntimeError("convolutions on oneDNN have no second derivative; use cpu_kernels: paddle")
        dy = dy.contiguous()
        shape = plan.shape
        dx = paddle.empty(shape.x, "float32") if needs_x else None
        dw = paddle.empty(shape.w, "float32") if needs_weights else None
        db = paddle.empty([shape.out_channels], "float32") if needs_weights and shape.bias else None
        with ctx.runtime.computing(f"{shape.kind}_grad"):
            plan.backward(*map(_address, (x, w, dy)), dx=_address(dx), dw=_address(dw), db=_address(db))
        grads = (dx, dw) if ctx.wanted[2] is None else (dx, dw, db)
        return tuple(grad if wanted else None for grad, wanted in zip(grads, ctx.wanted, strict=False))


def _address(tensor: paddle.Tensor | None) -> int | None:
    return None if tensor is None else int(tensor.data_ptr())
