"""Convolutions and interpolation on the CPU through the oneDNN library that Paddle's wheel carries.

Paddle's eager convolutions on the CPU unfold the image and multiply matrices; oneDNN's own kernels take a
fraction of the time. They are called through the library's C interface, without a compiler.
"""

from medseg_paddle.engine.onednn.layers import accelerate, interpolating_as_now, is_accelerated, restore
from medseg_paddle.engine.onednn.library import Unavailable, version
from medseg_paddle.engine.onednn.trial import require_bf16

__all__ = [
    "Unavailable",
    "accelerate",
    "interpolating_as_now",
    "is_accelerated",
    "require_bf16",
    "restore",
    "version",
]
