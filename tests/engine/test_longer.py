"""Runs that are made longer: the learning rate is that of the new length from then on."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from medseg_paddle.steps.train import train

RATE, END = 0.01, 0.001


def cosine(step: int, steps: int) -> float:
    return END + (RATE - END) * (1 + math.cos(math.pi * step / steps)) / 2


def polynomial(step: int, steps: int) -> float:
    return (RATE - END) * (1 - step / steps) ** 0.9 + END


SCHEDULES = {
    "cosine": ("type: CosineAnnealingDecay, eta_min: 0.001", cosine),
    "polynomial": ("type: PolynomialDecay, end_lr: 0.001, power: 0.9", polynomial),
}


def rates(run: Path) -> dict[int, float]:
    """Learning rate that each iteration was made with."""
    from visualdl import LogReader

    found = {}
    for path in run.glob("vdlrecords*"):
        found.update(
            {
                record.id: record.value
                for record in LogReader(file_path=str(path)).get_data("scalar", "Train/lr")
            }
        )
    return found


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_run_made_longer_follows_the_schedule_of_its_new_length(
    disc_recipe_file: Path, tmp_path: Path, kind: str, warmup: int
) -> None:
    words, formula = SCHEDULES[kind]
    if warmup:
        words += f", warmup_iters: {warmup}, warmup_start_lr: 0.004"
    schedule = f"lr_scheduler={{learning_rate: {RATE}, {words}}}"

    def expected(iteration: int, iters: int) -> float:
        step = iteration - 1
        if step < warmup:
            return 0.004 + (RATE - 0.004) * step / warmup
        return formula(step - warmup, iters - warmup)

    for iters in (8, 20):
        overrides = [schedule, f"iters={iters}", "log_iters=1", "save_interval=100"]
        train(disc_recipe_file, output=tmp_path / "run", overrides=overrides, resume=iters == 20)
    found = rates(tmp_path / "run")
    assert sorted(found) == list(range(1, 21))
    for iteration, rate in found.items():
        wanted = expected(iteration, 8 if iteration <= 8 else 20)
        assert rate == pytest.approx(wanted, rel=1e-5), iteration
