"""The score that chooses a checkpoint, and the patience with one that does not get better."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_paddle.config import load_recipe
from medseg_paddle.config.selection import OVER_CLASSES, EarlyStopping, Metric, Selection
from medseg_paddle.errors import RecipeError
from medseg_paddle.metrics import MEAN, METRICS


def test_every_score_of_a_report_can_select() -> None:
    assert set(get_args(Metric)) == set(METRICS)
    assert OVER_CLASSES == MEAN


@pytest.mark.parametrize(
    ("selection", "name"),
    [
        ({}, "mean foreground Dice"),
        ({"metric": "iou"}, "mean foreground IoU"),
        ({"metric": "recall", "label": "left lung"}, "recall left lung"),
        ({"metric": "volume_error", "label": "tumour"}, "volume error tumour"),
        ({"metric": "hd95"}, "mean foreground HD95"),
        ({"metric": "assd", "label": "tumour"}, "ASSD tumour"),
        ({"metric": "nsd"}, "mean foreground NSD"),
    ],
)
def test_a_score_is_called_what_it_is(selection: dict[str, str], name: str) -> None:
    assert Selection(**selection).name == name


def test_the_direction_of_a_score_is_known() -> None:
    assert Selection().gain(0.9) > Selection().gain(0.8) > Selection().gain(0) > -math.inf
    assert Selection(metric="nsd").gain(0.9) > Selection(metric="nsd").gain(0.8)
    smaller = [Selection(metric=metric) for metric in ("volume_error", "hd95", "assd")]
    for selection in smaller:
        assert selection.gain(0) > selection.gain(0.1) > selection.gain(7) > selection.gain(900) > -math.inf
    for selection in (Selection(), *smaller):
        for nothing in (None, math.nan, -1.0):  # -1 in the history of earlier versions
            assert selection.gain(nothing) == -math.inf


@pytest.mark.parametrize(
    ("patience", "min_delta", "gains", "expected"),
    [
        (1, 0, [0.5], None),
        (1, 0, [0.5, 0.5], 1),  # equal is not better
        (2, 0, [0.5, 0.4, 0.6, 0.5, 0.6], 4),
        (2, 0, [0.5, 0.4, 0.6, 0.5, 0.61], None),
        (2, 0.1, [0.5, 0.55, 0.59], 2),
        (3, 0.1, [0.5, 0.55, 0.59, 0.61, 0.65, 0.7], None),  # 0.61 is 0.11 above 0.5
        (3, 0.1, [0.5, 0.55, 0.59, 0.61, 0.65, 0.7, 0.7], 6),
        (2, 0, [-math.inf, -math.inf, 0.5], 1),  # no score is no better one
        (2, 0, [-math.inf, 0.1, -math.inf, 0.2], None),
        (1, 0, [-3.0, -2.0, -1.0], None),
        (1, 0, [], None),
    ],
)
def test_patience_by_hand(patience: int, min_delta: float, gains: list[float], expected: int | None) -> None:
    assert EarlyStopping(patience=patience, min_delta=min_delta).spent_at(gains) == expected


@given(
    st.integers(1, 5),
    st.floats(0, 1),
    st.lists(st.floats(-5, 5) | st.just(-math.inf), max_size=30),
    st.integers(0, 30),
)
def test_what_comes_after_changes_nothing(
    patience: int, min_delta: float, gains: list[float], cut: int
) -> None:
    stopping = EarlyStopping(patience=patience, min_delta=min_delta)
    whole, part = stopping.spent_at(gains), stopping.spent_at(gains[:cut])
    assert part == (whole if whole is not None and whole < cut else None)
    longer = EarlyStopping(patience=patience + 1, min_delta=min_delta).spent_at(gains)
    assert longer is None or (whole is not None and whole < longer)


@pytest.mark.parametrize(
    ("overrides", "words", "hint"),
    [
        (["selection={metric: diec}"], "dice", ""),
        (["selection.label=disk"], "selection.label is 'disk'; scored are disc", "label: mean"),
        (["selection.label=background"], "scored are disc", "label: mean"),
        (["early_stopping={min_delta: 0.1}"], "patience", ""),
        (["early_stopping={patience: 0}"], "patience", ""),
        (["early_stopping={patience: 2, min_delta: -1}"], "min_delta", ""),
        (["early_stopping={patience: 2}", "val_dataset=null"], "there is no val_dataset", "remove"),
        (["selection.metric=iou", "val_dataset=null"], "there is no val_dataset", "remove"),
    ],
)
def test_a_selection_that_cannot_be_is_refused(
    disc_recipe_file: Path, overrides: list[str], words: str, hint: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(disc_recipe_file, overrides)
    assert words in str(caught.value)
    assert hint in caught.value.hint


def test_without_validation_the_default_is_no_contradiction(disc_recipe_file: Path) -> None:
    assert load_recipe(disc_recipe_file, ["val_dataset=null"]).selection == Selection()
