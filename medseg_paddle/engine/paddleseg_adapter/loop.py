"""`paddleseg.core.train()` with the names that need it replaced while it runs."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, TextIO

import paddle
import visualdl

from medseg_paddle.engine.checkpoints import save_whole
from medseg_paddle.engine.interruption import Stopped
from medseg_paddle.engine.loading import Stream, loaded

# `import paddleseg.core.train as m` would give the function: the package's __init__ shadows the module.
_train_module = importlib.import_module("paddleseg.core.train")

_forget_gradients = functools.partialmethod(paddle.nn.Layer.clear_gradients, set_to_zero=False)

Evaluate = Callable[..., tuple[float, float, Any, Any, Any]]


class Writer(Protocol):
    """What `train()` asks of a VisualDL writer."""

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Take one point of a curve."""

    def close(self) -> None:
        """Flush and close."""


class LoadingFailed(Exception):  # noqa: N818  (it carries the error)
    """Images cannot be loaded any more; the model is as it was after the last finished iteration.

    Attributes
    ----------
    error : Exception
        Why.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


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
    stream: Stream,
    *,
    cases: int,
    batch_bytes: int,
    num_workers: int,
    evaluate: Evaluate,
    after_step: Callable[[int], None],
    before_iteration: Callable[[int], None],
    writer: Writer,
    log: TextIO,
    first_iter: int,
    iters: int,
    resume_from: Path | None,
    batch_size: int,
    **arguments: Any,
) -> bool:
    """Call `paddleseg.core.train()`.

    Parameters
    ----------
    model
        As `train()` takes it.
    stream : Stream
        Serves the images of an endless stream.
    cases : int
        Images in one pass.
    batch_bytes : int
        Room for one batch; see :func:`medseg_paddle.engine.loading.loaded`.
    num_workers : int
        Processes that load images.
    evaluate
        In place of PaddleSeg's; called as ``evaluate(model, val_dataset, **options)``; the first value
        that it returns picks ``best_model`` (greatest wins).
    after_step
        Called with the iteration when weights, optimiser and learning rate have made its step. It and
        `evaluate` may raise :class:`Stopped`; what is saved then is the state after that iteration.
    before_iteration
        Called with the number of the iteration that begins, from 1, when its batch is asked for: whatever
        `train()` scores and saves after the one before is done and written. It may raise :class:`Stopped`.
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

    Returns
    -------
    bool
        Whether the training went on to its end.

    Raises
    ------
    LoadingFailed
        A batch could not be loaded.
    """
    done = first_iter

    def sampler(*_: Any, **__: Any) -> StreamSampler:
        return StreamSampler(cases, batch_size, first_iter, iters)

    def loader(
        _dataset: Any, *, batch_sampler: StreamSampler, **_: Any
    ) -> Iterator[dict[str, paddle.Tensor]]:
        batches = loaded(stream, batch_sampler, num_workers=num_workers, batch_bytes=batch_bytes)
        return announced(running.enter_context(batches))

    def announced(batches: Iterator[dict[str, paddle.Tensor]]) -> Iterator[dict[str, paddle.Tensor]]:
        while done < iters:
            before_iteration(done + 1)
            try:
                batch = next(batches)
            except Exception as error:  # of loading, none of the training
                raise LoadingFailed(error) from error
            yield batch

    def count(_profiler_options: Any) -> None:
        nonlocal done
        done += 1
        after_step(done)

    with (
        contextlib.ExitStack() as running,
        _replaced(_train_module, "evaluate", evaluate),
        # The one call that `train()` makes in each iteration, right after the steps of optimiser and schedule.
        _replaced(_train_module, "train_profiler", SimpleNamespace(add_profiler_step=count)),
        _replaced(visualdl, "LogWriter", lambda *_, **__: writer),
        _replaced(paddle, "save", save_whole),
        # Zeros to add the next gradients to would be one more copy of the weights.
        _replaced(paddle.nn.Layer, "clear_gradients", _forget_gradients),
        _replaced(paddle.io, "DataLoader", loader),
        _replaced(paddle.io, "DistributedBatchSampler", sampler),
        contextlib.redirect_stdout(log),
        contextlib.suppress(Stopped),
    ):
        _train_module.train(
            model,
            stream,
            resume_model=None if resume_from is None else str(resume_from),
            iters=iters,
            batch_size=batch_size,
            num_workers=num_workers,
            use_vdl=paddle.distributed.ParallelEnv().rank == 0,
            **arguments,
        )
        return True
    return False
