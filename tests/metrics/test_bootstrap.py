from __future__ import annotations

import itertools
import math
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from medseg_paddle.metrics.bootstrap import confidence_interval

SCORES = np.random.default_rng(3).beta(8, 2, 30)


def each(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


@pytest.mark.parametrize("count", [5, 30])
def test_one_case_a_patient_is_the_percentile_bootstrap_of_scipy_at_a_wider_level(count):
    """So much wider as Student's interval is than a normal one with the deviation of n, not n - 1."""
    scores = SCORES[:count]
    found = confidence_interval(scores[None], each(count))
    wider = stats.t.ppf(0.975, count - 1) * (count / (count - 1)) ** 0.5
    level = 2 * stats.norm.cdf(wider) - 1
    theirs = stats.bootstrap(
        (scores,), np.mean, method="percentile", n_resamples=20_000, confidence_level=level
    ).confidence_interval
    assert found.low == pytest.approx(theirs.low, abs=5e-3)
    assert found.high == pytest.approx(theirs.high, abs=5e-3)


def test_few_patients_are_covered_nearly_as_often_as_said():
    """Of five patients with scores of a known mean. Plain percentiles cover it in 82 of 100 samples."""
    rng = np.random.default_rng(0)
    found = [confidence_interval(rng.beta(8, 2, (1, 5)), each(5)) for _ in range(200)]
    assert sum(one.low <= 0.8 <= one.high for one in found) > 0.86 * 200


def test_a_patient_s_cases_count_as_one_draw():
    """Every case three times adds no patient, and so no certainty; as patients of their own they would."""
    alone = confidence_interval(SCORES[None], each(30))
    thrice = np.tile(SCORES, 3)[None]
    together = confidence_interval(thrice, each(30) * 3)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))
    apart = confidence_interval(thrice, each(90))
    assert apart.high - apart.low < 0.7 * (alone.high - alone.low)


def test_patients_count_by_their_cases():
    """All 256 draws of four patients, with 9, 1, 1 and 1 cases, one by one."""
    values = [[0.5] * 9, [1.0], [0.9], [0.2]]
    means = [fmean(itertools.chain(*drawn)) for drawn in itertools.product(values, repeat=4)]
    level = stats.norm.cdf(stats.t.ppf(0.2, 3) * (4 / 3) ** 0.5)
    found = confidence_interval(
        np.array([[*itertools.chain(*values)]]), ["a"] * 9 + ["b", "c", "d"], confidence=0.6
    )
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [level, 1 - level]), abs=5e-3)


def test_absent_classes_are_left_out_as_in_a_report():
    values = np.array([[0.8, 0.8, 0.8, 0.8], [math.nan, 0.4, math.nan, math.nan]])
    found = confidence_interval(values, each(4))
    assert found.low == pytest.approx(0.6)  # the second class is drawn: the mean of 0.8 and 0.4
    assert found.high == pytest.approx(0.8)  # it is not


@pytest.mark.parametrize("values", [[[0.5]], [[0.5, 0.6, 0.7, math.nan]], [[math.nan, math.nan]]])
def test_fewer_than_four_patients_with_a_score_say_nothing(values):
    found = confidence_interval(np.array(values), each(len(values[0])))
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=8))
def test_the_interval_lies_among_the_values(values):
    found = confidence_interval(np.array([values]), each(len(values)))
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
