"""Mixed precision, and the state of its loss scaler.

PaddleSeg's `train()` compares `precision` with ``fp16`` only: it enters `auto_cast` and scales the loss there. For
bf16 the forward is put under `auto_cast` here; its exponents are those of fp32, so the loss needs no scaling. The
losses compute in fp32 (:mod:`medseg_paddle.engine.losses.label_loss`). Nothing of this has run on a GPU yet.
bf16 on a CPU is another matter: :mod:`medseg_paddle.engine.cpu_kernels`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import paddle

from medseg_paddle.config import Recipe

_GradScaler = paddle.amp.GradScaler


@dataclass(frozen=True)
class MixedPrecision:
    """How Paddle's `auto_cast` is entered.

    Attributes
    ----------
    dtype : str
        ``"float16"`` or ``"bfloat16"``.
    level : str
        ``"O1"``: some operators; ``"O2"``: all that can.
    """

    dtype: Literal["float16", "bfloat16"]
    level: Literal["O1", "O2"]


def mixed_precision(recipe: Recipe, device: str) -> MixedPrecision | None:
    """The recipe's mixed precision on a GPU; None for fp32, and on a CPU, where the kernels see to bf16."""
    if recipe.precision == "fp32" or device == "cpu":
        return None
    return MixedPrecision("float16" if recipe.precision == "fp16" else "bfloat16", recipe.amp_level)


@contextlib.contextmanager
def auto_cast(mixed: MixedPrecision | None) -> Iterator[None]:
    """Compute in that precision; in fp32 for None."""
    if mixed is None:
        with paddle.amp.auto_cast(enable=False):
            yield
    else:
        with paddle.amp.auto_cast(level=mixed.level, dtype=mixed.dtype):
            yield


@contextlib.contextmanager
def training_in_bf16(model: paddle.nn.Layer, optimizer: Any, mixed: MixedPrecision | None) -> Iterator[None]:
    """Let `model` compute in bf16 while it trains; of other precisions `train()` takes care.

    To be entered when the weights are loaded and copied: with ``O2`` they are bf16 from then on, beside an
    fp32 copy in the optimiser, and the copy of a model would go on to call this one.
    """
    if mixed is None or mixed.dtype != "bfloat16":
        yield
        return
    if mixed.level == "O2":
        paddle.amp.decorate(model, optimizers=optimizer, level="O2", dtype="bfloat16", save_dtype="float32")
    forward = model.forward

    def casting(*words: Any, **options: Any) -> Any:
        with auto_cast(mixed):
            return forward(*words, **options)

    model.forward = casting
    try:
        yield
    finally:
        model.forward = forward


class LossScaler:
    """Makes `train()`'s loss scaler, and keeps it within reach; a part of each checkpoint.

    A scaler that begins anew skips steps that a run which was not stopped would make.
    """

    def __init__(self) -> None:
        self._scaler: Any = None
        self._saved: dict[str, Any] = {}

    def make(self, *words: Any, **options: Any) -> Any:
        """In place of `paddle.amp.GradScaler`."""
        self._scaler = _GradScaler(*words, **options)
        if self._saved:
            self._scaler.load_state_dict(self._saved)
        return self._scaler

    def state_dict(self) -> dict[str, Any]:
        """See :class:`medseg_paddle.engine.checkpoints.StatefulPart`; empty where no loss is scaled."""
        return self._saved if self._scaler is None else dict(self._scaler.state_dict())

    def set_state_dict(self, state: dict[str, Any]) -> None:
        """See :class:`medseg_paddle.engine.checkpoints.StatefulPart`."""
        self._saved = state
