"""`paddleseg.core.train()` with the names that need it replaced while it runs."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, TextIO

import paddle
import visualdl

from medseg_paddle.engine.interruption import Stopped
from medseg_paddle.engine.loading import Stream, loaded
from medseg_paddle.engine.paddleseg_adapter.moving_average import MovingAverage
from medseg_paddle.engine.ranks import ALONE, Ranks

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


class _AllDone(Exception):  # noqa: N818  (it is no error)
    """The last iteration is done, with its scores and its checkpoint; what is left of `train()` is not wanted.

    It would count the operations of a network for pictures, and know no other.
    """


@dataclass(frozen=True)
class Hooks:
    """Where we take part in `train()`.

    Attributes
    ----------
    around
        A context, entered when `train()` has copied the model for the moving average and loaded the
        checkpoint, and left when it ends.
    before_iteration
        Called with the number of the iteration that begins, from 1. All of the one before is done: its step,
        line in the log, scores and checkpoint. It may raise :class:`Stopped`; of several processes, all do.
    after_step
        Called with the iteration when weights, optimiser and learning rate have made its step.
    loss
        Called then with the iteration, its loss and the loss's parts. What it returns is what `train()` adds up
        for the next line of its log.
    evaluate
        In place of PaddleSeg's; called as ``evaluate(model, val_dataset, **options)``. The first value
        that it returns must grow from call to call (of 2.8.0, an average that is not the best at its first
        evaluation ends in UnboundLocalError). It may raise :class:`Stopped`.
    save
        In place of `paddle.save`; `train()` offers it the weights as the best after each evaluation.
    average : MovingAverage
    scaler
        In place of `paddle.amp.GradScaler`.
    """

    around: Callable[[], AbstractContextManager[None]]
    before_iteration: Callable[[int], None]
    after_step: Callable[[int], None]
    loss: Callable[[int, float, Sequence[float]], float]
    evaluate: Evaluate
    save: Callable[..., None]
    average: MovingAverage
    scaler: Callable[..., Any]


def positions_of(iteration: int, batch_size: int) -> list[int]:
    """Positions of the batch of an iteration, counted from 1, in the stream of images."""
    start = (iteration - 1) * batch_size
    return list(range(start, start + batch_size))


class StreamSampler(paddle.io.BatchSampler):  # type: ignore[misc]
    """Positions ``first_iter * batch_size, ...`` of an endless stream, in order; of each batch, a process's share.

    The data set decides which image stands at a position; so the order does not depend on workers nor on the
    number of processes, a resumed run goes on where it stopped, and a data set may be smaller than a batch.
    """

    def __init__(
        self, cases: int, batch_size: int, first_iter: int, iters: int, ranks: Ranks = ALONE
    ) -> None:
        self._cases, self._batch_size, self._ranks = cases, batch_size, ranks
        self._first_iter, self._iters = first_iter, iters

    def __iter__(self) -> Iterator[Sequence[int]]:
        for iteration in range(self._first_iter + 1, self._iters + 1):
            yield self._ranks.own(positions_of(iteration, self._batch_size))

    def __len__(self) -> int:
        """Batches in one pass over the cases; `train()` derives the epoch it logs from it."""
        return max(1, self._cases // self._batch_size)


_ABSENT = object()


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name, _ABSENT)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


@contextlib.contextmanager
def _with_all_gradients(owner: Any, name: str, model: paddle.nn.Layer, ranks: Ranks) -> Iterator[None]:
    """Let the method that makes a step add up the gradients of all processes first."""
    if ranks.count == 1:
        yield
        return
    step = getattr(owner, name)

    def summed(*words: Any, **options: Any) -> Any:
        ranks.add_gradients(model)
        return step(*words, **options)

    setattr(owner, name, summed)  # of this object alone, in place of its class's
    try:
        yield
    finally:
        delattr(owner, name)


def _next_batch(batches: Iterator[dict[str, paddle.Tensor]], ranks: Ranks) -> dict[str, paddle.Tensor]:
    """The next batch, which all processes have; else none goes on."""
    batch, lost = None, None
    try:
        batch = next(batches)
    except Exception as error:  # noqa: BLE001  (of loading, none of the training)
        lost = error
    (ending,) = ranks.any_of(lost is not None)
    if lost is not None:
        raise LoadingFailed(lost) from lost
    if batch is None or ending:
        raise Stopped
    return batch


def run_train(
    model: paddle.nn.Layer,
    stream: Stream,
    *,
    hooks: Hooks,
    cases: int,
    batch_bytes: int,
    num_workers: int,
    writer: Writer,
    log: TextIO,
    first_iter: int,
    iters: int,
    resume_from: Path | None,
    batch_size: int,
    optimizer: Any,
    ranks: Ranks = ALONE,
    **arguments: Any,
) -> bool:
    """Call `paddleseg.core.train()`.

    Parameters
    ----------
    model
        As `train()` takes it.
    stream : Stream
        Serves the images of an endless stream.
    hooks : Hooks
    cases : int
        Images in one pass.
    batch_bytes : int
        Room for one batch; see :func:`medseg_paddle.engine.loading.loaded`.
    num_workers : int
        Processes that load images.
    writer : Writer
        Gets every scalar that `train()` logs.
    log : text stream
        Gets what PaddleSeg prints.
    first_iter, iters : int
        Iterations done before, and in all.
    resume_from : Path or None
        Checkpoint folder ``iter_N`` to go on from.
    batch_size : int
        Images of an iteration, of all processes together.
    optimizer
        As `train()` takes it.
    ranks : Ranks
        The processes of the training, of which `train()` knows this one only: its loss is that of the whole batch,
        and its gradients are added up before each step. Only the first saves and logs.
    **arguments
        Passed on to `train()`.

    Returns
    -------
    bool
        Whether the training went on to its end; False where a hook raised :class:`Stopped`.

    Raises
    ------
    LoadingFailed
        A batch could not be loaded; where only another process could not, the run ends as if stopped.
    """
    done = first_iter
    parts: list[paddle.Tensor] = []

    def sampler(*_: Any, **__: Any) -> StreamSampler:
        running.enter_context(hooks.around())
        return StreamSampler(cases, batch_size, first_iter, iters, ranks)

    def loader(
        _dataset: Any, *, batch_sampler: StreamSampler, **_: Any
    ) -> Iterator[dict[str, paddle.Tensor]]:
        return announced(
            running.enter_context(
                loaded(stream, batch_sampler, num_workers=num_workers, batch_bytes=batch_bytes)
            )
        )

    def announced(batches: Iterator[dict[str, paddle.Tensor]]) -> Iterator[dict[str, paddle.Tensor]]:
        while done < iters:
            hooks.before_iteration(done + 1)
            yield _next_batch(batches, ranks)
        raise _AllDone

    def loss_computation(
        logits_list: list[paddle.Tensor], labels: paddle.Tensor, **options: Any
    ) -> list[paddle.Tensor]:
        parts[:] = compute_losses(
            [ranks.whole(logits) for logits in logits_list], ranks.whole(labels), **options
        )
        return list(parts)

    def scaler(*words: Any, **options: Any) -> Any:
        made = hooks.scaler(*words, **options)
        running.enter_context(_with_all_gradients(made, "minimize", model, ranks))
        return made

    def noted(loss: paddle.Tensor) -> float:
        nonlocal done
        done += 1
        hooks.after_step(done)
        number = hooks.loss(done, float(loss), [float(part) for part in parts])
        parts.clear()
        return number

    compute_losses = _train_module.loss_computation
    stock_log = _train_module.logger
    with (
        contextlib.ExitStack() as running,
        _replaced(_train_module, "evaluate", hooks.evaluate),
        _replaced(_train_module, "loss_computation", loss_computation),
        # The one number that `train()` takes from the loss: once an iteration, right after the steps of optimiser and
        # schedule.
        _replaced(_train_module, "float", noted),
        _replaced(_train_module, "deepcopy", hooks.average.make),
        _replaced(_train_module, "init_ema_params", hooks.average.begin),
        _replaced(_train_module, "update_ema_model", hooks.average.update),
        _replaced(_train_module, "logger", SimpleNamespace(info=_without_scores(stock_log.info))),
        _replaced(visualdl, "LogWriter", lambda *_, **__: writer),
        _replaced(paddle, "save", hooks.save),
        _replaced(paddle.amp, "GradScaler", scaler),
        # Zeros to add the next gradients to would be one more copy of the weights.
        _replaced(paddle.nn.Layer, "clear_gradients", _forget_gradients),
        _replaced(paddle.io, "DataLoader", loader),
        _replaced(paddle.io, "DistributedBatchSampler", sampler),
        contextlib.redirect_stdout(log),
        contextlib.suppress(Stopped),
    ):
        if ranks.count > 1:
            alone = SimpleNamespace(nranks=1, local_rank=ranks.rank)
            running.enter_context(_replaced(paddle.distributed, "ParallelEnv", lambda: alone))
        # Not called in fp16, where the scaler makes the step.
        running.enter_context(_with_all_gradients(optimizer, "step", model, ranks))
        try:
            _train_module.train(
                model,
                stream,
                resume_model=None if resume_from is None else str(resume_from),
                iters=iters,
                batch_size=batch_size,
                num_workers=num_workers,
                optimizer=optimizer,
                use_vdl=ranks.first,
                keep_checkpoint_max=0,  # it would count those of this call only; `hooks.save` removes old ones
                **arguments,
            )
        except _AllDone:
            if ranks.first:
                writer.close()
        return True
    return False


def _without_scores(info: Callable[[str], None]) -> Callable[[str], None]:
    """The log without what `train()` says of scores: it calls a Dice mIoU, and knows none from before it was called."""

    def say(message: str) -> None:
        if not message.startswith("[EVAL]"):
            info(message)

    return say
