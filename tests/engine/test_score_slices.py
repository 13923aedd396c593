"""Slices that are postprocessed: as the volume that they are, in whatever order they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_paddle.config import Recipe
from medseg_paddle.core import Case, LabelSet, Slicing, Within
from medseg_paddle.engine.scoring import require_rules_for, score_cases, surfaces_of
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.metrics import CaseCounts, Report

LABELS = LabelSet.from_names(["background", "bright"])
SPACING = (5.0, 0.5, 0.8)
KEEP = [{"type": "KeepLargest", "connectivity": "faces"}]


def recipe(rules: list[dict]) -> Recipe:
    manifest = {"type": "Manifest", "dataset_root": "data", "img_channels": 1}
    return Recipe.model_validate(
        {
            "labels": list(LABELS.names),
            "batch_size": 1,
            "iters": 2,
            "train_dataset": {**manifest, "mode": "train", "transforms": [{"type": "Normalize"}]},
            "val_dataset": {**manifest, "mode": "val", "transforms": [{"type": "Normalize"}]},
            "model": {"type": "SimpleUNet"},
            "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
            "optimizer": {"type": "AdamW"},
            "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01},
            "postprocessing": rules,
        }
    )


def threshold(batch: np.ndarray) -> np.ndarray:
    bright = 1 / (1 + np.exp(-9 * batch))
    return np.concatenate([1 - bright, bright], axis=1).astype(np.float32)


def volume() -> np.ndarray:
    """A column through all slices, and in one slice a larger patch."""
    found = np.zeros((6, 8, 9), np.uint8)
    found[:, 1:3, 1:3] = 1
    found[2, 4:8, 4:7] = 1
    return found


def write(folder: Path, name: str, *, slicing: bool = True) -> list[Case]:
    """Slices, the last one first; the truth is the column alone."""
    cases, bright = [], volume()
    truth = bright.copy()
    truth[:, 4:] = 0
    for place in reversed(range(len(bright))):
        image, label = (folder / f"{name}_{place}_{kind}.png" for kind in ("image", "label"))
        Image.fromarray(bright[place] * 255).save(image)
        Image.fromarray(truth[place]).save(label)
        within = Within(place, len(bright), SPACING[0])
        cut = Slicing("axial", SPACING[1:], "HU", within) if slicing else None
        cases.append(Case(f"{name}_{place}", image, label, volume=name if slicing else "", slicing=cut))
    return cases


def scores(cases: list[Case], rules: list[dict]):
    counts: dict[str, CaseCounts] = {}
    chosen = recipe(rules)
    surfaces = surfaces_of(cases, chosen)
    seen = list(score_cases(threshold, cases, chosen, counts, labels=LABELS, surfaces=surfaces))
    return seen, {row.case: row.scores for row in Report.from_counts(counts, LABELS, surfaces).rows}


def test_the_parts_are_those_of_the_volume(tmp_path):
    mixed = [one for pair in zip(write(tmp_path, "a"), write(tmp_path, "b"), strict=True) for one in pair]
    seen, found = scores(mixed, KEEP)
    assert {one.case.id for one in seen} == {case.id for case in mixed}
    for name in ("a", "b"):
        assert found[name].dice == 1
        assert found[name].hd95 == 0
        assert found[name].auc < 1  # of the probabilities, which no rule changes
        assert found[name].truth_ml == pytest.approx(24 * 5 * 0.5 * 0.8 / 1000)
    _, plain = scores(mixed, [])
    assert plain["a"].dice == pytest.approx(2 * 24 / (24 + 36))


def test_pictures_are_each_by_themselves(tmp_path):
    seen, found = scores(write(tmp_path, "a", slicing=False), KEEP)
    assert found["a_2"].dice == 0  # the larger patch was kept
    assert found["a_1"].dice == 1
    assert np.isnan(found["a_1"].truth_ml)
    assert [one.case.id for one in seen] == [f"a_{place}" for place in reversed(range(6))]


def test_a_volume_that_is_not_whole_is_refused(tmp_path):
    with pytest.raises(DataError, match="of a not every slice is there"):
        scores(write(tmp_path, "a")[1:], KEEP)
    scores(write(tmp_path, "a")[1:], [{"type": "Threshold", "classes": ["bright"], "at_least": 0.4}])


def test_sizes_are_in_the_unit_of_what_is_segmented(tmp_path):
    slices, pictures = write(tmp_path, "a"), write(tmp_path, "b", slicing=False)
    ml, pixels = {"type": "RemoveSmall", "ml": 0.03}, {"type": "RemoveSmall", "pixels": 5}
    for cases, right, wrong in ((slices, ml, pixels), (pictures, pixels, ml)):
        assert len(require_rules_for(cases, recipe([right]), LABELS)) == 1
        with pytest.raises(RecipeError, match="RemoveSmall"):
            require_rules_for(cases, recipe([wrong]), LABELS)
    _, found = scores(slices, [ml])  # of 12 pixels, 24 mm3
    assert found["a"].predicted_pixels == 24
