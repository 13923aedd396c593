"""Features of two sources that a classifier cannot tell apart: domain-adversarial training.

Ganin et al. 2016, Domain-Adversarial Training of Neural Networks, https://arxiv.org/abs/1505.07818. A classifier
learns from the features at the bottom of the network which of two sources an image is from; the encoder gets its
gradient reversed. In a batch the training images and those of the other source take turns, an unlabelled one after
each labelled one. What the classifier says is one more output of the network while it trains, with a loss of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

from medseg_paddle.config import alignment as config

LOSS_NAME = "DomainLoss"
_WIDTH = 64
_STEEPNESS = 10.0  # gamma of the paper


def strength(iteration: int, iters: int) -> float:
    """Share of the gradient that is reversed at an iteration, counted from 1: from 0 towards 1, the paper's lambda.

    ``2 / (1 + exp(-10 p)) - 1`` with the progress ``p`` from 0 to 1.
    """
    return 2 / (1 + math.exp(-_STEEPNESS * (iteration - 1) / iters)) - 1


class DomainLoss(nn.Layer):  # type: ignore[misc]
    """Cross-entropy of the classifier, mean over images and places; ln 2 where it cannot tell the sources apart."""

    def forward(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:  # noqa: ARG002  (as all losses)
        """Loss of shape [1] from logits ``[2 N, 1, h, w]``, of labelled and unlabelled images by turns."""
        other = (paddle.arange(logits.shape[0]) % 2).astype("float32").reshape([-1, 1, 1, 1])
        return F.binary_cross_entropy_with_logits(logits, other.expand_as(logits)).reshape([1])


class DomainAlignment:
    """What is trained against the encoder of a network; a part of each checkpoint.

    The network keeps its class, names, parameters and state dict. While it trains, its `decode` gets batches of
    twice as many images, decodes the labelled ones, and returns what the classifier says of all as its last output.

    Parameters
    ----------
    model : nn.Layer
        With `encode`, `decode` and `bottom_channels`.
    spec : Alignment
    iters : int
        Iterations of the whole training.

    Attributes
    ----------
    classifier : nn.Layer
        Of each place of the features by itself; its weights are no part of the network's.
    """

    def __init__(self, model: nn.Layer, spec: config.Alignment, iters: int) -> None:
        self._weight, self._iters, self._factor = spec.weight, iters, 0.0
        self.classifier = nn.Sequential(
            nn.Conv2D(model.bottom_channels, _WIDTH, 1),
            nn.ReLU(),
            nn.Conv2D(_WIDTH, _WIDTH, 1),
            nn.ReLU(),
            nn.Conv2D(_WIDTH, 1, 1),
        )
        object.__setattr__(model, "decode", _Decoding(model, model.decode, self))

    def begin(self, iteration: int) -> None:
        """An iteration begins; `train()` forgets the gradients of the network only."""
        self._factor = self._weight * strength(iteration, self._iters)
        self.classifier.clear_gradients()

    def judged(self, features: paddle.Tensor) -> paddle.Tensor:
        """Logits ``[2 N, 1, h, w]``, above 0 for the other source; to `features` goes the gradient reversed."""
        return self.classifier(_Reversal.apply(features, self._factor))

    def state_dict(self) -> dict[str, Any]:
        """See :class:`medseg_paddle.engine.checkpoints.StatefulPart`; the optimiser's part is in its own file."""
        return {name: value.numpy() for name, value in self.classifier.state_dict().items()}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        """See :class:`medseg_paddle.engine.checkpoints.StatefulPart`."""
        self.classifier.set_state_dict(state)


class _Decoding:
    """In place of a model's `decode`. A deep copy of the model gets one that computes the copy."""

    def __init__(
        self, model: nn.Layer, decode: Callable[[list[paddle.Tensor]], Any], alignment: DomainAlignment
    ) -> None:
        self._model, self._decode, self._alignment = model, decode, alignment

    def __call__(self, levels: list[paddle.Tensor]) -> list[paddle.Tensor]:
        if not self._model.training:
            return list(self._decode(levels))
        labelled = [_of_first_of_two(level) for level in levels]
        return [*self._decode(labelled), self._alignment.judged(levels[-1])]


def _of_first_of_two(values: paddle.Tensor) -> paddle.Tensor:
    """Of ``[2 N, ...]`` the even ones, ``[N, ...]``."""
    images, *others = values.shape
    return values.reshape([images // 2, 2, *others])[:, 0]


class _Reversal(PyLayer):  # type: ignore[misc]
    """The identity, whose gradient is reversed and scaled."""

    @staticmethod
    def forward(ctx: Any, features: paddle.Tensor, factor: float) -> paddle.Tensor:
        ctx.factor = factor
        return features.clone()

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        return gradient * -ctx.factor
