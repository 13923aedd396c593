"""The processes of one training, and what they tell each other.

Each computes a share of every batch; all have the same weights, optimiser and loss at any time. PaddleSeg's
`train()` is not told of the others (`paddleseg_adapter`): its way is the mean of the gradients of each process's own
loss, which is not the gradient of the loss of the batch where that is no mean over images (Dice over the batch,
ignored pixels, the hardest pixels).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import nn

from medseg_paddle.config import Recipe
from medseg_paddle.engine.recomputation import BATCH_NORMS
from medseg_paddle.errors import SetupError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Those that train together, as one of them sees it.

    Every method but :meth:`own` and :meth:`share_of` is to be called by all of them, in the same order.

    Attributes
    ----------
    rank : int
        From 0, which alone writes.
    count : int
    meet : callable
        Returns when all have called it, however long that takes. Gloo gives up after 30 s, and nothing can change
        that; images are read, hashed and scored meanwhile, and one process may well take minutes more than another.
    """

    rank: int = 0
    count: int = 1
    meet: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def own(self, batch: Sequence[T]) -> Sequence[T]:
        """What of a batch this process computes."""
        share = len(batch) // self.count
        return batch[self.rank * share : (self.rank + 1) * share]

    def share_of(self, recipe: Recipe) -> Recipe:
        """What of a training this process has to do: its images, and its part of the processes that load them.

        The parts of `gradient_accumulation` stay as large as they are in one process, so far as that is possible:
        batch norms see as many images at a time.
        """
        if self.count == 1:
            return recipe
        parts, workers = recipe.gradient_accumulation, recipe.num_workers
        return recipe.model_copy(
            update={
                "batch_size": recipe.batch_size // self.count,
                "gradient_accumulation": -(-parts // self.count),
                "num_workers": -(-workers // self.count),
            }
        )

    def any_of(self, *flags: bool) -> tuple[bool, ...]:
        """Of each flag, whether it is set in any process."""
        if self.count == 1:
            return flags
        self.meet()
        found = paddle.to_tensor([int(flag) for flag in flags], dtype="int32")
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in found.numpy())

    def from_all(self, value: T) -> list[T]:
        """The values of all processes, by rank; pickled."""
        if self.count == 1:
            return [value]
        self.meet()
        found: list[T] = []
        dist.all_gather_object(found, value)
        return found

    def from_first(self, value: T) -> T:
        """The value of the first process; when this returns, all processes have come here."""
        return self.from_all(value if self.first else None)[0]  # type: ignore[return-value]

    def whole(self, own: paddle.Tensor) -> paddle.Tensor:
        """What all processes have computed of a batch, put together in its order.

        Gradients go back to this process's share alone. So the gradients of a loss of the whole are, added up over
        the processes, those of one process that has the batch to itself.

        Parameters
        ----------
        own : Tensor
            ``[N / count, ...]``, of the same shape in each process.
        """
        if self.count == 1:
            return own
        self.meet()
        shares: list[paddle.Tensor] = []
        dist.all_gather(shares, own.detach().contiguous())
        shares[self.rank] = own
        return paddle.concat(shares)

    def each(self, own: paddle.Tensor) -> paddle.Tensor:
        """What each process has, ``[count, ...]`` by rank, without gradients.

        For what is asked many times an iteration: on GPUs they need not meet, as NCCL waits.
        """
        if self.count == 1:
            return own.unsqueeze(0)
        if not own.place.is_gpu_place():
            self.meet()
        found: list[paddle.Tensor] = []
        dist.all_gather(found, own.detach().contiguous())
        return paddle.stack(found)

    def add_gradients(self, model: nn.Layer) -> None:
        """Let each parameter's gradient be the sum over all processes, to be called between backward and step.

        And each running statistic of a batch norm the mean: so that it, too, is of all images.
        """
        if self.count == 1:
            return
        self.meet()
        _add_up([value.grad for value in model.parameters() if value.grad is not None])
        statistics = list(_statistics(model))
        _add_up(statistics)
        with paddle.no_grad():
            for value in statistics:
                paddle.assign(value / self.count, value)

    def require_equal(self, model: nn.Layer, iteration: int) -> None:
        """See that all processes have the same weights, bit for bit, before they are scored and saved.

        Raises
        ------
        SetupError
            They have not.
        """
        if self.count == 1:
            return
        digest = hashlib.sha256()
        for value in model.state_dict().values():
            digest.update(np.ascontiguousarray(value.astype("float32").numpy()).data)
        if len(set(self.from_all(digest.hexdigest()))) > 1:
            raise SetupError(
                f"the {self.count} processes have different weights after iteration {iteration}",
                hint="a device computes wrong numbers, or the devices are of different kinds: train on others; the run "
                "goes on from its last checkpoint with --resume",
            )


ALONE = Ranks()


def join(rank: int, count: int, port: int, meet: Callable[[], None]) -> Ranks:
    """Meet the other processes of a training on this machine, once the device is set.

    Parameters
    ----------
    rank, count : int
    port : int
        A free one, on which the first process lets the others find each other.
    meet : callable
        See :class:`Ranks`.
    """
    if count == 1:
        return ALONE
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        PADDLE_MASTER=f"127.0.0.1:{port}",
        PADDLE_TRAINER_ID=str(rank),
        PADDLE_TRAINERS_NUM=str(count),
    )
    with contextlib.redirect_stderr(io.StringIO()):  # a list of flags, which nobody has set
        dist.init_parallel_env()
    return Ranks(rank, count, meet)


def _statistics(model: nn.Layer) -> Iterator[paddle.Tensor]:
    """Running statistics that the training moves."""
    for layer in model.sublayers(include_self=True):
        if isinstance(layer, BATCH_NORMS) and layer.training and not layer._use_global_stats:  # noqa: SLF001
            yield from (layer._mean, layer._variance)  # noqa: SLF001  (no public way)


def _add_up(tensors: Sequence[paddle.Tensor]) -> None:
    """Replace each by its sum over all processes: one message for all of a type."""
    by_type: dict[Any, list[paddle.Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.dtype, []).append(tensor)
    with paddle.no_grad():
        for alike in by_type.values():
            together = paddle.concat([tensor.flatten() for tensor in alike])
            dist.all_reduce(together)
            end = 0
            for tensor in alike:
                start, end = end, end + tensor.size
                paddle.assign(together[start:end].reshape(tensor.shape), tensor)
