"""One training: the recipe's parts put together around `paddleseg.core.train()`."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import paddle

from medseg_paddle.config import Recipe
from medseg_paddle.config.recipe import CpuKernels
from medseg_paddle.core import Case, LabelSet
from medseg_paddle.engine import model_graph
from medseg_paddle.engine.checkpoints import latest_whole, save_checkpoint
from medseg_paddle.engine.cpu_kernels import use_cpu_kernels
from medseg_paddle.engine.dashboard import Dashboard
from medseg_paddle.engine.data import (
    Survey,
    TrainingStream,
    batch_bytes,
    require_stackable,
    survey,
)
from medseg_paddle.engine.interruption import Stopped, StopSignals
from medseg_paddle.engine.models import ForwardFunction, build_model, count_parameters, load_weights
from medseg_paddle.engine.optimizers import build_optimizer
from medseg_paddle.engine.paddleseg_adapter.loop import LoadingFailed, run_train
from medseg_paddle.engine.paddleseg_adapter.losses import build_losses, part_names
from medseg_paddle.engine.scoring import Scored, score_cases
from medseg_paddle.engine.shared_memory import require_shared_memory
from medseg_paddle.errors import DataError, SetupError
from medseg_paddle.io.decoded import DecodedImages
from medseg_paddle.io.overlay import draw_comparison
from medseg_paddle.metrics.overlap import CaseCounts
from medseg_paddle.metrics.report import Report
from medseg_paddle.run import Run

_NAMED = 3  # labels in a message


class Listener(Protocol):
    """Who wants to know how the training goes."""

    def surveyed(self, done: int, total: int, what: str) -> None:
        """A label was looked at before the start."""

    def doubted(self, what: str) -> None:
        """Something found before the start may be wrong, and may be meant."""

    def started(self, folder: Path, facts: dict[str, Any], first_iter: int, iters: int) -> None:
        """The loop begins."""

    def iterated(
        self, step: int, loss: float, learning_rate: float, images_per_second: float, waiting: float
    ) -> None:
        """A few iterations are done; `waiting` is the share of their time spent waiting for images."""

    def validated(self, step: int, report: Report, *, best: bool) -> None:
        """The validation cases were scored."""

    def stopped(self, step: int, iters: int, *, resumable: bool) -> None:
        """A signal, or images that cannot be loaded any more, ended the training; its state after `step` is saved."""


class Validation:
    """What `train()` calls in place of PaddleSeg's evaluation: whole cases, foreground Dice.

    Keeps the run's history, draws on the dashboard, and returns the score that picks the best
    checkpoint. A resumed run knows the best score from before.

    Attributes
    ----------
    iteration : int
        The one that the weights are of.
    """

    def __init__(
        self,
        run: Run,
        cases: Sequence[Case],
        labels: LabelSet,
        dashboard: Dashboard | None,
        listener: Listener,
        first_iter: int,
        trained: paddle.nn.Layer,
        stop: StopSignals,
    ) -> None:
        self._run, self._cases, self._labels = run, cases, labels
        self._dashboard, self._listener = dashboard, listener
        self.iteration, self._trained, self._stop = first_iter, trained, stop
        history = [entry for entry in run.history() if entry["iter"] <= first_iter]
        if dashboard is not None:
            run.set_history(history)
        self._best = {
            kind: max((e["score"] for e in history if e["weights"] == kind), default=-1.0)
            for kind in ("model", "ema")
        }

    def __call__(
        self, model: paddle.nn.Layer, _dataset: Any, **_options: Any
    ) -> tuple[float, float, None, None, None]:
        """Score, note, draw. The first value picks the best checkpoint (greatest wins)."""
        recipe, kind = self._run.recipe, "model" if model is self._trained else "ema"
        if self._dashboard is None:  # not rank 0, which alone saves checkpoints
            return -1.0, 0.0, None, None, None
        counts: dict[str, CaseCounts] = {}
        shown: dict[str, Scored] = {}
        forward = ForwardFunction(model, recipe.amp_level if recipe.precision == "fp16" else None)
        for scored in score_cases(
            forward, self._cases, recipe, counts, probabilities=recipe.test_config.auc_roc
        ):
            if self._stop.wanted:  # scored anew when the run is resumed
                raise Stopped
            group = scored.case.group
            if group in shown or len(shown) < recipe.overlays:
                former = shown.get(group)
                if former is None or _foreground(scored) > _foreground(former):
                    shown[group] = scored
        report = Report.from_counts(counts, self._labels)
        # Without any foreground inside the regions of interest there is no score, and nothing is better than that.
        score = -1.0 if math.isnan(report.mean_foreground_dice) else report.mean_foreground_dice
        best = score > self._best[kind]
        before, self._best[kind] = self._best[kind], max(score, self._best[kind])
        self._note(report, kind, score)
        self._draw(self._dashboard, report, list(shown.values()), "" if kind == "model" else "EMA ")
        self._listener.validated(self.iteration, report, best=best)
        # train() starts its own memory of the best score at -1 whenever it is called.
        return (score if best else min(before, score) - 2.0), 0.0, None, None, None

    def _note(self, report: Report, kind: str, score: float) -> None:
        dice = {label.name: report.summary[label.name]["dice"].mean for label in self._labels.foreground}
        entry = {"iter": self.iteration, "weights": kind, "score": score, "dice": dice}
        self._run.set_history([*self._run.history(), entry])

    def _draw(self, dashboard: Dashboard, report: Report, shown: list[Scored], prefix: str) -> None:
        dashboard.scalar(
            f"Validation/{prefix}mean foreground Dice", report.mean_foreground_dice, self.iteration
        )
        for label in self._labels.foreground:
            summary = report.summary[label.name]
            dashboard.scalar(f"Validation/{prefix}Dice {label.name}", summary["dice"].mean, self.iteration)
            dashboard.scalar(f"Validation/{prefix}IoU {label.name}", summary["iou"].mean, self.iteration)
            if self._run.recipe.test_config.auc_roc:
                dashboard.scalar(f"Validation/{prefix}AUC {label.name}", summary["auc"].mean, self.iteration)
        if not prefix:
            for scored in shown:
                picture = draw_comparison(
                    scored.image.astype(np.uint8), scored.truth, scored.prediction, self._labels
                )
                dashboard.image(f"Validation/{scored.case.group}", picture, self.iteration)


class _LoopWriter:
    """The writer that `train()` fills: passes points on to the dashboard and the listener."""

    def __init__(
        self,
        dashboard: Dashboard,
        listener: Listener,
        images_per_iteration: int,
        first_iter: int,
        log_iters: int,
    ) -> None:
        self._dashboard, self._listener, self._images = dashboard, listener, images_per_iteration
        self._first_iter, self._log_iters = first_iter, log_iters
        self._latest: dict[str, float] = {}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        number = float(np.asarray(value).ravel()[0])
        if tag.startswith("Train/loss"):
            # train() divides by log_iters also where it summed up fewer losses, after a resumption between two lines.
            number *= self._log_iters / min(self._log_iters, step - self._first_iter)
        self._dashboard.add_scalar(tag, number, step)
        self._latest[tag] = number
        if (
            tag == "Train/reader_cost"
        ):  # the last one of a line: seconds of an iteration until it had its images
            iteration = max(self._latest["Train/batch_cost"], 1e-9)
            self._listener.iterated(
                step,
                self._latest["Train/loss"],
                self._latest["Train/lr"],
                self._images / iteration,
                min(number / iteration, 1.0),
            )

    def close(self) -> None:
        self._dashboard.close()


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
        From :func:`inspect`.
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
            _introduce(dashboard, recipe, facts, labels if val_cases else None)
        writer: Any = (
            _LoopWriter(dashboard, listener, images_per_iteration, first_iter, log_iters)
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
                        TrainingStream(train_cases, recipe, decoded),
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


def inspect(
    recipe: Recipe, train: Sequence[Case], val: Sequence[Case], listener: Listener, decoded: DecodedImages
) -> Survey:
    """Look at everything that a training needs, before its folder is made.

    Parameters
    ----------
    recipe : Recipe
    train, val : sequence of Case
    listener : Listener
    decoded : DecodedImages
        Gets the training's images and labels.

    Returns
    -------
    Survey
        Of the training's images.

    Raises
    ------
    DataError
        An image or a label is unreadable or does not fit, or there is no foreground to learn or score.
    RecipeError
        The images cannot be stacked to a batch.
    ModelError
        The pretrained weights are missing or do not fit.
    SetupError
        Several processes were started, or memory is too small for the processes that load images.
    """
    if paddle.distributed.ParallelEnv().nranks > 1:
        raise SetupError(
            "training on several devices at once is not supported yet",
            hint="start one process; compare recipes by starting several runs on one device each",
        )
    found = survey(train, recipe, listener.surveyed, decoded)
    require_stackable(recipe, found)
    require_shared_memory(batch_bytes(recipe, found), recipe.num_workers)
    _require_foreground(found, f"the training set ({len(train)} images)")
    _doubt(found, "training", recipe, listener)
    if val:
        scored = survey(val, recipe, listener.surveyed)
        _require_foreground(scored, f"the validation set ({len(val)} images)")
        _doubt(scored, "validation", recipe, listener)
    with paddle.utils.unique_name.guard():
        build_model(recipe)
    return found


def _require_foreground(found: Survey, where: str) -> None:
    if not sum(found.pixels[1:]):
        raise DataError(
            f"no foreground pixel in {where}: every label is background",
            hint="check the labels' values (0 and 255 need `label_map: {255: 1}` in prepare) and the list of labels",
        )


def _doubt(found: Survey, which: str, recipe: Recipe, listener: Listener) -> None:
    """Tell of labels that may have been exported with the ignored value for an object: nobody else would."""
    labels = found.only_ignored
    if labels:
        named = ", ".join(str(path) for path in labels[:_NAMED])
        more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
        listener.doubted(
            f"{len(labels)} of the {which} labels hold the ignored value {recipe.ignore_index} and no class: "
            f"{named}{more}. If it is an object there, it is neither learned nor scored: write "
            f"`label_map: {{{recipe.ignore_index}: 1}}` in prepare, and prepare again"
        )


def _introduce(dashboard: Dashboard, recipe: Recipe, facts: dict[str, Any], labels: LabelSet | None) -> None:
    settings = {
        "recipe": recipe.name,
        "model": facts["model"],
        "parameters": facts["parameters"],
        "device": facts["device"],
        "cpu_kernels": facts["cpu_kernels"] or "none",
        "batch_size": recipe.batch_size,
        "iters": recipe.iters,
        "optimizer": recipe.optimizer.type,
        "learning_rate": recipe.lr_scheduler.learning_rate,
        "lr_scheduler": recipe.lr_scheduler.type,
        "loss": "+".join(loss.type for loss in recipe.loss.types),
        "precision": recipe.precision,
        "seed": recipe.seed,
    }
    curves = ["Train/loss"]
    if labels is not None:
        curves += [f"Validation/Dice {label.name}" for label in labels.foreground]
    dashboard.hyper_parameters(settings, curves)


def _foreground(scored: Scored) -> int:
    return int(np.count_nonzero((scored.truth != 0) & (scored.truth != 255)))


def _seed(seed: int) -> None:
    paddle.seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (PaddleSeg's and Paddle's code draw from it)
