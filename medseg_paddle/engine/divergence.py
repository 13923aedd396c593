"""A training whose numbers are no numbers any more ends, and saves nothing of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import paddle

from medseg_paddle.config import Recipe
from medseg_paddle.errors import DivergenceError

# In fp16 a step whose gradients overflow is skipped and the loss scaled less: from 1024 ten halvings lead to 1.
_SKIPPED_IN_A_ROW = 10
_NAMED = 8  # images in a message


class DivergenceGuard:
    """Looks at each loss, and at the weights before they are scored and saved.

    Parameters
    ----------
    model : paddle.nn.Layer
    optimizer : paddle.optimizer.Optimizer
    recipe : Recipe
        In fp16 up to ten losses in a row may be infinite: those steps are skipped.
    images : callable
        Iteration -> names of the images in its batch.
    beside : nn.Layer, optional
        What is trained beside the model, by the same optimiser.
    """

    def __init__(
        self,
        model: paddle.nn.Layer,
        optimizer: Any,
        recipe: Recipe,
        images: Callable[[int], Sequence[str]],
        beside: paddle.nn.Layer | None = None,
    ) -> None:
        self._models, self._optimizer = [model] if beside is None else [model, beside], optimizer
        self._allowed = _SKIPPED_IN_A_ROW if recipe.precision == "fp16" else 0
        self._images, self._rate_key = images, recipe.learning_rate_key
        self._rate, self._bad = math.nan, 0

    def begin(self) -> None:
        """Note the learning rate of the iteration that begins."""
        self._rate = float(self._optimizer.get_lr())

    def look_at_loss(self, iteration: int, loss: float) -> None:
        """See that a loss is a number.

        Raises
        ------
        DivergenceError
            It is not, and no scaler can mend that.
        """
        self._bad = 0 if math.isfinite(loss) else self._bad + 1
        if self._bad > self._allowed:
            # Gradients that are no numbers ruin the weights, and the loss only of the next batch.
            before = f"; the step before it had {self._listed(iteration - 1)}" if iteration > 1 else ""
            raise self._error(iteration, f"the loss is {loss}", before)

    def look_at_weights(self, iteration: int) -> None:
        """See that weights and optimiser hold numbers only.

        Raises
        ------
        DivergenceError
            They do not.
        """
        states = (*(model.state_dict() for model in self._models), self._optimizer.state_dict())
        for name, value in _tensors(states):
            if paddle.is_floating_point(value) and not bool(paddle.isfinite(value).all()):
                raise self._error(iteration, f"{name} is infinite or NaN")

    def _error(self, iteration: int, what: str, before: str = "") -> DivergenceError:
        return DivergenceError(
            f"{what} at iteration {iteration} (learning rate {self._rate:.3g}), "
            f"with the images {self._listed(iteration)}{before}; no checkpoint holds it",
            hint=f"start a new run with a lower {self._rate_key} or with optimizer.grad_clip_cfg (with "
            "`initialise: {source: THIS RUN}` it begins with this one's best weights, once some were saved), look at "
            "these images and their labels, and with mixed precision try `precision: fp32`",
        )

    def _listed(self, iteration: int) -> str:
        """Names of the images in a batch."""
        images = self._images(iteration)
        more = f" and {len(images) - _NAMED} more" if len(images) > _NAMED else ""
        return ", ".join(images[:_NAMED]) + more


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, paddle.Tensor]]:
    """Tensors of nested state dicts."""
    if isinstance(state, paddle.Tensor):
        yield name, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from _tensors(value, str(key))
    elif isinstance(state, tuple):
        for value in state:
            yield from _tensors(value, name)
