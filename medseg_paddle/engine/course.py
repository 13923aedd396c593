"""A training on its course: what happens around each iteration, and what its checkpoints hold.

`fit` puts a training together; this is where something joins it that looks at iterations (`before_iteration`),
changes how the model computes while it trains (`around`), or has a state of its own (`parts`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import paddle

from medseg_paddle.engine.alignment import DomainAlignment
from medseg_paddle.engine.checkpoints import CheckpointWriter, StatefulPart, restore
from medseg_paddle.engine.dashboard import Dashboard
from medseg_paddle.engine.divergence import DivergenceGuard
from medseg_paddle.engine.ending import Ending
from medseg_paddle.engine.event_log import Reached
from medseg_paddle.engine.freezing import Freezing
from medseg_paddle.engine.models import load_weights
from medseg_paddle.engine.paddleseg_adapter.loop import Hooks, positions_of
from medseg_paddle.engine.paddleseg_adapter.moving_average import MovingAverage
from medseg_paddle.engine.precision import LossScaler, MixedPrecision, training_in_bf16
from medseg_paddle.engine.randomness import GlobalGenerators, seed_iteration
from medseg_paddle.engine.ranks import ALONE, Ranks
from medseg_paddle.engine.running_loss import RunningLoss
from medseg_paddle.engine.streams import AnyStream
from medseg_paddle.engine.validation import Validation
from medseg_paddle.io.files import sync_file
from medseg_paddle.run import Run


class Course:
    """One training while it runs.

    Parameters
    ----------
    run : Run
    checkpoint : Path or None
        What it goes on from.
    reached : Reached
        How far that is.
    model, optimizer
    stream : TrainingStream or VolumeStream
    validation : Validation
    dashboard : Dashboard or None
        None on processes that write nothing.
    log : text stream
        The run's text log.
    ending : Ending
    freezing : Freezing
    alignment : DomainAlignment or None
    ranks : Ranks
        Of these processes only the first writes.

    Attributes
    ----------
    log_iters : int
        Iterations between lines of the log; a short training has one at its end.
    running : RunningLoss
        What the next line shows.
    """

    def __init__(
        self,
        *,
        run: Run,
        checkpoint: Path | None,
        reached: Reached,
        model: paddle.nn.Layer,
        optimizer: Any,
        mixed: MixedPrecision | None,
        stream: AnyStream,
        validation: Validation,
        dashboard: Dashboard | None,
        log: TextIO,
        ending: Ending,
        freezing: Freezing,
        alignment: DomainAlignment | None,
        ranks: Ranks = ALONE,
    ) -> None:
        recipe = run.recipe
        self._run, self._recipe = run, recipe
        self._checkpoint, self._reached = checkpoint, reached
        self._model, self._optimizer, self._validation = model, optimizer, validation
        self._dashboard, self._log, self._ending = dashboard, log, ending
        self._freezing, self._alignment, self._ranks = freezing, alignment, ranks
        self._mixed = mixed
        self._average = MovingAverage(
            None if checkpoint is None else run.average_in(checkpoint), recipe.ema_decay
        )
        self._guard = DivergenceGuard(
            model,
            optimizer,
            recipe,
            lambda iteration: stream.names(positions_of(iteration, recipe.batch_size)),
            None if alignment is None else alignment.classifier,
        )
        self.log_iters = min(recipe.log_iters, recipe.iters)
        self.running, self._scaler = RunningLoss(self.log_iters), LossScaler()
        # What a checkpoint holds besides weights, optimiser and moving average; each under a name of its own.
        self._parts: dict[str, StatefulPart] = {
            "loss": self.running,
            "scaler": self._scaler,
            "generators": GlobalGenerators(),
        }
        if alignment is not None:
            self._parts["alignment"] = alignment
        self._writer = CheckpointWriter(run, self._parts, self._settle)

    @property
    def iteration(self) -> int:
        """The last one whose step is made."""
        return self._validation.iteration

    @property
    def has_more(self) -> bool:
        """Whether there are iterations left to do."""
        return self.iteration < self._recipe.iters

    @property
    def hooks(self) -> Hooks:
        """Where the training takes part in PaddleSeg's `train()`."""
        return Hooks(
            around=lambda: training_in_bf16(self._model, self._optimizer, self._mixed),
            before_iteration=self._before_iteration,
            after_step=self._after_step,
            loss=self._note_loss,
            evaluate=self._validation,
            save=self._save,
            average=self._average,
            scaler=self._scaler.make,
        )

    def catch_up(self) -> None:
        """Take the state of the checkpoint, and do what was to be done there, had the run not been stopped.

        That is to score it and to keep it as the best. `train()` itself loads weights and optimiser.

        Raises
        ------
        Stopped
            Stopped again.
        ModelError
            The checkpoint is of another network.
        """
        checkpoint, run = self._checkpoint, self._run
        if checkpoint is None:
            return
        restore(run, checkpoint, self._model, self._parts)
        if "model" in self._reached.unscored:
            self._validation(self._model, None)
        if "ema" in self._reached.unscored:
            average = copy.deepcopy(self._model)
            load_weights(average, run.average_in(checkpoint))
            self._validation(average, None)
        if self._ranks.first:
            for kind, best in run.unkept(self._reached.iteration).items():
                run.best.keep(best, kind)

    def save(self) -> None:
        """Save the state after the last iteration, unless a checkpoint holds it already.

        Raises
        ------
        DivergenceError
            It holds what is no number.
        SetupError
            It cannot be written.
        """
        iteration = self.iteration
        if iteration == self._reached.iteration or self._run.is_sealed(self._run.checkpoint_at(iteration)):
            return
        self._guard.look_at_weights(iteration)
        if not self._ranks.first:
            return
        self._writer.write(
            iteration, self._model.state_dict(), self._optimizer.state_dict(), self._average.state_dict()
        )

    def _before_iteration(self, iteration: int) -> None:
        self._ending.before_iteration()
        seed_iteration(self._recipe.seed, iteration, self._ranks.rank)
        if self._alignment is not None:
            self._alignment.begin(iteration)
        self._guard.begin()

    def _after_step(self, iteration: int) -> None:
        self._validation.iteration = iteration
        self._freezing.follow(iteration)

    def _note_loss(self, iteration: int, loss: float, parts: Sequence[float]) -> float:
        """What `train()` adds up and divides by `log_iters`, and its next line then shows the mean of."""
        self._guard.look_at_loss(iteration, loss)
        if self._run.saves_at(iteration):
            self._guard.look_at_weights(iteration)
            self._ranks.require_equal(self._model, iteration)
        self.running.add(iteration, loss, parts)
        return self.running.sum if iteration % self.log_iters == 0 else 0.0

    def _save(self, state: Any, path: str, **options: Any) -> None:
        kind = self._run.best.kind_of(Path(path))
        if kind is None or self._validation.improved[kind]:
            self._writer.save(state, path, **options)

    def _settle(self) -> None:
        """Bring to disk what a run that goes on from the next checkpoint does not log again."""
        if self._dashboard is not None:
            self._dashboard.sync()
        self._log.flush()
        sync_file(self._run.log)
