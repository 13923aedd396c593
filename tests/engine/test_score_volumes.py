"""Whole volumes: predicted, counted, measured and drawn on the grid of their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medseg_paddle.config import Recipe
from medseg_paddle.core import Case, LabelSet, Slicing
from medseg_paddle.engine.scoring import score_cases, surfaces_of
from medseg_paddle.errors import DataError
from medseg_paddle.metrics import CaseCounts, Report
from medseg_paddle.metrics.surface import surface_scores

LABELS = LabelSet.from_names(["background", "liver", "tumour"])
SPACING = (1.5, 0.8, 2.0)  # of i, j, k
SHAPE = (26, 30, 18)


def recipe(**more: Any) -> Recipe:
    preprocessing = {"type": "VolumePreprocessing", "axes": "SPL", "spacing": [1.5, 1.2, 1.2]}
    manifest = {"type": "Manifest", "dataset_root": "data"}
    return Recipe.model_validate(
        {
            "labels": list(LABELS.names),
            "batch_size": 1,
            "iters": 2,
            "train_dataset": {
                **manifest,
                "mode": "train",
                "transforms": [preprocessing, {"type": "RandomVolumePatch", "size": [8, 16, 16]}],
                "img_channels": 1,
            },
            "val_dataset": {**manifest, "mode": "val", "transforms": [preprocessing], "img_channels": 1},
            "model": {"type": "UNet3D", "width": 2, "depth": 2},
            "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
            "optimizer": {"type": "AdamW"},
            "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01},
            **more,
        }
    )


def brightness(batch: np.ndarray) -> np.ndarray:
    """Three classes by a voxel's value, around 0, 1 and 2."""
    scores = np.exp(-20 * np.concatenate([(batch[:, :1] - value) ** 2 for value in (0, 1, 2)], axis=1))
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def write_case(folder: Path, *, ignored: bool = False) -> Case:
    """A liver with a tumour, and a bright speck elsewhere that the label does not have; the axes run RAS, tilted."""
    tilt = nib.eulerangles.euler2mat(0.1, 0.2, -0.15)
    affine = nib.affines.from_matvec(tilt @ np.diag(SPACING), (-20, 30, 5))
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1) * SPACING

    def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
        return np.linalg.norm(places - centre, axis=-1) < radius

    image = np.zeros(SHAPE, np.float32)
    image[ball((18, 12, 16), 9)] = 1
    image[ball((20, 12, 18), 4)] = 2
    truth = image.astype(np.uint8)
    image[ball((33, 20, 30), 2.5)] = 2
    if ignored:
        truth[:10] = 255
    (folder / "images").mkdir()
    nib.save(nib.Nifti1Image(image, affine), folder / "images" / "a.nii.gz")
    nib.save(nib.Nifti1Image(truth, affine), folder / "images" / "a_label.nii.gz")
    return Case(
        "a",
        folder / "images" / "a.nii.gz",
        folder / "images" / "a_label.nii.gz",
        volume="a",
        slicing=Slicing("axial", (1, 1), "arbitrary"),
    )


def scored(case: Case, recipe: Recipe):
    counts: dict[str, CaseCounts] = {}
    surfaces = surfaces_of([case], recipe)
    (one,) = score_cases(brightness, [case], recipe, counts, labels=LABELS, surfaces=surfaces)
    return one, Report.from_counts(counts, LABELS, surfaces)


def kji(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj).T


def test_a_volume_is_scored_on_the_grid_of_its_file(tmp_path):
    case = write_case(tmp_path)
    one, report = scored(case, recipe())
    truth, found = kji(case.label), one.volume.array
    assert found.shape == truth.shape
    for row, label in zip(report.rows, (1, 2), strict=True):
        hit = np.count_nonzero((truth == label) & (found == label))
        both = np.count_nonzero(truth == label) + np.count_nonzero(found == label)
        assert row.scores.dice == pytest.approx(2 * hit / both)
        assert row.scores.truth_ml == pytest.approx(
            np.count_nonzero(truth == label) * np.prod(SPACING) / 1000
        )
        assert row.scores.predicted_ml == pytest.approx(
            np.count_nonzero(found == label) * np.prod(SPACING) / 1000
        )
        assert row.scores.auc > 0.95
    assert report.rows[0].scores.dice > 0.9
    assert report.distances.unit == "mm"
    assert report.distances.between == "volumes"
    apart = surface_scores(truth, found, num_classes=3, spacing=SPACING[::-1], tolerance=2)
    assert [row.scores.hd95 for row in report.rows] == pytest.approx([one.hd95 for one in apart])
    lines = report.to_csv().splitlines()
    assert lines[0].endswith("truth_pixels,predicted_pixels,truth_ml,predicted_ml,unit")
    assert lines[1].endswith(
        f"{report.rows[0].scores.truth_ml:.4f},{report.rows[0].scores.predicted_ml:.4f},mm"
    )
    assert Report.from_json(report.to_json()).rows == report.rows


def test_what_is_scored_is_the_answer_after_postprocessing(tmp_path):
    case = write_case(tmp_path)
    plain, _ = scored(case, recipe())
    rules = [{"type": "KeepLargest", "classes": ["tumour"]}, {"type": "RemoveSmall", "ml": 0.05}]
    one, report = scored(case, recipe(postprocessing=rules))
    truth = kji(case.label)
    speck = (plain.volume.array == 2) & (one.volume.array != 2)
    assert 5 < speck.sum() < 100
    assert (truth[speck] == 0).all()
    assert report.rows[1].scores.predicted_pixels == np.count_nonzero(one.volume.array == 2)


def test_ignored_voxels_count_nowhere(tmp_path):
    case = write_case(tmp_path, ignored=True)
    one, report = scored(case, recipe())
    truth, found = kji(case.label), one.volume.array
    assert report.rows[0].scores.predicted_pixels == np.count_nonzero((found == 1) & (truth != 255))
    assert 255 in one.truth  # the slice that is drawn, which is not chosen for its ignored pixels
    assert one.foreground == np.count_nonzero((one.truth > 0) & (one.truth != 255)) > 0
    kept = [np.where(truth == 255, 0, one) for one in (truth, found)]
    apart = surface_scores(*kept, num_classes=3, spacing=SPACING[::-1], tolerance=2)
    assert [row.scores.assd for row in report.rows] == pytest.approx([one.assd for one in apart])


def test_the_picture_is_the_axial_slice_with_most_foreground_in_square_pixels(tmp_path):
    case = write_case(tmp_path)
    one, _ = scored(case, recipe())
    truth = kji(case.label)
    most = int(np.argmax((truth > 0).sum(axis=(1, 2))))
    # RAS: rows run to the front and columns to the right in the file; upright is the other way round in both.
    upright = truth[most, ::-1, ::-1]
    assert one.image.dtype == np.uint8
    assert one.image.shape == (*one.truth.shape, 1)
    height, width = one.truth.shape
    assert height / width == pytest.approx(30 * 0.8 / (26 * 1.5), rel=0.05)
    assert np.count_nonzero(one.truth) / one.truth.size == pytest.approx(
        np.count_nonzero(upright) / upright.size, rel=0.1
    )
    centre = np.argwhere(one.truth).mean(axis=0) / one.truth.shape
    np.testing.assert_allclose(centre, np.argwhere(upright).mean(axis=0) / upright.shape, atol=0.03)
    assert one.image[one.truth == 2].min() > one.image[one.truth == 0].max() / 2


def test_a_region_of_interest_is_refused_for_volumes(tmp_path):
    case = write_case(tmp_path)
    with_roi = Case(case.id, case.image, case.label, roi=case.label, volume="a")
    with pytest.raises(DataError, match="region of interest"):
        scored(with_roi, recipe())
