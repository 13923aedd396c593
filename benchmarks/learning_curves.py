"""Learning curves of runs, from their event logs: a row for each recipe, all its seeds in one picture.

python benchmarks/learning_curves.py docs/images/learning-curves.png outputs/drive_42 outputs/drive_43 ...
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure

from medseg_paddle.engine.dashboard import curve
from medseg_paddle.engine.startup import start_paddle
from medseg_paddle.run import Run

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
AVERAGED = 10  # points of the loss, each the mean of `log_iters` iterations


def smoothed(values: list[float]) -> np.ndarray:
    """Mean over AVERAGED points, of fewer at the ends."""
    weights = np.ones(min(AVERAGED, len(values)))
    return np.convolve(values, weights, "same") / np.convolve(np.ones(len(values)), weights, "same")


def main() -> None:
    """Draw the losses on the left, the validation scores on the right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    start_paddle()
    recipes = defaultdict(list)
    for folder in options.runs:
        run = Run.open(folder)
        recipes[run.recipe.name].append(run)
    figure = Figure(figsize=(9, 2.6 * len(recipes)), layout="constrained")
    rows = figure.subplots(len(recipes), 2, squeeze=False)
    for (name, runs), (losses, scores) in zip(recipes.items(), rows, strict=True):
        for run, color in zip(runs, COLORS, strict=False):
            points = curve(run.path, "Train/loss")
            label = f"seed {run.recipe.seed}"
            losses.semilogy(
                list(points), smoothed(list(points.values())), color=color, linewidth=1, label=label
            )
            for kind in sorted({entry["weights"] for entry in run.history()}):
                entries = [entry for entry in run.history() if entry["weights"] == kind]
                scores.plot(
                    [entry["iter"] for entry in entries],
                    [entry["score"] for entry in entries],
                    color=color,
                    marker=".",
                    # Where an average is kept, the weights themselves are the pale line.
                    alpha=0.35 if run.recipe.use_ema and kind == "model" else 1,
                )
        losses.set(title=name, ylabel="loss", xlabel="iteration")
        scores.set(title=f"{name}, validation", ylabel=runs[0].recipe.selection.name, xlabel="iteration")
        losses.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        losses.yaxis.set_major_formatter("{x:g}")
        losses.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        losses.legend(fontsize="small")
        for axes in (losses, scores):
            axes.grid(visible=True, alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.picture, dpi=110)


if __name__ == "__main__":
    main()
