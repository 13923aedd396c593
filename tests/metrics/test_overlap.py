from __future__ import annotations

import math
import time
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg_paddle.errors import DataError
from medseg_paddle.metrics import METRICS, SURFACE_METRICS, CaseCounts, ClassScores

quick = settings(max_examples=60, deadline=None)


def scored(truth, prediction, num_classes=2, **more) -> tuple[ClassScores, ...]:
    counts = CaseCounts(num_classes)
    counts.add(np.atleast_2d(truth), np.atleast_2d(prediction), **more)
    return counts.scores()


def random_case(seed: int, num_classes: int, shape=(40, 50)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, prediction and probabilities of a fairly good model."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(num_classes, shape, p=np.arange(num_classes, 0, -1) / sum(range(num_classes + 1)))
    logits = rng.normal(0, 1.5, (num_classes, *shape)) + 2 * (np.arange(num_classes)[:, None, None] == truth)
    probabilities = np.exp(logits) / np.exp(logits).sum(0)
    return truth.astype(np.uint8), probabilities.argmax(0), probabilities.astype(np.float32)


def test_scores_by_hand():
    # TP 2, FN 1, FP 3, TN 4
    score = scored([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], [1, 1, 0, 1, 1, 1, 0, 0, 0, 0])[0]
    assert score.label == 1
    assert score.dice == pytest.approx(4 / 8)
    assert score.iou == pytest.approx(2 / 6)
    assert score.accuracy == pytest.approx(6 / 10)
    assert score.precision == pytest.approx(2 / 5)
    assert score.recall == pytest.approx(2 / 3)
    assert score.specificity == pytest.approx(4 / 7)
    assert (score.truth_pixels, score.predicted_pixels) == (3, 5)
    assert math.isnan(score.auc)


def test_auc_by_hand():
    # Pairs (positive, negative): .9>.1 .9>.4 .4>.1 are won, .4=.4 is a tie: 3.5 of 4.
    probability = np.array([[0.9, 0.4, 0.1, 0.4]])
    score = scored([1, 1, 0, 0], [1, 0, 0, 0], probabilities=np.stack([1 - probability, probability]))[0]
    assert score.auc == pytest.approx(3.5 / 4)


def test_classes_are_scored_one_against_the_rest_without_the_background():
    one, two = scored([0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 2, 2], num_classes=3)
    assert (one.label, two.label) == (1, 2)
    assert one.dice == pytest.approx(2 / 4)
    assert one.specificity == pytest.approx(3 / 4)
    assert two.dice == pytest.approx(4 / 5)
    assert two.accuracy == pytest.approx(5 / 6)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_scores_are_those_of_scikit_learn(num_classes):
    metrics = pytest.importorskip("sklearn.metrics")
    truth, prediction, probabilities = random_case(num_classes, num_classes)
    for score in scored(truth, prediction, num_classes, probabilities=probabilities):
        t, p = truth.ravel() == score.label, prediction.ravel() == score.label
        assert score.accuracy == pytest.approx(metrics.accuracy_score(t, p))
        assert score.precision == pytest.approx(metrics.precision_score(t, p))
        assert score.recall == pytest.approx(metrics.recall_score(t, p))
        assert score.specificity == pytest.approx(metrics.recall_score(~t, ~p))
        assert score.dice == pytest.approx(metrics.f1_score(t, p))
        assert score.iou == pytest.approx(metrics.jaccard_score(t, p))
        assert score.auc == pytest.approx(
            metrics.roc_auc_score(t, probabilities[score.label].ravel()), abs=1e-4
        )


@pytest.mark.parametrize("spread", [0.1, 1, 10])
@pytest.mark.parametrize("offset", [-12, -2, 0, 6])
@pytest.mark.parametrize("quality", [0.0, 0.3, 2.0])
def test_auc_is_within_1e4_of_the_exact_one(spread, offset, quality):
    """From timid to very sure models, with rare and with common foreground."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(7)
    truth = (rng.random((150, 150)) < 0.1).astype(np.uint8)
    logits = offset + spread * (rng.normal(0, 1, truth.shape) + quality * truth)
    probability = (1 / (1 + np.exp(-logits))).astype(np.float32)
    score = scored(truth, truth, probabilities=np.stack([1 - probability, probability]))[0]
    assert abs(score.auc - metrics.roc_auc_score(truth.ravel(), probability.ravel())) < 1e-4


def test_auc_of_probabilities_that_are_exactly_zero_and_one():
    probability = np.array([[1.0, 0.0, 0.0, 1.0]], np.float32)
    score = scored([1, 1, 0, 0], [1, 0, 0, 1], probabilities=np.stack([1 - probability, probability]))[0]
    assert score.auc == pytest.approx(0.5)


def test_pixels_outside_the_region_and_ignored_pixels_do_not_count():
    truth = np.array([[1, 0, 255, 1, 0, 1]])
    prediction = np.array([[1, 0, 1, 0, 1, 1]])
    roi = np.array([[1, 1, 1, 0, 0, 1]], bool)
    probability = np.array([[0.9, 0.2, 0.99, 0.1, 0.8, 0.7]])
    score = scored(truth, prediction, probabilities=np.stack([1 - probability, probability]), roi=roi)[0]
    assert score == ClassScores(1, 1, 1, 1, 1, 1, 1, 0, 1, truth_pixels=2, predicted_pixels=2)


def test_another_ignore_index_and_none():
    assert scored([1, 7, 0], [1, 1, 0], ignore_index=7)[0].dice == 1
    with pytest.raises(DataError, match="255"):
        scored([1, 255, 0], [1, 1, 0], ignore_index=None)


def test_slices_added_one_by_one_give_the_scores_of_the_whole():
    parts = [random_case(seed, 4, (20, 30)) for seed in range(5)]
    rois = [np.random.default_rng(seed).random((20, 30)) < 0.7 for seed in range(5)]
    streamed, at_once = CaseCounts(4), CaseCounts(4)
    for (truth, prediction, probabilities), roi in zip(parts, rois, strict=True):
        streamed.add(truth, prediction, probabilities, roi)
    at_once.add(
        np.concatenate([truth for truth, _, _ in parts]),
        np.concatenate([prediction for _, prediction, _ in parts]),
        np.concatenate([probabilities for _, _, probabilities in parts], axis=1),
        np.concatenate(rois),
    )
    assert streamed.scores() == at_once.scores()


OVERLAP = set(METRICS) - set(SURFACE_METRICS)


def is_nan(score: ClassScores) -> set[str]:
    return {metric for metric in OVERLAP if math.isnan(getattr(score, metric))}


NOT_A_NUMBER = [
    ([0, 0, 0], [0, 0, 0], {"dice", "iou", "precision", "recall", "volume_error", "auc"}),
    ([0, 0, 0], [0, 1, 0], {"recall", "volume_error", "auc"}),
    ([0, 1, 0], [0, 0, 0], {"precision"}),
    ([1, 1, 1], [1, 1, 0], {"specificity", "auc"}),
    ([1, 1, 1], [0, 0, 0], {"specificity", "auc", "precision"}),
    ([255, 255, 255], [0, 1, 0], OVERLAP),
]


@pytest.mark.parametrize(("truth", "prediction", "expected"), NOT_A_NUMBER)
def test_a_score_without_meaning_is_nan(truth, prediction, expected):
    probabilities = np.full((2, 1, 3), 0.5)
    assert is_nan(scored(truth, prediction, probabilities=probabilities)[0]) == expected


def test_a_class_that_was_missed_or_invented_scores_zero():
    assert scored([0, 1, 0], [0, 0, 0])[0].dice == 0
    invented = scored([0, 0, 0], [0, 1, 0])[0]
    assert (invented.dice, invented.iou, invented.precision) == (0, 0, 0)


def test_the_volume_error_is_the_difference_in_size_wherever_the_pixels_are():
    assert scored([1, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1])[0].volume_error == 1 / 4
    assert scored([1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1])[0].volume_error == 2
    assert scored([1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0])[0].volume_error == 1


def test_without_probabilities_of_every_slice_there_is_no_auc():
    counts = CaseCounts(2)
    truth, probabilities = np.array([[0, 1]]), np.array([[[0.9, 0.2]], [[0.1, 0.8]]])
    counts.add(truth, truth, probabilities)
    assert counts.scores()[0].auc == 1
    counts.add(truth, truth)
    assert math.isnan(counts.scores()[0].auc)


def test_nothing_added_is_all_nan():
    assert is_nan(CaseCounts(3).scores()[1]) == OVERLAP


def test_every_score_is_listed_in_metrics():
    assert set(METRICS) == {f.name for f in fields(ClassScores)} - {
        "label",
        "truth_pixels",
        "predicted_pixels",
        "truth_ml",
        "predicted_ml",
    }


masks = arrays(np.uint8, (6, 7), elements=st.integers(0, 2))


@quick
@given(masks, masks)
def test_dice_and_iou_are_symmetric_bounded_and_tied_to_each_other(first, second):
    for forth, back in zip(scored(first, second, 3), scored(second, first, 3), strict=True):
        if math.isnan(forth.dice):
            assert not (first == forth.label).any()
            assert not (second == forth.label).any()
            continue
        assert forth.dice == back.dice
        assert forth.iou == back.iou
        assert 0 <= forth.iou <= forth.dice <= 1
        assert forth.dice == pytest.approx(2 * forth.iou / (1 + forth.iou))
        # precision and recall change places, as NaN too
        assert forth.precision == pytest.approx(back.recall, nan_ok=True)


@quick
@given(masks)
def test_a_perfect_prediction_scores_one(truth):
    for score in scored(truth, truth, 3):
        assert score.volume_error == 0 or math.isnan(score.volume_error)
        scores = set(METRICS) - {"volume_error"}
        assert all(getattr(score, m) == 1 or math.isnan(getattr(score, m)) for m in scores)


@quick
@given(masks, masks, st.randoms())
def test_scores_do_not_depend_on_where_the_pixels_are(truth, prediction, random):
    order = list(range(truth.size))
    random.shuffle(order)
    shuffled = scored(truth.ravel()[order], prediction.ravel()[order], 3)
    for one, other in zip(scored(truth, prediction, 3), shuffled, strict=True):
        assert str(one) == str(other)  # NaN included


@quick
@given(
    arrays(np.float64, (1, 30), elements=st.floats(0.001, 0.999)),
    arrays(np.uint8, (1, 30), elements=st.integers(0, 1)),
)
def test_auc_is_bounded_and_mirrors_when_the_score_is_turned_round(probability, truth):
    up = scored(truth, truth, probabilities=np.stack([1 - probability, probability]))[0].auc
    if math.isnan(up):
        assert len(np.unique(truth)) == 1
        return
    assert 0 <= up <= 1
    assert up == pytest.approx(
        1 - scored(truth ^ 1, truth, probabilities=np.stack([1 - probability, probability]))[0].auc
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prediction": np.zeros((4, 6), int)}, "prediction"),
        ({"probabilities": np.zeros((3, 4, 5))}, "probabilities"),
        ({"probabilities": np.full((2, 4, 5), np.nan)}, "between 0 and 1"),
        ({"probabilities": np.full((2, 4, 5), 1.5)}, "between 0 and 1"),
        ({"roi": np.ones((5, 4), bool)}, "region of interest"),
        ({"truth": np.full((4, 5), 2)}, "truth holds label 2; the classes are 0 to 1"),
        ({"truth": np.full((4, 5), -1)}, "truth holds label -1"),
        ({"prediction": np.full((4, 5), 255)}, "prediction holds label 255"),
    ],
)
def test_what_does_not_fit_is_a_data_error_and_counts_nothing(change, words):
    counts = CaseCounts(2)
    zeros = np.zeros((4, 5), int)
    with pytest.raises(DataError, match=words):
        counts.add(**{"truth": zeros, "prediction": zeros, **change})
    assert counts.scores()[0].predicted_pixels == 0
    assert math.isnan(counts.scores()[0].accuracy)


def test_a_fundus_picture_is_counted_in_a_moment():
    truth, prediction, probabilities = random_case(0, 2, (584, 565))
    counts = CaseCounts(2)
    start = time.perf_counter()
    counts.add(truth, prediction, probabilities)
    assert time.perf_counter() - start < 0.5
