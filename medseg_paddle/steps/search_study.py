"""A search's database: the study in it, what its sampler draws, and which process has which trial."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from medseg_paddle.config import Recipe
from medseg_paddle.config.search import SearchSpec
from medseg_paddle.errors import ModelError, RecipeError
from medseg_paddle.io.files import locked
from medseg_paddle.run import Run
from medseg_paddle.steps.search_storage import open_storage

_LOCKS = ".locks"
_RECIPE = "recipe"  # attribute of a study: what is searched
_BEGUN_AT = "begun_at"  # attribute of a trial: the iteration of each start that no end was noted of
_MOST_KILLS = 3  # a trial that was killed so often without coming further is given up
# What may differ between the calls, and the machines, that work on one search.
_MAY_DIFFER = {
    "description", "prepare", "export", "test_dataset", "log_iters", "keep_checkpoint_max", "model_graph",
    "num_workers", "overlays", "device", "cpu_kernels",
}  # fmt: skip
_SPEC_MAY_DIFFER = ("trials", "time_budget")


@dataclass(frozen=True)
class SharedStudy:
    """A study that several processes may work on.

    Attributes
    ----------
    study : optuna.Study
    folder : Path
        Of the trials that run on this machine.
    elsewhere : bool
        Whether trials may also run on machines that do not see the folder.
    """

    study: optuna.Study
    folder: Path
    elsewhere: bool

    def run_folder(self, number: int) -> Path:
        """Folder of a trial's run."""
        return self.folder / f"trial_{number:04}"

    @contextlib.contextmanager
    def claimed(self, trials: int) -> Iterator[Trial | None]:
        """A trial that no other process has, a killed one before a new one; held until the block ends.

        A trial is held by a lock that the system takes off a process that ends, however it ends.

        Parameters
        ----------
        trials : int
            Trials in all.

        Yields
        ------
        Trial or None
            None where all have been begun.
        """
        with contextlib.ExitStack() as held:
            with locked(self._lock("claim")):
                trial = self._next(trials, held)
            yield trial

    def _next(self, trials: int, held: contextlib.ExitStack) -> Trial | None:
        known = self.study.get_trials(deepcopy=False)
        for one in known:
            lock = self._lock(f"{one.number:04}")
            # Of a shared database, trials without a lock here are on another machine.
            if one.state == TrialState.RUNNING and (lock.exists() or not self.elsewhere):
                trying = contextlib.ExitStack()
                if trying.enter_context(locked(lock, wait=False)):
                    held.push(trying)
                    return Trial(self.study, one._trial_id)  # noqa: SLF001  (no other way leads back to a trial)
                trying.close()
        if len(known) >= trials:
            return None
        trial = self.study.ask()
        held.enter_context(locked(self._lock(f"{trial.number:04}")))
        return trial

    @contextlib.contextmanager
    def start_noted(self, trial: Trial) -> Iterator[None]:
        """Note that a trial is begun, until the block ends in whatever way: what stays noted is a kill.

        Raises
        ------
        ModelError
            It was killed here too often, say because its values need more memory than there is.
        """
        folder = self.run_folder(trial.number)
        last = Run.open(folder).last_checkpoint if Run.begun(folder) else None
        here = 0 if last is None else Run.iteration_of(last)
        killed = [iteration for iteration in trial.user_attrs.get(_BEGUN_AT, ()) if iteration == here]
        if len(killed) >= _MOST_KILLS:
            raise ModelError(
                f"its process was killed {len(killed)} times after iteration {here}",
                hint="look into the system's log; memory may be short for these values",
            )
        trial.set_user_attr(_BEGUN_AT, [*killed, here])
        try:
            yield
        finally:
            trial.set_user_attr(_BEGUN_AT, killed)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Let no other process on this machine read trials and write results meanwhile."""
        with locked(self._lock("results")):
            yield

    def _lock(self, name: str) -> Path:
        return self.folder / _LOCKS / name


def open_study(folder: Path, storage: str | None, base: Recipe, spec: SearchSpec) -> SharedStudy:
    """Open the study that is called as `folder`, or begin it.

    Parameters
    ----------
    folder : Path
    storage : str or None
        See :func:`medseg_paddle.steps.search_storage.open_storage`.
    base : Recipe
        What the trials change.
    spec : SearchSpec
        Its `search`.

    Raises
    ------
    RecipeError
        It was begun with another recipe.
    SetupError
        The storage cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruners = {
        "none": optuna.pruners.NopPruner(),
        "median": optuna.pruners.MedianPruner(n_startup_trials=spec.startup_trials),
        "hyperband": optuna.pruners.HyperbandPruner(
            min(base.save_interval, base.iters), base.iters, reduction_factor=3
        ),
    }
    # Two processes that make the tables of one database at once are in each other's way.
    with locked(folder / _LOCKS / "open"):
        kept = open_storage(storage, folder)
        study = optuna.create_study(
            storage=kept,
            study_name=folder.resolve().name,
            sampler=_SeededByTrial(spec),
            pruner=pruners[spec.pruner],
            direction="minimize" if base.selection.smaller_is_better else "maximize",
            load_if_exists=True,
        )
        _require_same_search(study, base, folder)
    return SharedStudy(study, folder, elsewhere=storage is not None)


def _require_same_search(study: optuna.Study, base: Recipe, folder: Path) -> None:
    """See that what is searched is what the study was begun with."""
    content = base.model_dump(mode="json", exclude=_MAY_DIFFER)
    content["search"] = {
        key: value for key, value in content["search"].items() if key not in _SPEC_MAY_DIFFER
    }
    known = study.user_attrs.get(_RECIPE)
    if known is None:
        study.set_user_attr(_RECIPE, content)
    elif changed := [key for key in {**known, **content} if known.get(key) != content.get(key)]:
        raise RecipeError(
            f"{folder} was begun with another {', '.join(changed)}",
            hint="go on with the recipe that it was begun with (search.trials and search.time_budget may differ), "
            "or name another --output",
        )


class _SeededByTrial(optuna.samplers.BaseSampler):
    """Optuna's TPE sampler, whose random numbers follow from the trial and the parameter alone.

    Optuna's own begins its random numbers anew whenever a search goes on, and draws the first trials again.
    """

    def __init__(self, spec: SearchSpec) -> None:
        self._spec = spec

    def _sampler(self, number: int, name: str = "") -> optuna.samplers.TPESampler:
        mixed = np.random.SeedSequence([self._spec.seed, number, zlib.crc32(name.encode())])
        return optuna.samplers.TPESampler(
            seed=int(mixed.generate_state(1)[0]),
            n_startup_trials=self._spec.startup_trials,
            multivariate=True,
            constant_liar=True,
        )

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._sampler(trial.number).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler(trial.number).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        sampler = self._sampler(trial.number, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)
