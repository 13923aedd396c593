"""Which case stands at a position of the training's endless stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.config.datasets import Sampling
from medseg_paddle.core import Case
from medseg_paddle.errors import DataError
from medseg_paddle.metrics.report import dice_by_case


class Order:
    """Position -> number of a case; a function of seed and position alone.

    A pass is as many positions as there are cases. Without weights each case stands in it once. With weights,
    whose mean is 1, a case of weight w stands in it ⌊w⌋ or ⌈w⌉ times and w times on average: systematic sampling
    (Madow 1949, Annals of Mathematical Statistics 20:333-354) from a list that is shuffled for each pass. The same
    holds for all cases of a group together, so that the share of a group is the wanted one in every pass, to within
    one image. Then the pass is shuffled.

    Parameters
    ----------
    cases : int
    seed : int
    weights : sequence of float, optional
        One for each case, their mean is 1.
    groups : sequence of int, optional
        A number for each case; the share of those with one number is kept in each pass.
    stream : int
        Tells orders of one seed apart.
    """

    def __init__(
        self,
        cases: int,
        seed: int,
        weights: Sequence[float] | None = None,
        groups: Sequence[int] = (),
        stream: int = 0,
    ) -> None:
        self._cases, self._seeds = cases, [seed, stream]
        self._weights = None if weights is None else np.array(weights, np.float64)
        numbers = np.array(groups or [0] * cases)
        self._groups = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
        self._pass: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __getitem__(self, position: int) -> int:
        number, place = divmod(position, self._cases)
        held = self._pass  # another thread, which names the images of an error, may be amid another pass
        if held[0] != number:
            held = self._pass = (number, self._drawn(np.random.default_rng([*self._seeds, number])))
        return int(held[1][place])

    def _drawn(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The cases of a pass."""
        if self._weights is None:
            return rng.permutation(self._cases)
        listed = np.concatenate([rng.permutation(group) for group in self._groups])
        ends = np.cumsum(self._weights[listed])
        points = rng.random() + np.arange(self._cases)
        # The last end may be a rounding error below the last point.
        places = np.minimum(np.searchsorted(ends, points, side="right"), self._cases - 1)
        return rng.permutation(listed[places])


def order_of(
    sampling: Sampling | None,
    cases: Sequence[Case],
    seed: int,
    holds_foreground: Callable[[], Sequence[bool]],
) -> Order:
    """The order that a recipe's `sampling` wants.

    Parameters
    ----------
    sampling : Sampling or None
    cases : sequence of Case
    seed : int
    holds_foreground : callable
        Says of each case whether it has a pixel that is neither background nor ignored; asked only if that matters.

    Raises
    ------
    DataError
        There are no scores of a case, or none leaves anything to be better at.
    """
    if sampling is None or not (sampling.foreground or sampling.hard):
        return Order(len(cases), seed)
    full = list(holds_foreground()) if sampling.foreground else [True] * len(cases)
    if not any(full):
        raise DataError(
            f"no foreground pixel in {len(cases)} training images, of which `sampling` wants a share with foreground",
            hint="check the labels' values and the list of labels",
        )
    hardness = [1.0] * len(cases)
    if sampling.scores is not None:
        hardness = _hardness(Path(sampling.scores), cases, sampling.power)
    shares = (
        (sampling.foreground, _shares([float(found) for found in full])),
        (sampling.hard, _shares(hardness)),
        (1 - sampling.foreground - sampling.hard, _shares([1.0] * len(cases))),
    )
    weights = [
        len(cases) * math.fsum(share * part[number] for share, part in shares) for number in range(len(cases))
    ]
    return Order(len(cases), seed, weights, [int(not found) for found in full])


def _shares(values: Sequence[float]) -> list[float]:
    total = math.fsum(values)
    return [value / total for value in values]


def _hardness(path: Path, cases: Sequence[Case], power: float) -> list[float]:
    """``(1 - Dice)^power`` of each case."""
    advice = "write it with `medseg evaluate RUN --split train`, of a run with the same training set"
    try:
        dice = dice_by_case(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"sampling.scores: {path} is not there", hint=advice) from None
    except (OSError, ValueError) as error:
        raise DataError(f"sampling.scores: {path} holds no scores: {error}", hint=advice) from None
    missing = [case.group for case in cases if case.group not in dice]
    if missing:
        raise DataError(
            f"sampling.scores: {path} has no score of {len(missing)} training image(s), "
            f"for example of case '{missing[0]}'",
            hint=advice,
        )
    hardness = [(1 - dice[case.group]) ** power for case in cases]
    if not any(hardness):
        raise DataError(
            f"sampling.scores: {path} has a Dice of 1 for every training case: none is hard",
            hint="remove `hard` and `scores` from `sampling`",
        )
    return hardness
