"""Sizes and factors of an interpolation, in all the ways that Paddle takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle


def numbers_in(value: Any) -> list[float]:
    """A number, a tensor of them, or a list of either, as a list of numbers."""
    if isinstance(value, (list, tuple)):
        return [number for one in value for number in numbers_in(one)]
    return [
        float(number) for number in np.ravel(value.numpy() if isinstance(value, paddle.Tensor) else value)
    ]
