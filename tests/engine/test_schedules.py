"""Learning rates over the iterations, against their formulas, and a plateau against scores worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import paddle
import pytest

from medseg_paddle.config import Recipe, load_recipe
from medseg_paddle.config.optimisation import ReduceOnPlateau
from medseg_paddle.engine.optimizers import build_optimizer, score_followers
from medseg_paddle.engine.schedules import RateOnPlateau, build_schedule
from medseg_paddle.errors import RecipeError
from medseg_paddle.run import Run
from medseg_paddle.steps.train import train

ITERS = 20


@pytest.fixture
def recipe_with(disc_recipe_file: Path) -> Callable[[str], Recipe]:
    return lambda words: load_recipe(disc_recipe_file, [f"iters={ITERS}", f"lr_scheduler={{{words}}}"])


def found(recipe: Recipe, iters: int = ITERS) -> list[float]:
    """Learning rate that each iteration is made with."""
    schedule = build_schedule(recipe)
    rates = []
    for _ in range(iters):
        rates.append(schedule())
        schedule.step()
    return rates


def cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def one_cycle(step: int) -> float:
    """Up from 0.01 to 0.25 in the first 40 % of the iterations, down to 0.001 in the last of them."""
    top = 0.4 * ITERS - 1
    return (
        cosine(0.01, 0.25, step / top)
        if step <= top
        else cosine(0.25, 0.001, (step - top) / (ITERS - 1 - top))
    )


def three_phases(step: int) -> float:
    """By straight lines: up in 5 of 20 iterations, down in as many, and down to the end."""
    if step <= 4:
        return 0.01 + 0.24 * step / 4
    if step <= 8:
        return 0.25 - 0.24 * (step - 4) / 4
    return 0.01 - 0.009 * (step - 8) / 11


ONE_CYCLE = "type: OneCycleLR, max_learning_rate: 0.25, end_learning_rate: 0.001"
FORMULAS: dict[str, Callable[[int], float]] = {
    "type: PolynomialDecay, learning_rate: 0.1, end_lr: 0.01, power: 0.9": (
        lambda step: 0.01 + 0.09 * (1 - step / ITERS) ** 0.9
    ),
    "type: CosineAnnealingDecay, learning_rate: 0.1, eta_min: 0.01": lambda step: cosine(
        0.1, 0.01, step / ITERS
    ),
    "type: StepDecay, learning_rate: 0.1, step_size: 6, gamma: 0.5": lambda step: 0.1 * 0.5 ** (step // 6),
    "type: MultiStepDecay, learning_rate: 0.1, milestones: [5, 6, 15], gamma: 0.5": (
        lambda step: 0.1 * 0.5 ** sum(step >= milestone for milestone in (5, 6, 15))
    ),
    f"{ONE_CYCLE}, phase_pct: 0.4": one_cycle,
    f"{ONE_CYCLE}, phase_pct: 0.25, anneal_strategy: linear, three_phase: true": three_phases,
    "type: ReduceOnPlateau, learning_rate: 0.1": lambda _: 0.1,
}


@pytest.mark.parametrize("words", FORMULAS)
def test_a_schedule_follows_its_formula(words: str, recipe_with: Callable[[str], Recipe]) -> None:
    assert found(recipe_with(words)) == pytest.approx([FORMULAS[words](n) for n in range(ITERS)], rel=1e-6)


@pytest.mark.parametrize("words", [words for words in FORMULAS if "OneCycle" not in words])
def test_the_warm_up_comes_before_a_schedule(words: str, recipe_with: Callable[[str], Recipe]) -> None:
    warm = found(recipe_with(f"{words}, warmup_iters: 4, warmup_start_lr: 0.02"))
    assert warm[:4] == pytest.approx([0.02, 0.04, 0.06, 0.08])
    shorter = recipe_with(words).model_copy(update={"iters": ITERS - 4})
    assert warm[4:] == pytest.approx(found(shorter, ITERS - 4), rel=1e-6)


def test_a_cycle_that_ends_before_the_training_stays_at_its_end(recipe_with: Callable[[str], Recipe]) -> None:
    rates = found(recipe_with(f"{ONE_CYCLE}, total_steps: 10"), 25)
    assert rates[9:] == pytest.approx([0.001] * 16)
    assert rates[8] > 0.001


SPEC = {"type": "ReduceOnPlateau", "learning_rate": 0.1, "factor": 0.5, "patience": 1}


def after(scores: list[float], **changes: object) -> list[float]:
    """The rate after each score, one every ten iterations."""
    schedule = RateOnPlateau(ReduceOnPlateau.model_validate({**SPEC, **changes}))
    rates = []
    for n, score in enumerate(scores, start=1):
        for _ in range(10):
            schedule.step()
        schedule.validated(10 * n, score)
        rates.append(schedule())
    return rates


@pytest.mark.parametrize(
    ("scores", "changes", "expected"),
    [
        ([0.5, 0.6, 0.6, 0.6, 0.6, 0.6], {}, [0.1, 0.1, 0.1, 0.05, 0.05, 0.025]),
        ([0.5, 0.4, 0.6, 0.5, 0.5], {}, [0.1, 0.1, 0.1, 0.1, 0.05]),
        ([0.5, 0.5, 0.5], {"patience": 0}, [0.1, 0.05, 0.025]),
        ([0.5, 0.52, 0.54], {"patience": 0, "threshold": 0.05}, [0.1, 0.05, 0.05]),  # 0.54 > 0.525
        ([0.5, 0.52, 0.54], {"patience": 0, "threshold": 0.05, "threshold_mode": "abs"}, [0.1, 0.05, 0.025]),
        ([0.5] * 5, {"patience": 0, "cooldown": 1}, [0.1, 0.05, 0.05, 0.025, 0.025]),
        ([0.5] * 5, {"patience": 0, "min_lr": 0.03}, [0.1, 0.05, 0.03, 0.03, 0.03]),
        ([-9.0, -8.0, -8.0, -8.0], {}, [0.1, 0.1, 0.1, 0.05]),  # scores below zero: -8 is no better than -8
        ([math.nan, math.nan, 0.1, math.nan, math.nan], {}, [0.1, 0.1, 0.1, 0.1, 0.05]),
    ],
)
def test_a_plateau_lowers_the_rate(
    scores: list[float], changes: dict[str, object], expected: list[float]
) -> None:
    assert after(scores, **changes) == pytest.approx(expected)


def test_a_plateau_knows_which_way_a_score_gets_better(disc_recipe_file: Path) -> None:
    schedule = "lr_scheduler={type: ReduceOnPlateau, learning_rate: 0.1, patience: 0, factor: 0.5}"
    recipe = load_recipe(disc_recipe_file, [schedule, "selection.metric=volume_error"])
    optimizer = build_optimizer(recipe, paddle.nn.Linear(1, 1))
    (follow,) = score_followers(optimizer, [], 0, recipe.selection.gain)
    rates = []
    for iteration, error in enumerate([0.5, 0.4, 0.4, 0.6, 0.1], start=1):
        optimizer._learning_rate.step()
        follow(iteration, error)
        rates.append(optimizer.get_lr())
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.025, 0.025])


def test_scores_of_the_warm_up_do_not_count() -> None:
    found = after([0.5] * 5, patience=0, warmup_iters=25, warmup_start_lr=0.05)
    assert found == pytest.approx([0.07, 0.09, 0.1, 0.05, 0.025])


def test_a_resumed_plateau_goes_on_as_if_it_had_never_stopped(disc_recipe_file: Path, tmp_path: Path) -> None:
    plateau = (
        "lr_scheduler={type: ReduceOnPlateau, learning_rate: 0.02, factor: 0.5, patience: 0, threshold: 10}"
    )
    common = [plateau, "save_interval=2", "log_iters=1", "iters=7"]
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=common)
    train(disc_recipe_file, output=tmp_path / "parts", overrides=[*common, "iters=4"])
    parts = train(disc_recipe_file, output=tmp_path / "parts", overrides=common, resume=True)
    assert rates_of(whole) == pytest.approx([0.02] * 4 + [0.01] * 2 + [0.005], rel=1e-5)
    assert rates_of(parts) == rates_of(whole)
    assert [entry["score"] for entry in parts.history()] == [entry["score"] for entry in whole.history()]
    same_weights(whole, parts)


def rates_of(run: Run) -> list[float]:
    """The rate that each iteration was made with, as the dashboard shows it."""
    from visualdl import LogReader

    (event_file,) = run.path.glob("vdlrecords*")
    return [record.value for record in LogReader(file_path=str(event_file)).get_data("scalar", "Train/lr")]


def same_weights(first: Run, second: Run) -> None:
    import numpy as np
    import paddle

    states = [
        paddle.load(str(run.last_checkpoint / "model.pdparams"), return_numpy=True) for run in (first, second)
    ]
    for name, value in states[0].items():
        if name != "StructuredToParameterName@@":
            np.testing.assert_array_equal(value, states[1][name], err_msg=name)


def test_a_plateau_counts_validations_so_their_interval_stays(disc_recipe_file: Path, tmp_path: Path) -> None:
    plateau = "lr_scheduler={type: ReduceOnPlateau, learning_rate: 0.02}"
    train(disc_recipe_file, output=tmp_path / "run", overrides=[plateau, "iters=2", "save_interval=2"])
    with pytest.raises(RecipeError, match="save_interval"):
        train(
            disc_recipe_file,
            output=tmp_path / "run",
            overrides=[plateau, "iters=4", "save_interval=1"],
            resume=True,
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("type: OneCycleLR, max_learning_rate: 0.1, phase_pct: 0.04", "goes up in 0.04 of 20 iterations"),
        (
            "type: OneCycleLR, max_learning_rate: 0.1, three_phase: true, phase_pct: 0.5",
            "leaves nothing for the third",
        ),
        (
            "type: OneCycleLR, max_learning_rate: 0.1, warmup_iters: 5",
            "unknown key 'lr_scheduler.warmup_iters'",
        ),
        ("type: StepDecay, learning_rate: 0.1, step_size: 5, gamma: 1.0", "less than 1"),
        ("type: MultiStepDecay, learning_rate: 0.1, milestones: [6, 5]", "do not rise"),
        ("type: StepDecay, learning_rate: 0.1, step_size: 5, warmup_start_lr: 0.01", "without a warm-up"),
        (
            "type: StepDecay, learning_rate: 0.1, step_size: 5, warmup_iters: 2, warmup_start_lr: 0.1",
            "the warm-up starts at 0.1",
        ),
        ("type: ReduceOnPlateau, learning_rate: 0.1, mode: min", "unknown key 'lr_scheduler.mode'"),
        (  # Paddle's default is 0.0001, above the rate it is to end
            "type: PolynomialDecay, learning_rate: 5e-5",
            "`end_lr` is 0.0001 where absent: the rate would not fall",
        ),
        ("type: PolynomialDecay, learning_rate: 1e-4", "the rate would not fall"),
        ("type: CosineAnnealingDecay, learning_rate: 1e-4, eta_min: 0.001", "`eta_min` is 0.001: the rate"),
        ("type: OneCycleLR, max_learning_rate: 5e-5", "`end_learning_rate` is 0.0001 where absent"),
        ("type: ReduceOnPlateau, learning_rate: 1e-4, min_lr: 0.01", "`min_lr` is 0.01: the rate"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(
    words: str, message: str, recipe_with: Callable[[str], Recipe]
) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_with(words)


def test_a_rate_that_is_written_to_stay_stays(recipe_with: Callable[[str], Recipe]) -> None:
    recipe = recipe_with("type: PolynomialDecay, learning_rate: 1e-4, end_lr: 1e-4")
    assert found(recipe) == pytest.approx([1e-4] * ITERS)


@pytest.mark.parametrize("warm", ["", ", warmup_iters: 4, warmup_start_lr: 0.02"], ids=["", "warm-up"])
@pytest.mark.parametrize("words", FORMULAS)
def test_a_resumed_schedule_has_the_rates_of_one_in_a_piece(
    words: str, warm: str, recipe_with: Callable[[str], Recipe]
) -> None:
    recipe = recipe_with(words + (warm if "OneCycle" not in words else ""))
    whole = found(recipe)
    for stop in (1, 3, 4, 5, 11, ITERS - 1):
        before, after = build_schedule(recipe), build_schedule(recipe)
        for _ in range(stop):
            before.step()
        after.set_state_dict(before.state_dict())
        rates = []
        for _ in range(ITERS - stop):
            rates.append(after())
            after.step()
        assert rates == whole[stop:]


def test_a_plateau_needs_validations(disc_recipe_file: Path) -> None:
    with pytest.raises(RecipeError, match="follows the validation score"):
        load_recipe(
            disc_recipe_file,
            ["lr_scheduler={type: ReduceOnPlateau, learning_rate: 0.1}", "val_dataset=null"],
        )
