"""Surfaces of whole cases: when slices are stacked, in which unit, and what is left out."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medseg_paddle.core import Case, LabelSet, Slicing, Within
from medseg_paddle.errors import DataError
from medseg_paddle.metrics import CaseCounts, Distances, Report, Surfaces
from medseg_paddle.metrics.surface import surface_scores

LABELS = LabelSet.from_names(["background", "liver", "tumour"])
SPACING = (4.0, 0.5, 0.8)
RNG = np.random.default_rng(5)
TRUTH, PREDICTION = RNG.integers(0, 3, (2, 5, 9, 8), dtype=np.uint8)


def volume(name: str, slices: int = 5, across: float = SPACING[0]) -> list[Case]:
    """Slices of a volume, the last one first."""
    slicing = Slicing("axial", SPACING[1:], "HU")
    return [
        Case(
            f"{name}_{place}",
            Path(f"{name}_{place}.png"),
            volume=name,
            slicing=replace(slicing, within=Within(place, slices, across)),
        )
        for place in reversed(range(slices))
    ]


def surfaces(cases: Sequence[Case], tolerance: float = 1) -> Surfaces:
    return Surfaces(cases, num_classes=3, tolerance=tolerance)


def filled(cases: Sequence[Case], tolerance: float = 1) -> Surfaces:
    """With the slices of TRUTH and PREDICTION, in the order of the cases, from the last one."""
    found = surfaces(cases, tolerance)
    for number, case in enumerate(cases):
        found.add(case, TRUTH[-1 - number], PREDICTION[-1 - number])
    return found


def test_slices_in_any_order_are_scored_as_their_volume() -> None:
    found = filled(volume("a"))
    assert found.distances == Distances("mm", "volumes", 1)
    assert found.scores("a") == surface_scores(TRUTH, PREDICTION, num_classes=3, spacing=SPACING, tolerance=1)


def test_volumes_may_be_mixed_and_each_has_its_own_spacing() -> None:
    cases = [case for pair in zip(volume("a"), volume("b", across=9), strict=True) for case in pair]
    found = surfaces(cases)
    for number, case in enumerate(cases):
        found.add(case, TRUTH[-1 - number // 2], PREDICTION[-1 - number // 2])
    for name, across in (("a", 4), ("b", 9)):
        expected = surface_scores(
            TRUTH, PREDICTION, num_classes=3, spacing=(across, *SPACING[1:]), tolerance=1
        )
        assert found.scores(name) == expected


def without(case: Case, **changes: object) -> Case:
    assert case.slicing is not None
    return replace(case, slicing=replace(case.slicing, **changes))  # type: ignore[arg-type]


NOT_WHOLE = [
    volume("a")[:-1],  # a slice is missing
    [*volume("a")[:-1], volume("a")[0]],  # one is there twice
    [*volume("a")[:-1], without(volume("a")[-1], within=None)],  # one is of an earlier version
    [*volume("a")[:-1], without(volume("a")[-1], spacing=(1.0, 0.8))],
    [*volume("a")[:-1], without(volume("a")[-1], within=Within(0, 5, 3.0))],
    [*volume("a")[:-1], without(volume("a")[-1], within=Within(0, 6, 4.0))],
    [*volume("a"), without(volume("a")[0], within=None)],  # and one more that does not say where it lies
    [*volume("a"), volume("b")[0]],  # of another volume, a slice is there
]


@pytest.mark.parametrize("cases", NOT_WHOLE)
def test_what_is_no_whole_volume_is_scored_picture_by_picture(cases: list[Case]) -> None:
    assert Distances.of(cases, 1) == Distances("mm", "pictures", 1)


def test_a_case_has_the_mean_over_its_pictures() -> None:
    cases = volume("a")[:2]
    found = surfaces(cases)
    truth = np.zeros((2, 9, 8), np.uint8)
    prediction = truth.copy()
    truth[0, 2, 2], prediction[0, 2, 4] = 1, 1  # 2 columns of 0.8 mm
    truth[1, 2, 2], prediction[1, 4, 2] = 1, 1  # 2 rows of 0.5 mm
    truth[1, 8, 0] = 2
    for number, case in enumerate(cases):
        found.add(case, truth[number], prediction[number])
    liver, tumour = found.scores("a")
    assert (liver.hd95, liver.nsd) == (pytest.approx((1.6 + 1) / 2), 0.5)
    # Of the tumour one picture knows nothing, and in the other it is missed.
    assert (tumour.hd95, tumour.nsd) == (pytest.approx(math.hypot(9 * 0.5, 8 * 0.8)), 0)


def test_where_one_picture_has_no_spacing_all_are_measured_in_pixels() -> None:
    cases = [*volume("a"), Case("photo", Path("photo.png"))]
    found = surfaces(cases)
    assert found.distances == Distances("pixels", "pictures", 1)
    for case in cases:
        found.add(case, TRUTH[0], PREDICTION[0])
    expected = surface_scores(TRUTH[0], PREDICTION[0], num_classes=3, spacing=(1, 1), tolerance=1)
    assert found.scores("photo") == expected
    assert [one.hd95 for one in found.scores("a")] == pytest.approx([one.hd95 for one in expected])


def test_a_volume_of_one_slice_is_a_picture() -> None:
    cases = [*volume("a", slices=2), *volume("b", slices=1)]
    square = np.zeros((9, 8), np.uint8)
    square[2:7, 2:7] = 1
    inner = np.zeros_like(square)
    inner[3:6, 3:6] = 1
    found = surfaces(cases)
    for case in cases:
        found.add(case, square, inner)
    assert found.distances.between == "volumes"
    expected = surface_scores(square, inner, num_classes=3, spacing=SPACING[1:], tolerance=1)
    assert found.scores("b")[0] == expected[0]
    assert Distances.of(volume("b", slices=1), 1).between == "pictures"


def test_what_is_outside_the_region_of_interest_or_ignored_counts_nothing() -> None:
    (case,) = volume("a", slices=1)
    truth, prediction = TRUTH[0].copy(), PREDICTION[0].copy()
    roi = np.zeros(truth.shape, np.bool_)
    roi[2:7, 1:7] = True
    truth[3, 3] = 255
    inside = roi & (truth != 255)
    expected = surface_scores(
        np.where(inside, truth, 0), np.where(inside, prediction, 0),
        num_classes=3, spacing=SPACING[1:], tolerance=1,
    )  # fmt: skip
    for outside in (0, 1, 2):
        found = surfaces([case])
        other = np.where(inside, prediction, outside).astype(np.uint8)
        found.add(case, np.where(roi, truth, outside).astype(np.uint8), other, roi)
        assert found.scores("a") == expected
    assert truth[3, 3] == 255, "the arguments are left alone"


def test_slices_of_several_sizes_are_no_volume() -> None:
    cases = volume("a", slices=2)
    found = surfaces(cases)
    found.add(cases[0], TRUTH[0], PREDICTION[0])
    with pytest.raises(DataError, match="the slices of a differ in size"):
        found.add(cases[1], TRUTH[0, :8], PREDICTION[0, :8])


# --- in a report ------------------------------------------------------------------------------------------


@pytest.fixture
def report() -> Report:
    counts = CaseCounts(3)
    for truth, prediction in zip(TRUTH, PREDICTION, strict=True):
        counts.add(truth, prediction)
    return Report.from_counts({"a": counts}, LABELS, filled(volume("a"), tolerance=1.5))


def test_a_report_holds_them_beside_the_others(report: Report) -> None:
    expected = surface_scores(TRUTH, PREDICTION, num_classes=3, spacing=SPACING, tolerance=1.5)
    for row, one in zip(report.rows, expected, strict=True):
        assert (row.scores.hd95, row.scores.assd, row.scores.nsd) == (one.hd95, one.assd, one.nsd)
        assert row.scores.dice > 0
    assert report.summary["mean"]["assd"].mean == pytest.approx((expected[0].assd + expected[1].assd) / 2)


def test_files_say_the_unit(report: Report) -> None:
    lines = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert [line["unit"] for line in lines] == ["mm", "mm"]
    assert float(lines[0]["hd95"]) == pytest.approx(report.rows[0].scores.hd95, abs=1e-6)
    said = json.loads(report.to_json())
    assert said["distances"] == {"unit": "mm", "between": "volumes", "tolerance": 1.5}
    assert Report.from_json(report.to_json()).distances == report.distances
    assert report.named("hd95", "hd95") == "hd95 (mm)"
    assert report.named("NSD liver", "nsd") == "NSD liver (1.5 mm)"
    assert report.named("dice", "dice") == "dice"
    assert str(report.distances) == "Surfaces are those of whole volumes, in mm; nsd allows 1.5 mm."


def test_without_surfaces_there_is_no_score_and_no_unit() -> None:
    counts = CaseCounts(3)
    counts.add(TRUTH[0], PREDICTION[0])
    report = Report.from_counts({"a": counts}, LABELS)
    assert report.summary["liver"]["hd95"].n == 0
    assert (report.distances, report.named("hd95", "hd95")) == (None, "hd95")
    assert next(csv.DictReader(io.StringIO(report.to_csv())))["unit"] == ""
    assert Report.from_json(report.to_json()).distances is None
