from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest

from medseg_paddle.core import LabelSet
from medseg_paddle.errors import RecipeError
from medseg_paddle.metrics import METRICS, TABLE_HEADER, CaseCounts, Report

LABELS = LabelSet.from_names(["background", "liver", 'tumour, "hot"'])


def counts(truth: list[int], prediction: list[int]) -> CaseCounts:
    result = CaseCounts(3)
    result.add(np.array([truth]), np.array([prediction]))
    return result


@pytest.fixture
def report() -> Report:
    return Report.from_counts(
        {
            "anna": counts([1, 1, 0, 0], [1, 1, 0, 0]),  # liver Dice 1, no tumour
            "bert": counts([1, 1, 2, 0], [1, 0, 2, 0]),  # liver 2/3, tumour 1
            "carl": counts([1, 1, 2, 0], [0, 0, 2, 2]),  # liver 0, tumour 2/3
        },
        LABELS,
    )


def test_summary_by_hand(report):
    liver, tumour = report.summary["liver"]["dice"], report.summary['tumour, "hot"']["dice"]
    assert liver.mean == pytest.approx(5 / 9)
    assert liver.sd == pytest.approx(np.std([1, 2 / 3, 0], ddof=1))
    assert liver.median == pytest.approx(2 / 3)
    assert liver.n == 3
    assert tumour.mean == pytest.approx(5 / 6)
    assert tumour.n == 2


def test_mean_is_over_the_foreground_classes_of_their_means(report):
    assert report.mean_foreground_dice == pytest.approx((5 / 9 + 5 / 6) / 2)
    mean = report.summary["mean"]["dice"]
    assert mean.mean == report.mean_foreground_dice
    assert mean.median == pytest.approx((2 / 3 + 5 / 6) / 2)
    assert mean.n == 5


def test_a_class_that_never_occurs_is_left_out_of_the_mean():
    report = Report.from_counts({"anna": counts([1, 0], [1, 0])}, LABELS)
    assert report.mean_foreground_dice == 1
    assert report.summary['tumour, "hot"']["dice"].n == 0
    assert math.isnan(report.summary['tumour, "hot"']["dice"].mean)


def test_with_nothing_to_score_the_mean_is_nan():
    assert math.isnan(Report.from_counts({"anna": counts([0, 0], [0, 0])}, LABELS).mean_foreground_dice)
    assert math.isnan(Report.from_counts({}, LABELS).mean_foreground_dice)


def test_one_case_has_no_standard_deviation():
    report = Report.from_counts({"anna": counts([1, 0], [1, 0])}, LABELS)
    assert math.isnan(report.summary["liver"]["dice"].sd)


def test_csv_has_a_line_for_every_case_and_class(report):
    lines = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert list(lines[0]) == [
        "case",
        "class",
        *METRICS,
        "truth_pixels",
        "predicted_pixels",
        "truth_ml",
        "predicted_ml",
        "unit",
    ]
    assert [(line["case"], line["class"]) for line in lines] == [
        (case, name) for case in ("anna", "bert", "carl") for name in ("liver", 'tumour, "hot"')
    ]
    assert lines[1]["dice"] == ""
    assert float(lines[2]["dice"]) == pytest.approx(2 / 3, abs=1e-6)
    assert lines[5]["predicted_pixels"] == "2"


def test_json_is_valid_and_has_null_for_nan(report):
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    content = json.loads(report.to_json(), parse_constant=refuse)
    assert content["cases"][1]["dice"] is None
    assert content["cases"][1]["case"] == "anna"
    assert content["cases"][0]["auc"] is None
    assert content["cases"][0]["dice"] == 1
    assert content["mean_foreground_dice"] == pytest.approx(report.mean_foreground_dice)
    assert content["summary"]["liver"]["dice"]["n"] == 3
    assert content["summary"]["liver"]["auc"]["mean"] is None


def test_the_table_has_mean_sd_median_and_n_of_every_class_and_of_all(report):
    rows = report.table_rows()
    assert {len(row) for row in rows} == {len(TABLE_HEADER)}
    assert [row[0] for row in rows[::4]] == ["liver", 'tumour, "hot"', "mean"]
    assert [row[1] for row in rows[:4]] == ["mean", "SD", "median", "n"]
    column = TABLE_HEADER.index("dice")
    assert [row[column] for row in rows[:4]] == ["0.5556", "0.5092", "0.6667", "3"]
    assert rows[0][TABLE_HEADER.index("auc")] == "-"


def test_with_one_class_the_table_does_not_say_everything_twice():
    case = CaseCounts(2)
    case.add(np.array([[1]]), np.array([[1]]))
    report = Report.from_counts({"anna": case}, LabelSet.from_names(["background", "vessel"]))
    assert [row[0] for row in report.table_rows()] == ["vessel", "", "", ""]
    assert report.summary["mean"] == report.summary["vessel"] or math.isnan(report.summary["mean"]["dice"].sd)


def test_a_class_may_not_be_named_like_the_summary():
    with pytest.raises(RecipeError, match="mean"):
        Report.from_counts({}, LabelSet.from_names(["background", "mean"]))


def test_counts_of_another_number_of_classes_are_a_defect():
    with pytest.raises(ValueError, match="2 classes"):
        Report.from_counts({"anna": CaseCounts(2)}, LABELS)
