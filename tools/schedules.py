"""Draw docs/images/schedules.png: the learning rate of each schedule over the iterations.

`python tools/schedules.py` draws it with the schedules of the code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from medseg_paddle.config import Recipe
from medseg_paddle.engine.schedules import RateOnPlateau, build_schedule

ROOT = Path(__file__).resolve().parents[1]
ITERS, EVERY, RATE = 1000, 50, 0.01
SCORES = (
    0.50,
    0.60,
    0.66,
    0.70,
    0.72,
    0.73,
    0.73,
    0.73,
    0.73,
    0.73,
    0.76,
    0.77,
    0.77,
    0.77,
    0.77,
    0.77,
    0.77,
    0.77,
)
WARM = {"warmup_iters": 100, "warmup_start_lr": 0.0}
DRAWN: dict[str, dict[str, Any]] = {
    "PolynomialDecay, power 0.9": {"type": "PolynomialDecay", "power": 0.9, "end_lr": 0.0},
    "PolynomialDecay, warm-up of 100": {"type": "PolynomialDecay", "power": 0.9, "end_lr": 0.0, **WARM},
    "CosineAnnealingDecay": {"type": "CosineAnnealingDecay"},
    "StepDecay, every 250, gamma 0.5": {"type": "StepDecay", "step_size": 250, "gamma": 0.5},
    "OneCycleLR": {"type": "OneCycleLR"},
    "ReduceOnPlateau, factor 0.5, patience 2": {"type": "ReduceOnPlateau", "factor": 0.5, "patience": 2},
}


def rates(schedule: dict[str, Any]) -> list[float]:
    """Learning rate that each iteration is made with; a plateau hears SCORES, one every EVERY iterations."""
    greatest = "max_learning_rate" if schedule["type"] == "OneCycleLR" else "learning_rate"
    dataset = {"type": "DRIVE", "dataset_root": "data", "transforms": [{"type": "Normalize"}]}
    recipe = Recipe.model_validate(
        {
            "batch_size": 1,
            "iters": ITERS,
            "train_dataset": {**dataset, "mode": "train"},
            "val_dataset": {**dataset, "mode": "val"},
            "optimizer": {"type": "AdamW"},
            "lr_scheduler": {greatest: RATE, **schedule},
            "loss": {"types": [{"type": "DiceLoss"}], "coef": [1]},
            "model": {"type": "SimpleUNet"},
        }
    )
    followed, found = build_schedule(recipe), []
    for iteration in range(1, ITERS + 1):
        found.append(followed())
        followed.step()
        if (
            isinstance(followed, RateOnPlateau)
            and iteration % EVERY == 0
            and iteration // EVERY <= len(SCORES)
        ):
            followed.validated(iteration, SCORES[iteration // EVERY - 1])
    return found


def main() -> None:
    """Draw them side by side."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, sharey=True)
    for axis, (name, schedule) in zip(axes.flat, DRAWN.items(), strict=True):
        axis.plot(range(1, ITERS + 1), rates(schedule), color="tab:blue")
        axis.set_title(name, fontsize=9)
        axis.grid(alpha=0.3)
    figure.supxlabel("iteration", fontsize=9)
    figure.supylabel("learning rate", fontsize=9)
    figure.savefig(ROOT / "docs" / "images" / "schedules.png", dpi=110)


if __name__ == "__main__":
    main()
