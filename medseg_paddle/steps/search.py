"""Look for the values of a recipe that score best: Optuna says what to try, each trial is an ordinary run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from medseg_paddle.config import Draft, Recipe, draft_recipe
from medseg_paddle.config.search import Range, SearchSpec
from medseg_paddle.config.selection import Selection
from medseg_paddle.errors import MemoryShortError, ModelError, RecipeError
from medseg_paddle.io.files import require_writable
from medseg_paddle.io.memory import memory_ran_out
from medseg_paddle.run import Run
from medseg_paddle.steps.progress import say
from medseg_paddle.steps.search_results import SearchResult, State, TrialResult, best_recipe, write_results
from medseg_paddle.steps.search_storage import storage_errors
from medseg_paddle.steps.search_study import SharedStudy, open_study
from medseg_paddle.steps.train import train

_NOTE = "note"  # attribute of a trial: why it failed, or what it repeats
_ENOUGH_TRIALS = 10  # for importances to mean something
_WORST = 1e9  # in place of no score: what a study can hold, and loses to every score
_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class _Pruned(Exception):  # noqa: N818  (no error: it ends a training on the way)
    """The trial is worse than others were at this iteration."""


class _TimeIsUp(Exception):  # noqa: N818  (likewise)
    """The time budget is spent; the trial goes on with the next call."""


def search(
    recipe: Path | str,
    *,
    output: Path | str | None = None,
    storage: str | None = None,
    overrides: Sequence[str] = (),
    device: str | None = None,
) -> SearchResult:
    """Train a recipe with the values that its `search` section names, and find the best.

    A trial is an ordinary run in ``trial_<number>``. Its score is its best validation score. A trial that was
    killed goes on with the next call, in its folder. Several calls, at once or one after the other, share the
    work. Results are ``trials.csv``, ``search.json`` and ``best.yml``, written after each trial.

    Values are drawn by a tree-structured Parzen estimator (Bergstra et al. 2011, as Optuna implements it) whose
    random numbers follow from ``search.seed`` and the trial's number; so one process alone finds the same trials
    each time, however often it is stopped. Importances are by PED-ANOVA (Watanabe et al. 2023).

    Parameters
    ----------
    recipe : Path or str
        A YAML file with a `search` section.
    output : Path or str, optional
        ``outputs/<name>_search`` where absent. Its name is the study's name in the database.
    storage : str, optional
        ``journal:///path``, ``redis://host``, or the URL of a database as SQLAlchemy takes it; ``search.db`` in
        `output` where absent.
    overrides : sequence of str
        ``key=value`` changes of the recipe.
    device : str, optional
        In place of the recipe's.

    Returns
    -------
    SearchResult

    Raises
    ------
    RecipeError
        No `search` section, a value that the recipe does not take, or another search in the folder.
    DataError, SetupError
        What would end every trial: the data, the disk, the device, the database.
    """
    draft = draft_recipe(recipe, overrides)
    base = draft.recipe()
    spec = base.search
    if spec is None:
        raise RecipeError(
            f"{recipe} does not say what to search for",
            hint=f"add `search: {{parameters: {{{base.learning_rate_key}: {{low: 0.0001, high: 0.1, log: true}}}}}}`",
        )
    _require_values_that_fit(draft, spec)
    folder = Path("outputs") / f"{base.name}_search" if output is None else Path(output)
    require_writable(folder)
    with storage_errors(storage):
        shared = open_study(folder, storage, base, spec)
        end = time.monotonic() + spec.seconds
        going_on = True
        while going_on and time.monotonic() < end:
            with shared.claimed(spec.trials) as trial:
                going_on = trial is not None and _run(shared, trial, draft, spec, end, device)
            _write(shared, draft, spec)
        return _write(shared, draft, spec)


def _require_values_that_fit(draft: Draft, spec: SearchSpec) -> None:
    """See that the recipe takes each value by itself: the ends of a range, every choice of a list."""
    for key, candidates in spec.parameters.items():
        ends = (candidates.low, candidates.high) if isinstance(candidates, Range) else candidates
        for value in ends:
            draft.recipe({key: value})


def _run(
    shared: SharedStudy, trial: Trial, draft: Draft, spec: SearchSpec, end: float, device: str | None
) -> bool:
    """Train a trial and tell its end; False where the time is up before it."""
    folder = shared.run_folder(trial.number)
    values = {key: _drawn(trial, key, candidates) for key, candidates in spec.parameters.items()}
    listed = ", ".join(f"{key}={value}" for key, value in values.items())
    say(f"trial {trial.number} ({trial.number + 1} of {spec.trials}): {listed}")
    state, score = TrialState.COMPLETE, None
    try:
        twin = _twin(shared.study, trial)
        if twin is not None:
            trial.set_user_attr(_NOTE, f"the same values as trial {twin.number}, whose score it has")
            score = twin.value
        else:
            with shared.start_noted(trial):
                score = _trained(draft.recipe(values), trial, folder, end, device)
    except _TimeIsUp:
        return False
    except _Pruned:
        state = TrialState.PRUNED
    except Exception as error:
        # Of these values: what they say together, what they need, or what a network does that learns with them.
        if not (isinstance(error, RecipeError | ModelError | MemoryShortError) or memory_ran_out(error)):
            raise
        state = TrialState.FAIL
        trial.set_user_attr(_NOTE, getattr(error, "message", None) or f"{type(error).__name__}: {error}")
    if Run.begun(folder):
        facts = {"study": shared.study.study_name, "trial": trial.number, "state": _STATES[state]}
        Run.open(folder).note("search", {**facts, "values": values})
    shared.study.tell(trial, score, state=state)
    shown = _shown_score(score)
    name = draft.recipe().selection.name
    say(f"trial {trial.number} {_STATES[state]}" + ("" if shown is None else f": {name} {shown:.4f}"))
    return True


def _trained(recipe: Recipe, trial: Trial, folder: Path, end: float, device: str | None) -> float:
    """Train, or go on with the training; the best validation score."""
    known = trial.study.get_trials(deepcopy=False)[trial.number]
    reported = set(known.intermediate_values)

    def report(iteration: int, gain: float) -> None:
        # With use_ema there are two scores; the model's own comes first, and trials are compared by it.
        if iteration not in reported:
            reported.add(iteration)
            trial.report(_kept_score(recipe.selection, gain), iteration)

    def watch(iteration: int, gain: float) -> None:
        report(iteration, gain)
        if iteration < recipe.iters and trial.should_prune():
            raise _Pruned
        if iteration < recipe.iters and time.monotonic() >= end:
            raise _TimeIsUp

    if Run.begun(folder):
        for entry in Run.open(folder).history():
            report(entry["iter"], recipe.selection.gain(entry["score"]))
        if reported and max(reported) < recipe.iters and trial.should_prune():
            raise _Pruned
    run = train(recipe, output=folder, resume=True, device=device, watch=watch)
    gains = (recipe.selection.gain(entry["score"]) for entry in run.history())
    return _kept_score(recipe.selection, max(gains, default=-math.inf))


def _kept_score(selection: Selection, gain: float) -> float:
    """A score as the study keeps it: as it is shown, the worst of all where there is none."""
    kept = max(gain, -_WORST)
    return -kept if selection.smaller_is_better else kept


def _shown_score(kept: float | None) -> float | None:
    return None if kept is None or abs(kept) >= _WORST else kept


def _drawn(trial: Trial, key: str, candidates: Range | tuple[Any, ...]) -> Any:
    """The trial's value of a parameter."""
    if not isinstance(candidates, Range):
        kept = trial.suggest_categorical(key, list(dict.fromkeys(map(_kept, candidates))))
        return _written(kept, candidates)
    if candidates.whole:
        step = int(candidates.step or 1)
        return trial.suggest_int(
            key, int(candidates.low), int(candidates.high), step=step, log=candidates.log
        )
    return trial.suggest_float(key, candidates.low, candidates.high, step=candidates.step, log=candidates.log)


def _kept(value: Any) -> str | int | float:
    """A value as Optuna keeps it: of lists and mappings their text."""
    return value if isinstance(value, (str, int, float)) else json.dumps(value)


def _written(kept: Any, candidates: Range | tuple[Any, ...]) -> Any:
    """A value as the recipe has it, of one as Optuna keeps it."""
    if isinstance(candidates, Range):
        return kept
    return next(one for one in candidates if _kept(one) == kept)


def _twin(study: optuna.Study, trial: Trial) -> FrozenTrial | None:
    """A complete trial with the same values: a training with one seed would only repeat it."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return next((one for one in complete if one.params == trial.params), None)


def _write(shared: SharedStudy, draft: Draft, spec: SearchSpec) -> SearchResult:
    """Write what the trials have found so far, those of other processes included."""
    with shared.writing():
        return _written_results(shared, draft, spec)


def _written_results(shared: SharedStudy, draft: Draft, spec: SearchSpec) -> SearchResult:
    trials = shared.study.get_trials(deepcopy=False)
    selection = draft.recipe().selection
    result = SearchResult(
        shared.folder,
        shared.study.study_name,
        selection,
        tuple(spec.parameters),
        tuple(_result(one, spec, selection) for one in trials),
        _importances(shared.study, trials),
    )
    best = None
    if result.best is not None:
        best = best_recipe(draft.recipe(result.best.values), result)
    write_results(result, best)
    return result


def _result(trial: FrozenTrial, spec: SearchSpec, selection: Selection) -> TrialResult:
    params = spec.parameters
    best = max(trial.intermediate_values.values(), key=selection.gain, default=None)
    return TrialResult(
        number=trial.number,
        state=_STATES.get(trial.state, "unfinished"),
        score=_shown_score(trial.value if trial.state == TrialState.COMPLETE else best),
        values={key: _written(trial.params[key], params[key]) for key in params if key in trial.params},
        iteration=trial.last_step,
        seconds=None if trial.duration is None else trial.duration.total_seconds(),
        note=str(trial.user_attrs.get(_NOTE, "")),
    )


def _importances(study: optuna.Study, trials: Sequence[FrozenTrial]) -> dict[str, float]:
    complete = [one for one in trials if one.state == TrialState.COMPLETE]
    if len(complete) < _ENOUGH_TRIALS or len({one.value for one in complete}) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}
