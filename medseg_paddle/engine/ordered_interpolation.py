"""Interpolation whose gradient adds up in one order, for a GPU.

Paddle's gradient of an interpolation on a GPU lets each thread add to the pixels that it came from (``atomicAdd``), in
whatever order the threads come, so that its last bits differ from run to run. Linear interpolation along an axis is a
product with a matrix of at most two numbers a row, and its gradient one with the transposed matrix; products are added
up in one order.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from medseg_paddle.engine.sizes import numbers_in

_AXES = {"linear": 1, "bilinear": 2, "trilinear": 3}
_LAYOUTS = (None, "NCW", "NCHW", "NCDHW")


@functools.cache
def interpolate_in_order() -> None:
    """Let `paddle.nn.functional.interpolate` take products of matrices, where it is linear, from here on.

    For the whole process. Values and gradients are Paddle's up to rounding. Other modes, and graphs that are traced,
    stay Paddle's.
    """
    F.interpolate = in_order(F.interpolate)


def in_order(paddles: Any) -> Any:
    """Paddle's function `interpolate`, with products of matrices where it is linear."""
    call = inspect.signature(paddles)

    @functools.wraps(paddles)
    def interpolate(*arguments: Any, **named: Any) -> paddle.Tensor:
        if paddle.in_dynamic_mode():
            bound = call.bind(*arguments, **named)
            bound.apply_defaults()
            size = _size(**bound.arguments)
            if size is not None:
                said = bound.arguments
                return _interpolated(said["x"], size, bool(said["align_corners"]), said["align_mode"])
        return paddles(*arguments, **named)

    return interpolate


def _size(
    x: paddle.Tensor, size: Any, scale_factor: Any, mode: str, data_format: str | None, **others: Any
) -> list[int] | None:
    """The size that is wanted; None where it is Paddle's business: another mode or layout, or shares of a pixel."""
    axes = _AXES.get(mode.lower())
    if axes is None or axes != x.ndim - 2 or data_format not in _LAYOUTS or others["recompute_scale_factor"]:
        return None
    if (size is None) == (scale_factor is None) or min(x.shape) < 1:
        return None
    numbers = numbers_in(scale_factor if size is None else size)
    if len(numbers) not in ({1, axes} if size is None else {axes}):
        return None
    if any(number != int(number) or number < 1 for number in numbers):
        return None
    if size is not None:
        return [int(number) for number in numbers]
    factors = numbers * axes if len(numbers) == 1 else numbers
    return [int(factor) * length for factor, length in zip(factors, x.shape[2:], strict=True)]


def _interpolated(x: paddle.Tensor, size: list[int], corners: bool, mode: int) -> paddle.Tensor:  # noqa: FBT001
    """`x` ``[N, C, ...]`` at another size, axis by axis; in float32, and returned in the dtype of `x`."""
    place = str(x.place).removeprefix("Place(").removesuffix(")")
    with paddle.amp.auto_cast(enable=False):
        y = x.astype("float32")
        for axis, wanted in enumerate(size, start=2):
            shape = y.shape
            weights = _weights_at(place, shape[axis], wanted, corners, mode)
            lines = y.reshape([-1, shape[axis], int(np.prod(shape[axis + 1 :]))])
            y = paddle.matmul(weights, lines).reshape([*shape[:axis], wanted, *shape[axis + 1 :]])
        return y.astype(x.dtype)


@functools.lru_cache(maxsize=64)
def _weights_at(place: str, length: int, wanted: int, corners: bool, mode: int) -> paddle.Tensor:  # noqa: FBT001
    """:func:`_weights` on a device, where a network asks for the same ones in each step."""
    return paddle.to_tensor(_weights(length, wanted, corners, mode), place=place)


def _weights(length: int, wanted: int, corners: bool, mode: int) -> np.ndarray[Any, np.dtype[np.float32]]:  # noqa: FBT001
    """What each of `wanted` places takes from each of `length`, as Paddle's `align_corners` and `align_mode` say."""
    places = np.arange(wanted, dtype=np.float64)
    if corners:
        places *= (length - 1) / max(wanted - 1, 1)
    elif mode == 0:
        places = np.maximum((places + 0.5) * (length / wanted) - 0.5, 0)
    else:
        places *= length / wanted
    before = np.minimum(places.astype(int), length - 1)
    share = (places - before).astype(np.float32)
    weights, row = np.zeros((wanted, length), np.float32), np.arange(wanted)
    weights[row, before] = 1 - share
    weights[row, np.minimum(before + 1, length - 1)] += share
    return weights
