"""The learning-rate range test: what it measures, and what it makes of it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_paddle.cli import main
from medseg_paddle.config import load_recipe
from medseg_paddle.errors import RecipeError
from medseg_paddle.steps.lr_find import diverged, judge, lr_find
from medseg_paddle.steps.train import train

RATES = [float(rate) for rate in np.geomspace(1e-6, 1, 121)]  # 20 to a decade


def valley(lowest_at: float, noise: float = 0.0) -> list[float]:
    """Losses that fall from 1 to 0.5, least at a known rate, and rise again."""
    distance = np.log10(RATES) - np.log10(lowest_at)
    random = np.random.default_rng(0).normal(0, noise, len(RATES))
    return [float(loss) for loss in 1 - 0.5 * np.exp(-(distance**2) / 2) + random]


@pytest.mark.parametrize("lowest_at", [1e-4, 1e-3, 1e-2])
def test_of_a_known_valley_it_finds_bottom_and_slope(lowest_at: float) -> None:
    found = judge(RATES, valley(lowest_at))
    assert found.remark == ""
    assert found.least_at == pytest.approx(lowest_at, rel=0.01)
    # The steepest fall of a bell with a deviation of one decade is a decade before its middle.
    assert found.steepest_at == pytest.approx(lowest_at / 10, rel=0.3)
    assert found.suggestion == pytest.approx(lowest_at / 10, rel=0.05)


def test_a_loss_that_falls_again_at_rates_far_too_high_does_not_deceive_it() -> None:
    falls_again = [loss - max(0.0, 0.01 * (n - 90)) for n, loss in enumerate(valley(1e-3))]
    assert falls_again[-1] > 0.6
    lower = [loss - max(0.0, 0.03 * (n - 90)) for n, loss in enumerate(valley(1e-3))]
    assert lower[-1] < 0.2
    for losses in (falls_again, lower):
        assert judge(RATES, losses).least_at == pytest.approx(1e-3, rel=0.01)


def test_noise_moves_it_little() -> None:
    found = judge(RATES, valley(1e-3, noise=0.05))
    assert found.least_at is not None
    assert 0.3e-3 < found.least_at < 3e-3


def test_losses_that_never_fall_give_no_suggestion() -> None:
    noise = [float(x) for x in 0.7 + np.random.default_rng(1).normal(0, 0.05, len(RATES))]
    for losses in (noise, [0.7 + 0.001 * n for n in range(len(RATES))]):
        found = judge(RATES, losses)
        assert found.suggestion is None
        assert found.least_at is None
        assert "did not fall" in found.remark


def test_a_loss_that_still_falls_at_the_end_is_told() -> None:
    found = judge(RATES, [1 - n / 200 for n in range(len(RATES))])
    assert found.least_at == RATES[-1]
    assert "higher --to" in found.remark


def test_what_follows_the_divergence_does_not_reach_into_the_valley() -> None:
    calm = judge(RATES, valley(1e-3))
    for end in (float("nan"), float("inf"), 1e30):
        found = judge(RATES, [*valley(1e-3)[:100], end])
        assert found.least_at == calm.least_at
        assert found.suggestion == calm.suggestion


def test_a_loss_that_is_no_number_at_once_gives_no_suggestion() -> None:
    found = judge(RATES, [0.7, 0.7, float("nan")])
    assert found.suggestion is None
    assert "lower rate" in found.remark


def test_it_ends_when_the_loss_is_much_higher_than_it_was() -> None:
    fell = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert not diverged([*fell, 2.4])  # one batch decides nothing
    assert not diverged([*fell, 2.4, 0.5])
    assert not diverged([*fell, 1.9, 1.9, 1.9])
    assert diverged([*fell, 2.1, 2.1, 2.1])  # 0.5 + 3 x 0.5
    assert diverged([0.7, float("nan")])
    negative = [1 - loss for loss in (2.0, *fell)]  # -1.0, 0.0 .. 0.5
    assert not diverged([*negative, -1.0, -1.0])


def column(path: Path, name: str) -> list[float]:
    with path.open(newline="") as stream:
        return [float(row[name]) for row in csv.DictReader(stream)]


def test_its_losses_are_those_of_a_training_with_these_rates(disc_recipe_file: Path, tmp_path: Path) -> None:
    from visualdl import LogReader

    rate = 0.01
    constant = [f"lr_scheduler={{type: StepDecay, learning_rate: {rate}, step_size: 100}}"]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[*constant, "iters=10", "log_iters=1"])
    (event_file,) = run.path.glob("vdlrecords*")
    logged = [
        record.value for record in LogReader(file_path=str(event_file)).get_data("scalar", "Train/loss")
    ]
    found = lr_find(
        disc_recipe_file,
        output=tmp_path / "lr.png",
        iterations=10,
        lowest=rate,
        highest=rate * (1 + 1e-9),
    )
    assert found.losses == pytest.approx(logged, rel=1e-5)
    assert len(set(logged)) == 10


def test_it_leaves_a_plot_and_a_table_and_nothing_else(
    disc_recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = set(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    options = ["--iterations", "40", "--from", "1e-5", "--to", "10", "--set", "batch_size=4"]
    with pytest.raises(SystemExit) as left:
        main(["lr-find", "--config", str(disc_recipe_file), "--output", "out/lr.png", *options])
    assert left.value.code == 0
    made = set(tmp_path.rglob("*")) - before
    assert {path.relative_to(tmp_path).as_posix() for path in made} == {"out", "out/lr.png", "out/lr.csv"}
    with Image.open("out/lr.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 400
    said = capsys.readouterr().out
    rates = column(Path("out/lr.csv"), "learning_rate")
    assert rates[0] == pytest.approx(1e-5)
    assert np.diff(np.log10(rates)) == pytest.approx(6 / 39, rel=1e-4)
    assert "suggestion: lr_scheduler.learning_rate: 0." in said
    first = column(Path("out/lr.csv"), "loss")

    again = lr_find(
        disc_recipe_file,
        output=tmp_path / "again.png",
        overrides=["batch_size=4"],
        iterations=40,
        lowest=1e-5,
        highest=10,
    )
    assert again.losses == pytest.approx(first, rel=1e-5)
    assert again.suggestion is not None
    assert f"learning_rate: {again.suggestion:g} " in said


def test_it_names_the_key_of_the_schedule(
    disc_recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--iterations", "30", "--from", "1e-5", "--to", "10", "--set", "batch_size=4", "--set"]
    cycle = "lr_scheduler={type: OneCycleLR, max_learning_rate: 0.01}"
    with pytest.raises(SystemExit):
        main(
            [
                "lr-find",
                "--config",
                str(disc_recipe_file),
                "--output",
                str(tmp_path / "a.png"),
                *options,
                cycle,
            ]
        )
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("suggestion: ")]
    key, rate = line.split()[1:3]
    with_suggestion = load_recipe(disc_recipe_file, [cycle, f"{key.removesuffix(':')}={rate}"])
    assert with_suggestion.lr_scheduler.learning_rate == float(rate)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lowest": 1.0, "highest": 0.1}, "are no range"),
        ({"lowest": 0.0}, "are no range"),
        ({"highest": float("nan")}, "are no range"),
        ({"iterations": 3}, "say nothing"),
        ({"output": "lr.jpg"}, "is no PNG"),
    ],
)
def test_what_cannot_be_is_refused(disc_recipe_file: Path, options: dict[str, float], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        lr_find(disc_recipe_file, **options)
