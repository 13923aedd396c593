"""One training: the recipe's parts put together around `paddleseg.core.train()`."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import paddle

from medseg_paddle.config.recipe import Recipe
from medseg_paddle.core import Case, LabelSet
from medseg_paddle.engine import model_graph
from medseg_paddle.engine.accumulation import save_memory
from medseg_paddle.engine.alignment import LOSS_NAME, DomainAlignment, DomainLoss
from medseg_paddle.engine.course import Course
from medseg_paddle.engine.cpu_kernels import train_with_cpu_kernels
from medseg_paddle.engine.curves import LoopWriter, introduce
from medseg_paddle.engine.dashboard import Dashboard
from medseg_paddle.engine.data import Survey, balanced_weights
from medseg_paddle.engine.ending import Ending
from medseg_paddle.engine.event_log import Reached, cut_log
from medseg_paddle.engine.freezing import Freezing
from medseg_paddle.engine.initialise import initialise
from medseg_paddle.engine.interruption import Stopped, StopSignals
from medseg_paddle.engine.listener import Listener
from medseg_paddle.engine.losses import build_losses, part_names
from medseg_paddle.engine.models import build_model, count_parameters
from medseg_paddle.engine.optimizers import build_optimizer, score_followers
from medseg_paddle.engine.paddleseg_adapter.loop import LoadingFailed, run_train
from medseg_paddle.engine.precision import mixed_precision
from medseg_paddle.engine.randomness import seed_everything
from medseg_paddle.engine.ranks import ALONE, Ranks
from medseg_paddle.engine.shared_norms import share_batch_norms
from medseg_paddle.engine.streams import batch_bytes, training_stream
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
    checkpoint: Path | None,
    listener: Listener,
    stop: StopSignals,
    end_at: float = math.inf,
    ranks: Ranks = ALONE,
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
    checkpoint : Path or None
        Checkpoint to go on from, as :func:`medseg_paddle.engine.checkpoints.latest_whole` found it.
    listener : Listener
    stop : StopSignals
        Looked at between iterations and after each scored image; the training then saves a checkpoint and ends.
    end_at : float
        Time of `time.monotonic` from which on no further iteration is begun, but for the first one: a run that
        is resumed again and again gets on. A validation that is due is made; then a checkpoint is saved.
    ranks : Ranks
        The processes that train together, of which this is one; only the first writes to the run's folder.

    Raises
    ------
    MedsegError
        Something in the data does not fit the recipe, the disk is full, or the loss is no number any more
        (DivergenceError). Where images can no longer be loaded, the state after the last finished iteration is
        saved first.
    """
    recipe, own = run.recipe, ranks.share_of(run.recipe)
    reached = ranks.from_first(
        Reached(0) if checkpoint is None else Reached(run.iteration_of(checkpoint), run.unscored(checkpoint))
    )
    seed_everything(recipe.seed)
    with (
        paddle.utils.unique_name.guard(),  # names of optimiser states must not depend on what ran before
        contextlib.ExitStack() as ending,
    ):
        if ranks.first:
            run.tidy_checkpoints()
            cut_log(run.log, reached)
            ending.callback(run.tidy_checkpoints)
        log = ending.enter_context((run.log if ranks.first else Path(os.devnull)).open("a", encoding="utf-8"))
        model, freezing, alignment, optimizer = _to_train(run, log, checkpoint, ranks)
        stream = training_stream(train_cases, recipe, decoded, found)
        dashboard = None
        if ranks.first:
            with contextlib.redirect_stdout(log):  # VisualDL says that the file of a resumed run is there
                losses = [*part_names(recipe.loss), *([] if alignment is None else [LOSS_NAME])]
                dashboard = Dashboard(run.path, recipe.batch_size, losses, reached)
            ending.callback(dashboard.close)
        facts = {
            "model": recipe.model.type,
            "parameters": count_parameters(model),
            "frozen": freezing.count,
            "device": device,
            "cpu_kernels": set_up(model, own, device),
            "processes": ranks.count,
            "images": len(train_cases),
            # Preprocessed volumes are mapped as they are.
            "images_decoded": len(train_cases) if recipe.dimensions == 3 else len(decoded),
            "shortage": decoded.shortage,
        }
        if recipe.gradient_accumulation == 1:  # else each part of a batch is normalised by itself
            share_batch_norms(model, ranks)
        log.write(f"computing on {device}, convolutions by {facts['cpu_kernels'] or 'CUDA'}\n")
        if ranks.count > 1:
            log.write(f"so does each of {ranks.count} processes\n")
        ending.enter_context(stop.deferred())
        listener.started(run.path, facts, reached.iteration, recipe.iters)
        graph = None
        if dashboard is not None and recipe.model_graph and not model_graph.is_drawn(run.path):
            graph = model_graph.start_drawing(run.path)
            ending.callback(model_graph.end, graph)
        if dashboard is not None and reached.iteration == 0:
            introduce(dashboard, recipe, facts, labels if val_cases else None)
        mixed = mixed_precision(recipe, device)
        validation = Validation(
            run, val_cases, labels, dashboard, listener, reached.iteration, model, stop, log=log, ranks=ranks,
            mixed=mixed,
            on_score=score_followers(optimizer, run.history(), reached.iteration, recipe.selection.gain),
        )  # fmt: skip
        end = Ending(validation, stop, end_at, ranks)
        course = Course(
            run=run,
            checkpoint=checkpoint,
            reached=reached,
            model=model,
            optimizer=optimizer,
            mixed=mixed,
            stream=stream,
            validation=validation,
            dashboard=dashboard,
            log=log,
            ending=end,
            freezing=freezing,
            alignment=alignment,
            ranks=ranks,
        )
        writer: Any = (
            None if dashboard is None else LoopWriter(dashboard, listener, recipe.batch_size, course.running)
        )

        def loop() -> bool:
            course.catch_up()
            return not course.has_more or run_train(
                model,
                stream,
                hooks=course.hooks,
                cases=len(train_cases),
                batch_bytes=batch_bytes(own, found),
                ranks=ranks,
                writer=writer,
                log=log,
                first_iter=reached.iteration,
                iters=recipe.iters,
                resume_from=checkpoint,
                val_dataset=val_cases or None,
                optimizer=optimizer,
                save_dir=str(run.checkpoints),
                save_interval=recipe.save_interval,
                log_iters=course.log_iters,
                **loop_arguments(recipe, _class_weights(recipe, found, log))
                | {"num_workers": own.num_workers},
            )

        _follow(course, loop, end, listener, ranks, iters=recipe.iters, first_iter=reached.iteration)
        if end.early and not stop.wanted:
            listener.stopped_early(course.iteration)
        if graph is not None and not (stop.wanted or end.time_is_up):
            model_graph.wait(graph)


def _follow(
    course: Course,
    loop: Callable[[], bool],
    end: Ending,
    listener: Listener,
    ranks: Ranks,
    *,
    iters: int,
    first_iter: int,
) -> None:
    """Run the loop; where it does not come to its end, save what it has done."""
    ended, lost = False, None
    try:
        ended = loop()
    except Stopped:  # amid a validation that was to be made first
        pass
    except LoadingFailed as failed:
        lost = failed.error
    if not (ended or end.early) and (lost is None or course.iteration > first_iter):
        course.save()
        listener.stopped(course.iteration, iters, time_is_up=end.time_is_up)
    ranks.any_of(True)  # nobody ends, or says why, before the first has saved
    if lost is not None:
        raise lost


def set_up(model: paddle.nn.Layer, recipe: Recipe, device: str) -> str:
    """Let the model compute as the recipe says; tells what computes its convolutions on a CPU."""
    kernels = train_with_cpu_kernels(model, recipe, device)
    save_memory(model, recipe)
    return kernels


def loop_arguments(recipe: Recipe, class_weights: tuple[float, ...] | None) -> dict[str, Any]:
    """What `run_train` takes from the recipe alone; `class_weights` are what ``weight: balanced`` stands for."""
    mixed = recipe.train_dataset.mixup is not None
    losses = build_losses(recipe.loss, recipe.ignore_index, mixed=mixed, class_weights=class_weights)
    if recipe.alignment is not None:
        losses = {"types": [*losses["types"], DomainLoss()], "coef": [*losses["coef"], 1.0]}
    return {
        "batch_size": recipe.batch_size,
        "num_workers": recipe.num_workers,
        "losses": losses,
        "use_ema": recipe.use_ema,
        # bf16 is no word of PaddleSeg's; see `engine.precision`.
        "precision": "fp16" if recipe.precision == "fp16" else "fp32",
        "amp_level": recipe.amp_level,
        "to_static_training": recipe.to_static_training,
    }


def build_alignment(recipe: Recipe, model: paddle.nn.Layer) -> DomainAlignment | None:
    """What is trained against the network's encoder; None where the recipe has no `alignment`.

    To be built right after the network: the optimiser's state goes by names that count what was built before.
    """
    return None if recipe.alignment is None else DomainAlignment(model, recipe.alignment, recipe.iters)


def _to_train(
    run: Run, log: TextIO, checkpoint: Path | None, ranks: Ranks
) -> tuple[paddle.nn.Layer, Freezing, DomainAlignment | None, Any]:
    """The network with what it starts from, what of it is frozen, what is trained against it, and its optimiser.

    All as after `checkpoint`, but for the weights and states that are in it.
    """
    recipe = run.recipe
    model = build_model(recipe)
    alignment = build_alignment(recipe, model)
    if checkpoint is None and (started_from := initialise(model, recipe)) is not None:
        if ranks.first:
            run.note_initial_weights(started_from.facts)
        log.write("\n".join([started_from.summary, *started_from.table(), ""]))
    freezing = Freezing(model, recipe.freeze)
    freezing.begin(0 if checkpoint is None else run.iteration_of(checkpoint))
    optimizer = build_optimizer(recipe, model, None if alignment is None else alignment.classifier)
    freezing.make_room(optimizer)
    return model, freezing, alignment, optimizer


def _class_weights(recipe: Recipe, found: Survey, log: TextIO) -> tuple[float, ...] | None:
    """What ``weight: balanced`` stands for, noted in the log."""
    weights = balanced_weights(recipe, found)
    if weights is not None:
        log.write(f"weight: balanced is {list(weights)}\n")
    return weights
