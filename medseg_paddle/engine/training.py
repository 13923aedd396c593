"""One training: the recipe's parts put together around `paddleseg.core.train()`."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from medseg_paddle.config.recipe import CpuKernels
from medseg_paddle.core import Case, LabelSet
from medseg_paddle.engine import model_graph
from medseg_paddle.engine.checkpoints import latest_whole, save_checkpoint
from medseg_paddle.engine.cpu_kernels import use_cpu_kernels
from medseg_paddle.engine.curves import LoopWriter, introduce
from medseg_paddle.engine.dashboard import Dashboard
from medseg_paddle.engine.data import Survey, TrainingStream, batch_bytes
from medseg_paddle.engine.interruption import Stopped, StopSignals
from medseg_paddle.engine.listener import Listener
from medseg_paddle.engine.models import build_model, count_parameters, load_weights
from medseg_paddle.engine.optimizers import build_optimizer
from medseg_paddle.engine.paddleseg_adapter.loop import LoadingFailed, run_train
from medseg_paddle.engine.paddleseg_adapter.losses import build_losses, part_names
from medseg_paddle.engine.validation import Validation
from medseg_paddle.io.decoded import DecodedImages
from medseg_paddle.run import Run


def fit(
    run: Run,
    train_cases: Sequence[Case],
    val_cases: Sequence[Case],
    labels: LabelSet,
    *,
    found: Survey,
    decoded: DecodedImages,
    device: str,
    resume: bool,
    listener: Listener,
    stop: StopSignals,
) -> None:
    """Train `run.recipe` in the folder of `run`.

    Parameters
    ----------
    run : Run
    train_cases, val_cases : sequence of Case
        Without validation cases no best checkpoint is chosen; the last one is used.
    labels : LabelSet
    found, decoded
        From :func:`medseg_paddle.engine.inspection.inspect`, and what it kept.
    device : str
        As :func:`medseg_paddle.engine.device.set_device` returned it; noted on the dashboard.
    resume : bool
        Go on from the latest checkpoint, if there is one.
    listener : Listener
    stop : StopSignals
        Looked at after each iteration and each scored image; the training then saves a checkpoint and ends.

    Raises
    ------
    MedsegError
        Something in the data does not fit the recipe, or the disk is full. Where images can no longer be
        loaded, the state after the last finished iteration is saved first.
    """
    recipe = run.recipe
    checkpoint = latest_whole(run) if resume else None
    first_iter = 0 if checkpoint is None else run.iteration_of(checkpoint)
    run.tidy_checkpoints()
    _seed(recipe.seed)
    environment = paddle.distributed.ParallelEnv()
    images_per_iteration = recipe.batch_size * environment.nranks
    log_iters = min(recipe.log_iters, recipe.iters)
    with (
        paddle.utils.unique_name.guard(),  # names of optimiser states must not depend on what ran before
        run.log.open("a", encoding="utf-8") as log,
        contextlib.ExitStack() as ending,
    ):
        ending.callback(run.tidy_checkpoints)
        model = build_model(recipe)
        optimizer = build_optimizer(recipe, model)
        dashboard = None
        if environment.rank == 0:
            with contextlib.redirect_stdout(log):  # VisualDL says that the file of a resumed run is there
                dashboard = Dashboard(run.path, images_per_iteration, part_names(recipe.loss))
            ending.callback(dashboard.close)
        # A graph for training is traced from the model and has Paddle's operators.
        choice: CpuKernels = "paddle" if recipe.to_static_training else recipe.cpu_kernels
        facts = {
            "model": recipe.model.type,
            "parameters": count_parameters(model),
            "device": device,
            "cpu_kernels": use_cpu_kernels(model, choice, device),
            "images": len(train_cases),
            "images_decoded": len(decoded),
            "shortage": decoded.shortage,
        }
        log.write(f"computing on {device}, convolutions by {facts['cpu_kernels'] or 'CUDA'}\n")
        listener.started(run.path, facts, first_iter, recipe.iters)
        graph = None
        if dashboard is not None and recipe.model_graph and not model_graph.is_drawn(run.path):
            graph = model_graph.start_drawing(run.path)
            ending.callback(model_graph.end, graph)
        if dashboard is not None and first_iter == 0:
            introduce(dashboard, recipe, facts, labels if val_cases else None)
        writer: Any = (
            LoopWriter(dashboard, listener, images_per_iteration, first_iter, log_iters)
            if dashboard is not None
            else None
        )
        validation = Validation(run, val_cases, labels, dashboard, listener, first_iter, model, stop)

        def after_step(iteration: int) -> None:
            validation.iteration = iteration
            if stop.wanted:
                raise Stopped

        if checkpoint is not None:
            _catch_up(run, checkpoint, model, validation)
        if first_iter < recipe.iters:
            with stop.deferred():
                ended, lost = False, None
                try:
                    ended = run_train(
                        model,
                        TrainingStream(train_cases, recipe, decoded, found),
                        cases=len(train_cases),
                        batch_bytes=batch_bytes(recipe, found),
                        evaluate=validation,
                        after_step=after_step,
                        writer=writer,
                        log=log,
                        first_iter=first_iter,
                        iters=recipe.iters,
                        resume_from=checkpoint,
                        batch_size=recipe.batch_size,
                        val_dataset=val_cases or None,
                        optimizer=optimizer,
                        save_dir=str(run.checkpoints),
                        save_interval=recipe.save_interval,
                        log_iters=log_iters,
                        num_workers=recipe.num_workers,
                        losses=build_losses(
                            recipe.loss, recipe.ignore_index, mixed=recipe.train_dataset.mixup is not None
                        ),
                        keep_checkpoint_max=recipe.keep_checkpoint_max,
                        use_ema=recipe.use_ema,
                        precision=recipe.precision,
                        amp_level=recipe.amp_level,
                        to_static_training=recipe.to_static_training,
                    )
                except LoadingFailed as failed:
                    lost = failed.error
                if not ended and (lost is None or validation.iteration > first_iter):
                    save_checkpoint(run, validation.iteration, model, optimizer)
                    listener.stopped(validation.iteration, recipe.iters, resumable=not recipe.use_ema)
                if lost is not None:
                    raise lost
        if graph is not None and not stop.wanted:
            model_graph.wait(graph)


def _catch_up(run: Run, checkpoint: Path, model: paddle.nn.Layer, validation: Validation) -> None:
    """Do what was to be done at `checkpoint`, had the run not been stopped: score it, keep it as the best."""
    if run.to_validate(checkpoint):
        load_weights(model, run.weights_in(checkpoint))
        validation(model, None)
    best = max(run.history(), key=lambda entry: entry["score"], default=None)
    if best is not None and best["iter"] == run.iteration_of(checkpoint):
        run.keep_as_best(checkpoint)


def _seed(seed: int) -> None:
    paddle.seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (PaddleSeg's and Paddle's code draw from it)
