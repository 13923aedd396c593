"""How sure a mean is: confidence intervals by resampling patients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

_RESAMPLES = 10_000
_SEED = 0
_FEWEST = (
    4  # the range of all values, the widest there is, of n of them covers the middle in 1 - 2 / 2^n of cases
)
_NUMBERS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Interval:
    """A confidence interval; both ends are NaN where there are fewer than four units to draw."""

    low: float
    high: float


def confidence_interval(
    values: NDArray[np.float64], units: Sequence[str], *, confidence: float = 0.95
) -> Interval:
    """Expanded percentile bootstrap of a mean that draws whole units.

    Cases of one patient are alike, so patients are drawn with replacement, each with all its cases: the cluster
    bootstrap (Davison and Hinkley 1997, section 3.8). Plain percentiles (Efron and Tibshirani 1993, chapter 13) are
    too narrow for few units: of five they cover the mean in 82 of 100 cases, not in 95. They are widened as a normal
    interval is to Student's (Hesterberg 2015, doi:10.1080/00031305.2015.1089789): 90 of 100, and 85 of four; of
    fewer there is none. The draws are the same for the same number of units.

    Parameters
    ----------
    values : ndarray, shape (classes, cases)
        Scores; NaN is left out. The mean is that over the classes of each class's mean over the cases.
    units : sequence of str
        What each case belongs to, in the order of the columns: its patient.
    confidence : float
        Share of the distribution inside the interval.

    Returns
    -------
    Interval
    """
    names, place = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    given = ~np.isnan(values)
    scored = np.zeros(len(names), bool)
    np.logical_or.at(scored, place, given.any(axis=0))
    sums, counts = (np.zeros((len(values), len(names))) for _ in range(2))
    for index, row in enumerate(values):
        np.add.at(sums[index], place, np.where(given[index], row, 0))
        np.add.at(counts[index], place, given[index])
    sums, counts = sums[:, scored], counts[:, scored]
    number = sums.shape[1]
    if number < _FEWEST:
        return Interval(math.nan, math.nan)
    rng = np.random.default_rng(_SEED)
    means = []
    step = max(1, _NUMBERS_AT_ONCE // number)
    for start in range(0, _RESAMPLES, step):
        drawn = rng.integers(0, number, (min(step, _RESAMPLES - start), number))
        means.append(_mean_of_means(sums[:, drawn].sum(axis=2), counts[:, drawn].sum(axis=2)))
    tail = float(ndtr(math.sqrt(number / (number - 1)) * stdtrit(number - 1, (1 - confidence) / 2)))
    low, high = np.nanquantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(float(low), float(high))


def _mean_of_means(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of ``[class, resample]``: a class that no drawn case has is left out, as in a report."""
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    return np.asarray(means.sum(axis=0) / (counts > 0).sum(axis=0))
