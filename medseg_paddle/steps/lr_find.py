"""Which learning rate a recipe learns with: a range test (Smith 2015, https://arxiv.org/abs/1506.01186)."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medseg_paddle.config import Recipe, as_recipe
from medseg_paddle.engine.startup import start_paddle
from medseg_paddle.errors import RecipeError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.decoded import DecodedImages
from medseg_paddle.io.files import require_writable, whole_file, write_text
from medseg_paddle.steps.progress import ProgressBar
from medseg_paddle.steps.volumes import ready_volumes

_FEWEST = 10  # iterations that say anything
_SMOOTHING = 0.03  # of the iterations, standard deviation
_MUCH_HIGHER = 3
_CLEARLY = 0.1  # of what the loss has fallen; noise is halved or better by the smoothing


@dataclass(frozen=True)
class RangeTest:
    """What a range test of the learning rate found.

    Attributes
    ----------
    rates, losses : tuple of float
        Learning rate of each iteration, and the loss of its batch before its step.
    smoothed : tuple of float
        The losses, smoothed over neighbouring iterations to both sides, so that nothing is shifted.
    least_at : float or None
        The rate where the smoothed loss is least before it first rises clearly; None where it did not fall.
    steepest_at : float or None
        The rate before it where the smoothed loss falls most for a given factor of the rate.
    suggestion : float or None
        A tenth of `least_at`, to two digits.
    remark : str
        What keeps the suggestion from being sure; empty where nothing does.
    plot : Path or None
        The picture, once it is drawn; the table lies beside it.
    key : str
        The recipe's key that the suggestion is for.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    least_at: float | None
    steepest_at: float | None
    suggestion: float | None
    remark: str = ""
    plot: Path | None = None
    key: str = "lr_scheduler.learning_rate"


def lr_find(
    recipe: Path | str | Recipe,
    *,
    output: Path | str | None = None,
    overrides: Sequence[str] = (),
    iterations: int = 100,
    lowest: float = 1e-7,
    highest: float = 1.0,
    device: str | None = None,
) -> RangeTest:
    """Train once from fresh weights while the learning rate grows from iteration to iteration.

    It is the recipe's own training: its seed, images, augmentation, losses and optimiser. It ends before
    `iterations` when the loss is much higher than it was. No run is made or touched.

    Parameters
    ----------
    recipe : Path, str or Recipe
    output : Path or str, optional
        The plot, a PNG; ``outputs/<name>-lr.png`` where absent. A table (CSV) is written beside it.
    overrides : sequence of str
        ``key=value`` changes of a recipe file.
    iterations : int
        At least 10.
    lowest, highest : float
        Learning rate of the first and the last iteration; each is a fixed factor above the one before.
    device : str, optional
        In place of the recipe's.

    Raises
    ------
    RecipeError, DataError, SetupError
    """
    if not 0 < lowest < highest < math.inf:
        raise RecipeError(
            f"learning rates from {lowest:g} to {highest:g} are no range",
            hint="give --from a smaller rate than --to, both above 0",
        )
    if iterations < _FEWEST:
        raise RecipeError(f"{iterations} iterations say nothing", hint=f"make at least {_FEWEST}, better 100")
    recipe = as_recipe(recipe, overrides)
    plot = Path("outputs") / f"{recipe.name}-lr.png" if output is None else Path(output)
    if plot.suffix.lower() != ".png":
        raise RecipeError(f"--output {plot} is no PNG", hint="name a file that ends in .png")
    cases = load_cases(recipe.train_dataset, recipe.dimensions, recipe.neighbours)
    require_writable(plot.parent)
    ready_volumes(recipe, cases)

    start_paddle()
    from medseg_paddle.engine.data import balanced_weights, targets_of
    from medseg_paddle.engine.device import set_training_device
    from medseg_paddle.engine.finders import try_out
    from medseg_paddle.engine.streams import require_stackable, survey

    chosen = set_training_device(recipe, device)
    rates = [float(rate) for rate in np.geomspace(lowest, highest, iterations)]
    losses: list[float] = []
    with DecodedImages(recipe.train_dataset.cache_mb << 20) as decoded:
        targets = targets_of(recipe)
        with ProgressBar("checking", len(cases) + len(targets)) as bar:
            found = survey(cases, recipe, bar.advance, decoded, targets)
        require_stackable(recipe, found)
        with ProgressBar("learning rates", iterations) as bar:

            def hear(step: int, loss: float) -> bool:
                losses.append(loss)
                bar.update(step, f"lr {rates[step - 1]:.2g}  loss {loss:.4f}")
                return not diverged(losses)

            try_out(
                recipe.model_copy(update={"use_ema": False}),  # it takes no part in what is learned
                cases,
                found=found,
                decoded=decoded,
                device=chosen,
                iters=iterations,
                told=hear,
                class_weights=balanced_weights(recipe, found),
                rates=rates,
            )
    result = judge(rates, losses)
    with whole_file(plot) as temporary:
        _draw(result, temporary, recipe.name)
    write_text(plot.with_suffix(".csv"), _table(result))
    return replace(result, plot=plot, key=recipe.learning_rate_key)


def diverged(losses: Sequence[float]) -> bool:
    """Whether the latest losses are so much higher than the least, or no numbers, that going on says nothing."""
    if not math.isfinite(losses[-1]):
        return True
    return len(losses) >= _FEWEST and statistics.median(losses[-3:]) > _bound(losses)


def _bound(losses: Sequence[float]) -> float:
    """Above it a loss is much too high: three times what it had fallen, or three times the least, above the least.

    Taken of medians of three, so that single batches decide nothing. A loss may be negative.
    """
    medians = [statistics.median(losses[first : first + 3]) for first in range(len(losses) - 2)]
    first, least = medians[0], min(medians)
    return least + _MUCH_HIGHER * max(first - least, abs(least))


def judge(rates: Sequence[float], losses: Sequence[float]) -> RangeTest:
    """Say which learning rate the losses speak for.

    The suggestion is a tenth of the rate at the least loss, as of that rate the loss has just begun to grow
    again: a common rule (that of fastai's ``lr_find``), no proof. Where the loss did not fall by more than it
    differs between neighbouring batches, there is none. What it does after it has once clearly risen is not looked at.

    Parameters
    ----------
    rates, losses : sequence of float
        As in :class:`RangeTest`; there may be fewer losses, and the last may be no number.
    """
    from scipy.ndimage import gaussian_filter1d

    made = len(losses) - (not math.isfinite(losses[-1]))
    if made < _FEWEST:
        shown = tuple(losses)
        remark = f"the loss was no number after {made} iterations; begin with a lower rate"
        return RangeTest(tuple(rates[: len(shown)]), shown, shown, None, None, None, remark)
    # Beyond the bound a loss says no more than "too high", and would reach far into its neighbours.
    known = np.minimum(losses[:made], _bound(losses[:made]))
    smoothed = gaussian_filter1d(known, max(1.0, _SMOOTHING * len(rates)), mode="nearest")
    used, noise = tuple(rates[:made]), float(np.std(known - smoothed))
    least = _first_valley(smoothed, noise)
    found = (used, tuple(losses[:made]), tuple(float(value) for value in smoothed))
    if least == 0 or smoothed[0] - smoothed[least] <= noise:
        remark = "the loss did not fall at any rate; more iterations or a larger batch make it less noisy"
        return RangeTest(*found, None, None, None, remark)
    slope = np.gradient(smoothed[: least + 1], np.log10(used[: least + 1]))
    at_least, steepest = used[least], used[int(slope.argmin())]
    remark = ""
    if least == len(rates) - 1:
        remark = "the loss was still falling at the highest rate; look further with a higher --to"
    return RangeTest(*found, at_least, steepest, float(f"{at_least / 10:.1e}"), remark)


def _first_valley(smoothed: Sequence[float], noise: float) -> int:
    """Where the loss is least before it clearly rises for the first time.

    An optimiser that sets its own step length and a loss with a bound (Adam and Dice) come through rates that are
    far too high: the loss rises, and falls again later. `noise` is that of single batches.
    """
    least = 0
    for place, loss in enumerate(smoothed):
        fell, rose = smoothed[0] - smoothed[least], loss - smoothed[least]
        if rose < 0:
            least = place
        elif fell > noise and rose > max(_CLEARLY * fell, noise / 2):
            break
    return least


def _table(result: RangeTest) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("learning_rate", "loss", "smoothed_loss"))
    for row in zip(result.rates, result.losses, result.smoothed, strict=True):
        writer.writerow([f"{value:.6g}" for value in row])
    return stream.getvalue()


def _draw(result: RangeTest, path: Path, name: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(result.rates, result.losses, ".", color="0.6", label="loss of a batch")
    axes.semilogx(result.rates, result.smoothed, color="#0072B2", linewidth=2, label="smoothed")
    for rate, color, words in (
        (result.steepest_at, "#009E73", "steepest fall"),
        (result.least_at, "#D55E00", "least before it rises"),
        (result.suggestion, "black", "suggestion: a tenth of that"),
    ):
        if rate is not None:
            style = "-" if color == "black" else "--"
            axes.axvline(rate, color=color, linestyle=style, label=f"{words}, {rate:.2g}")
    # Losses of a diverged training would press the rest of the curve flat.
    low, high = min(result.smoothed), max(result.smoothed)
    if high > low:
        axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.set_title(f"Learning-rate range test of {name}")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, format="png", dpi=120)
