"""`paddleseg.core.train()` with the names that need it replaced while it runs."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TextIO

import paddle
import visualdl

# `import paddleseg.core.train as m` would give the function: the package's __init__ shadows the module.
_train_module = importlib.import_module("paddleseg.core.train")

Evaluate = Callable[..., tuple[float, float, Any, Any, Any]]


class Writer(Protocol):
    """What `train()` asks of a VisualDL writer."""

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Take one point of a curve."""

    def close(self) -> None:
        """Flush and close."""


class StreamSampler(paddle.io.BatchSampler):  # type: ignore[misc]
    """Positions ``first_iter * batch * ranks, ...`` of an endless stream, in order.

    The data set decides which image stands at a position; so the order does not depend on workers, a
    resumed run goes on where it stopped, and a data set may be smaller than a batch.
    """

    def __init__(self, cases: int, batch_size: int, first_iter: int, iters: int) -> None:
        self._cases, self._batch_size = cases, batch_size
        self._first_iter, self._iters = first_iter, iters
        environment = paddle.distributed.ParallelEnv()
        self._rank, self._ranks = environment.rank, environment.nranks

    def __iter__(self) -> Iterator[list[int]]:
        for iteration in range(self._first_iter, self._iters):
            start = (iteration * self._ranks + self._rank) * self._batch_size
            yield list(range(start, start + self._batch_size))

    def __len__(self) -> int:
        """Batches in one pass over the cases; `train()` derives the epoch it logs from it."""
        return max(1, self._cases // int(self._batch_size * self._ranks))


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def run_train(
    model: paddle.nn.Layer,
    train_dataset: paddle.io.Dataset,
    *,
    cases: int,
    evaluate: Evaluate,
    writer: Writer,
    log: TextIO,
    first_iter: int,
    iters: int,
    resume_from: Path | None,
    batch_size: int,
    **arguments: Any,
) -> None:
    """Call `paddleseg.core.train()`.

    Parameters
    ----------
    model, train_dataset
        As `train()` takes them; ``train_dataset[position]`` serves an endless stream.
    cases : int
        Images in one pass.
    evaluate
        In place of PaddleSeg's; called as ``evaluate(model, val_dataset, **options)``; the first value
        that it returns picks ``best_model`` (greatest wins).
    writer : Writer
        Gets every scalar that `train()` logs.
    log : text stream
        Gets what PaddleSeg prints.
    first_iter, iters : int
        Iterations done before, and in all.
    resume_from : Path or None
        Checkpoint folder ``iter_N`` to go on from.
    **arguments
        Passed on to `train()`.
    """

    def sampler(*_: Any, **__: Any) -> StreamSampler:
        return StreamSampler(cases, batch_size, first_iter, iters)

    with (
        _replaced(_train_module, "evaluate", evaluate),
        _replaced(visualdl, "LogWriter", lambda *_, **__: writer),
        _replaced(paddle.io, "DistributedBatchSampler", sampler),
        contextlib.redirect_stdout(log),
    ):
        _train_module.train(
            model,
            train_dataset,
            resume_model=None if resume_from is None else str(resume_from),
            iters=iters,
            batch_size=batch_size,
            use_vdl=paddle.distributed.ParallelEnv().rank == 0,
            **arguments,
        )
