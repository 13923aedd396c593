"""Let a model's layers compute on oneDNN, without changing what the model is."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from types import MethodType
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import nn

from medseg_paddle.engine.onednn.convolution import Shape
from medseg_paddle.engine.onednn.doubling import double
from medseg_paddle.engine.onednn.library import OneDnnError
from medseg_paddle.engine.onednn.normalization import Groups, Statistics, normalize
from medseg_paddle.engine.onednn.operators import convolve
from medseg_paddle.engine.onednn.runtime import runtime
from medseg_paddle.engine.onednn.trial import require_bf16, require_right_results
from medseg_paddle.engine.sizes import numbers_in

_CONVOLUTIONS = (nn.Conv2D, nn.Conv3D)
_TRANSPOSED = (nn.Conv2DTranspose, nn.Conv3DTranspose)
_BATCH_NORMS = (nn.BatchNorm2D, nn.BatchNorm3D)
_INSTANCE_NORMS = (nn.InstanceNorm2D, nn.InstanceNorm3D)
_PLANE_NORMS = (nn.BatchNorm2D, nn.InstanceNorm2D)
_FORWARD = "forward"
# Numbers from which oneDNN's norms were measured to be faster than Paddle's.
_WORTH_IT = 2**19


def accelerate(model: nn.Layer, *, bf16: bool = False) -> nn.Layer:
    """Let convolutions, norms and bilinear interpolation in `model` compute on oneDNN where they can.

    The layers stay what they are: classes, names, parameters and state dict do not change, and a graph
    traced from the model holds Paddle's operators. What oneDNN does not cover goes Paddle's way, call by call.

    Parameters
    ----------
    model : nn.Layer
    bf16 : bool
        Let convolutions round what they multiply to bf16 while they train (`model.train()`).

    Raises
    ------
    Unavailable
        The library cannot be used here, or computes wrongly on this machine; or it gains nothing by bf16.
    """
    runtime()
    require_right_results()
    if bf16:
        require_bf16()
    _watch_interpolation()
    for layer in model.sublayers(include_self=True):
        if _FORWARD in vars(layer):
            continue
        ours = _ours(layer, bf16=bf16)
        if ours is not None:
            # A bound method, which a deep copy of the layer binds to the copy.
            object.__setattr__(layer, _FORWARD, MethodType(ours, layer))
        elif layer is model:
            object.__setattr__(layer, _FORWARD, MethodType(_whole_model, layer))
    return model


def restore(model: nn.Layer) -> nn.Layer:
    """Undo :func:`accelerate`."""
    for layer in model.sublayers(include_self=True):
        if is_accelerated(layer):
            object.__delattr__(layer, _FORWARD)
    return model


def is_accelerated(layer: nn.Layer) -> bool:
    """Whether this very layer would compute on oneDNN."""
    return getattr(vars(layer).get(_FORWARD), "__func__", None) in (
        _convolution,
        _convolution_in_bf16,
        _norm,
        _whole_model,
    )


def _convolution(layer: nn.Layer, x: paddle.Tensor, *arguments: Any, **named: Any) -> paddle.Tensor:
    """In place of a convolution's forward."""
    return _convolved(layer, x, arguments, named, in_bf16=(False,))


def _convolution_in_bf16(layer: nn.Layer, x: paddle.Tensor, *arguments: Any, **named: Any) -> paddle.Tensor:
    """The same, of factors in bf16 while the layer trains."""
    return _convolved(layer, x, arguments, named, in_bf16=(True, False) if layer.training else (False,))


def _convolved(
    layer: nn.Layer,
    x: paddle.Tensor,
    arguments: tuple[Any, ...],
    named: dict[str, Any],
    *,
    in_bf16: Sequence[bool],
) -> paddle.Tensor:
    """In the first of these ways that oneDNN has; Paddle's way where it has none."""
    if paddle.in_dynamic_mode() and not arguments and not named:
        shape = _shape(layer, x)
        if shape is not None:
            for bf16 in in_bf16:
                with contextlib.suppress(OneDnnError):  # remembered in the cache
                    return convolve(runtime(), shape, x, layer.weight, layer.bias, bf16=bf16)
    return type(layer).forward(layer, x, *arguments, **named)


def _norm(layer: nn.Layer, x: paddle.Tensor, *arguments: Any, **named: Any) -> paddle.Tensor:
    """In place of a norm's forward."""
    if paddle.in_dynamic_mode() and not arguments and not named:
        by_image = isinstance(layer, _INSTANCE_NORMS)
        groups = _groups(layer, x, by_image=by_image)
        if groups is not None:
            scale = layer.scale if by_image else layer.weight
            try:
                y, found = normalize(runtime(), groups, x, scale, layer.bias)
            except OneDnnError:
                pass  # remembered in the cache; Paddle can do all that oneDNN can
            else:
                if not by_image:
                    _follow(layer, found)
                return y
    return type(layer).forward(layer, x, *arguments, **named)


def _follow(layer: nn.Layer, found: Statistics) -> None:
    """Move a batch norm's running statistics towards what was found, as Paddle's operator does."""
    share = layer._momentum
    with paddle.no_grad():
        for running, new in ((layer._mean, found.mean), (layer._variance, found.variance)):
            paddle.assign(running * share + new * (1 - share), running)


def _groups(layer: nn.Layer, x: paddle.Tensor, *, by_image: bool) -> Groups | None:
    """What the layer normalises together; None where it is Paddle's business."""
    scale, shift = layer.scale if by_image else layer.weight, layer.bias
    if (
        x.size < _WORTH_IT
        or layer._data_format not in ("NCHW", "NCDHW")
        or not (by_image or (layer.training and not layer._use_global_stats))
        or scale is None
        or shift is None
        or any(t.dtype != paddle.float32 or not t.place.is_cpu_place() for t in (x, scale, shift))
        or x.ndim != (4 if isinstance(layer, _PLANE_NORMS) else 5)
        or any(t.shape != [x.shape[1]] or not t.is_contiguous() for t in (scale, shift))
        or not _makes_cpu_tensors()
    ):
        return None
    images, channels, *space = x.shape
    shape = (1, images * channels, *space) if by_image else (images, channels, *space)
    return Groups(shape, layer._epsilon)


def _ours(layer: nn.Layer, *, bf16: bool) -> Callable[..., paddle.Tensor] | None:
    """What computes in place of the layer's forward; nothing for a subclass with a forward of its own."""
    for ours, kinds in (
        (_convolution_in_bf16 if bf16 else _convolution, (*_CONVOLUTIONS, *_TRANSPOSED)),
        (_norm, (*_BATCH_NORMS, *_INSTANCE_NORMS)),
    ):
        if any(isinstance(layer, kind) and type(layer).forward is kind.forward for kind in kinds):
            return ours
    return None


def _shape(layer: nn.Layer, x: paddle.Tensor) -> Shape | None:
    """The convolution that the layer makes of `x`; None where it is Paddle's."""
    w, b, float32 = layer.weight, layer.bias, paddle.float32
    if (
        layer._padding_mode != "zeros"
        or layer._data_format not in ("NCHW", "NCDHW")
        or any(t.dtype != float32 or not t.place.is_cpu_place() for t in (x, w, *(() if b is None else (b,))))
        or x.ndim != w.ndim
        or not w.is_contiguous()
        or not (b is None or b.is_contiguous())
        or not _makes_cpu_tensors()
    ):
        return None
    x_shape, w_shape = tuple(x.shape), tuple(w.shape)
    transposed = isinstance(layer, _TRANSPOSED)
    padding = _padding(layer, x_shape[2:], w_shape[2:], transposed=transposed)
    extra = _per_axis(layer.output_padding if transposed else 0, len(w_shape) - 2)
    if padding is None or extra is None:
        return None
    shape = Shape(
        transposed=transposed,
        x=x_shape,
        w=w_shape,
        bias=b is not None,
        stride=tuple(layer._stride),
        before=padding[0],
        after=padding[1],
        extra=extra,
        dilation=tuple(layer._dilation),
        groups=layer._groups,
    )
    return shape if shape.is_sound and (b is None or b.shape == [shape.out_channels]) else None


def _makes_cpu_tensors() -> bool:
    """Whether new tensors lie on the CPU; beside a GPU, a model may be on the CPU and its results not."""
    place: bool = paddle.framework._current_expected_place().is_cpu_place()
    return place


def _padding(
    layer: nn.Layer, space: Sequence[int], kernel: Sequence[int], *, transposed: bool
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Padding before and after each axis of space."""
    rule, given = layer._padding_algorithm, layer._updated_padding
    if rule == "EXPLICIT":
        if isinstance(given, int) or len(given) == len(space):
            same = _per_axis(given, len(space))
            return None if same is None else (same, same)
        return tuple(given[0::2]), tuple(given[1::2])
    if transposed or any(step != 1 for step in layer._dilation):
        return None
    if rule == "VALID":
        none = (0,) * len(space)
        return none, none
    # SAME: the result has a pixel per stride; an odd rest of the padding comes after.
    total = [
        max((math.ceil(n / s) - 1) * s + k - n, 0)
        for n, k, s in zip(space, kernel, layer._stride, strict=True)
    ]
    return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)


def _per_axis(value: Any, axes: int) -> tuple[int, ...] | None:
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    return values if len(values) == axes and all(isinstance(v, int) for v in values) else None


class _Inside(threading.local):
    """Whether this thread computes an accelerated model."""

    model = False


_inside = _Inside()


def _whole_model(layer: nn.Layer, *arguments: Any, **named: Any) -> Any:
    """In place of the model's forward."""
    with _interpolating():
        return type(layer).forward(layer, *arguments, **named)


def interpolating_as_now() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """What lets a part of a model, computed by itself later, interpolate as it would here and now."""
    return functools.partial(_interpolating, on=_inside.model)


@contextlib.contextmanager
def _interpolating(*, on: bool = True) -> Iterator[None]:
    before, _inside.model = _inside.model, on
    try:
        yield
    finally:
        _inside.model = before


@functools.cache
def _watch_interpolation() -> None:
    """Look at each call of Paddle's interpolation (models call a function), and take those from inside a model."""
    paddles = F.interpolate
    call = inspect.signature(paddles)

    @functools.wraps(paddles)
    def interpolate(*arguments: Any, **named: Any) -> paddle.Tensor:
        if _inside.model and paddle.in_dynamic_mode():
            bound = call.bind(*arguments, **named)
            bound.apply_defaults()
            if _doubles(**bound.arguments):
                with contextlib.suppress(OneDnnError):  # remembered in the cache
                    return double(runtime(), bound.arguments["x"])
        return paddles(*arguments, **named)

    F.interpolate = interpolate


def _doubles(
    x: paddle.Tensor,
    size: Any,
    scale_factor: Any,
    mode: str,
    align_corners: bool,  # noqa: FBT001  (Paddle's signature)
    align_mode: int,
    data_format: str | None,
    **others: Any,
) -> bool:
    """Whether that is what :func:`double` does."""
    if (
        mode.lower() != "bilinear"
        or align_corners
        or align_mode != 0
        or data_format not in (None, "NCHW")
        or any(value is not None for value in others.values())
        or x.ndim != 4
        or x.dtype != paddle.float32
        or not x.place.is_cpu_place()
        or min(x.shape) < 1
        or (size is None and scale_factor is None)
        or not _makes_cpu_tensors()
    ):
        return False
    if size is None:
        return numbers_in(scale_factor) in ([2], [2, 2])
    return scale_factor is None and numbers_in(size) == [2 * x.shape[2], 2 * x.shape[3]]
