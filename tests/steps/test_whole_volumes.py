"""Volumes that are prepared whole: every voxel with its intensity at its place in the patient."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from pydantic import ValidationError

from medseg_paddle.config import Recipe
from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import LabelSet, Manifest
from medseg_paddle.errors import DataError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.dicom import load_series
from medseg_paddle.phantom import write_phantom
from medseg_paddle.steps.check import check
from medseg_paddle.steps.dataset import write_dataset
from medseg_paddle.steps.dry_run import dry_run
from medseg_paddle.steps.prepare import summary

LABELS = LabelSet.from_names(("background", "organ"))
SETS = ({"images": "*_image.nii.gz", "labels": "*_label.nii.gz"},)
# Oblique, with rows from below: places and axes that a careless writer would lose.
TURN = np.array([[0.8, 0.6, 0, 0], [-0.6, 0.8, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1.0]])
AFFINE = TURN @ np.diag([0.7, 0.9, 2.5, 1]) + np.array([[0, 0, 0, -31.5]] * 3 + [[0, 0, 0, 0]])


def spec(**options: Any) -> PrepareSpec:
    whole = {"reader": "volumes", "sets": SETS, "volumes": "whole", "key": r"(P\d)", "patient": r"(P\d)"}
    whole["val_fraction"] = 0.2
    return PrepareSpec.model_validate({**whole, **options})


def ball(case: int, shape: tuple[int, int, int]) -> np.ndarray:
    """200 in a ball that stands out of 7."""
    places = np.indices(shape) - np.array([10 + case, 11, 4])[:, None, None, None]
    return ((places * np.array([1, 1, 2])[:, None, None, None]) ** 2).sum(0) < 36


def cohort(root: Path, *, cases: int = 5, dtype: Any = np.int16) -> Path:
    for case in range(cases):
        inside = ball(case, (24, 22, 9))
        noise = np.random.default_rng(case).integers(-20, 20, inside.shape)
        image = (inside * 200 + 7 + noise).astype(dtype)
        for what, array in (("image", image), ("label", (inside * 200).astype(np.uint8))):
            root.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, AFFINE), root / f"P{case}_{what}.nii.gz")
    return root


def prepared(root: Path, source: Path, rules: PrepareSpec, labels: LabelSet = LABELS) -> Manifest:
    return write_dataset(
        rules, source=source, destination=root / "data", labels=labels, name="whole", workers=1
    )


def test_voxels_and_places_stay_and_labels_are_mapped(tmp_path: Path) -> None:
    source = cohort(tmp_path / "in")
    manifest = prepared(tmp_path, source, spec(label_map={0: 0, 200: 1}))
    cases = {case.id: case for cases in manifest.splits.values() for case in cases}
    assert sorted(cases) == [f"P{number}" for number in range(5)]
    for name, case in cases.items():
        before, after = nib.load(source / f"{name}_image.nii.gz"), nib.load(case.image)
        np.testing.assert_array_equal(np.asarray(after.dataobj), np.asarray(before.dataobj))
        assert after.get_data_dtype() == np.int16
        np.testing.assert_allclose(after.affine, before.affine, atol=1e-5)
        label = SimpleITK.ReadImage(str(case.label))  # another library, and another frame
        image = SimpleITK.ReadImage(str(source / f"{name}_label.nii.gz"))
        np.testing.assert_array_equal(
            SimpleITK.GetArrayFromImage(label) * 200, SimpleITK.GetArrayFromImage(image)
        )
        np.testing.assert_allclose(label.GetOrigin(), image.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(label.GetDirection(), image.GetDirection(), atol=1e-5)
        np.testing.assert_allclose(label.GetSpacing(), image.GetSpacing(), atol=1e-5)
        assert (case.group, case.patient) == (name, name)


def test_numbers_that_are_not_whole_are_kept_as_well(tmp_path: Path) -> None:
    source = cohort(tmp_path / "in", dtype=np.float32)
    image = nib.load(source / "P0_image.nii.gz")
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32) / 3, AFFINE), source / "P0_image.nii.gz")
    manifest = prepared(tmp_path, source, spec(label_map={0: 0, 200: 1}))
    case = next(case for cases in manifest.splits.values() for case in cases if case.id == "P0")
    np.testing.assert_array_equal(
        nib.load(case.image).get_fdata(dtype=np.float32),
        nib.load(source / "P0_image.nii.gz").get_fdata(dtype=np.float32),
    )


def test_channels_become_a_fourth_axis(tmp_path: Path) -> None:
    source = cohort(tmp_path / "in")
    for case in range(5):
        image = nib.load(source / f"P{case}_image.nii.gz")
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 2, AFFINE), source / f"P{case}_second.nii.gz")
    both = [{"images": ["*_image.nii.gz", "*_second.nii.gz"], "labels": "*_label.nii.gz"}]
    manifest = prepared(tmp_path, source, spec(sets=both, label_map={0: 0, 200: 1}))
    case = manifest.splits["train"][0]
    array = np.asarray(nib.load(case.image).dataobj)
    assert array.shape == (24, 22, 9, 2)
    np.testing.assert_array_equal(array[..., 1], 2 * array[..., 0])
    assert manifest.source["channels"] == 2
    assert check(manifest.root).is_fit()


def test_a_series_with_masks_lies_where_it_lay(tmp_path: Path) -> None:
    write_phantom(tmp_path / "in", patients=4, seed=1, size=40, slices=9)
    rules = PrepareSpec.model_validate(
        {
            "reader": "dicom",
            "sets": [{"images": "*/ct/*.dcm", "labels": "*/mask/*.png"}],
            "volumes": "whole",
            "val_fraction": 0.25,
        }
    )
    manifest = prepared(tmp_path, tmp_path / "in", rules)
    for case in (case for cases in manifest.splits.values() for case in cases):
        volume = load_series(sorted((tmp_path / "in" / case.patient / "ct").iterdir())).volume
        image = SimpleITK.ReadImage(str(case.image))
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), volume.array)
        corner = image.TransformIndexToPhysicalPoint((3, 2, 1))  # column, row, slice; LPS mm
        np.testing.assert_allclose(corner, volume.geometry.to_lps(np.array([1, 2, 3])), atol=1e-3)
        assert case.slicing is not None
        assert case.slicing.units == "HU"


def test_an_interrupted_preparation_goes_on_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = cohort(tmp_path / "in")
    nib.save(nib.load(source / "P1_image.nii.gz"), source / "P3_image.nii.gz")  # a copy, in two splits or not
    rules = spec(label_map={0: 0, 200: 1})
    whole = prepared(tmp_path / "a", source, rules)

    def stops(done: int, _total: int, _name: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    options = {
        "source": source,
        "destination": tmp_path / "b",
        "labels": LABELS,
        "name": "whole",
        "workers": 1,
    }
    with pytest.raises(KeyboardInterrupt):
        write_dataset(rules, progress=stops, **options)
    resumed = write_dataset(rules, **options)
    assert resumed.fingerprints == whole.fingerprints
    assert resumed.source == whole.source


def test_a_dry_run_says_what_there_is(tmp_path: Path) -> None:
    source = cohort(tmp_path / "in")
    found = dry_run(spec(label_map={0: 0, 200: 1}), source=source, labels=LABELS, workers=1)
    assert not found.problems
    assert any(
        "5 volumes of 9 x 22 x 24 voxels (slices x rows x columns), grey" in line for line in found.lines
    )


def test_what_was_prepared_is_told_in_voxels_along_the_body(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    # The file's axes run to R, I, P in one and to P, L, S in the other.
    for number, (shape, columns) in enumerate(
        [
            ((20, 8, 30), [[0.7, 0, 0], [0, 0, -0.9], [0, -5, 0]]),
            ((32, 24, 6), [[0, -1.1, 0], [-0.9, 0, 0], [0, 0, 4]]),
        ]
    ):
        affine = np.eye(4)
        affine[:3, :3] = columns
        inside = ball(0, shape)
        for what, array in (("image", inside * 200 + 7), ("label", inside)):
            nib.save(nib.Nifti1Image(array.astype(np.int16), affine), source / f"P{number}_{what}.nii.gz")
    manifest = prepared(tmp_path, source, spec(val_fraction=0.5))
    (line,) = [line for line in summary(manifest) if line.startswith(("volumes", "slices"))]
    assert line == (
        "volumes: 6 to 8 x 30 to 32 x 20 to 24 voxels of 4 to 5 mm x 0.9 mm x 0.7 to 1.1 mm, "
        "the median [4.5, 0.9, 0.9] (feet to head, front to back, right to left), units unknown"
    )


def test_the_doctor_looks_at_whole_volumes(tmp_path: Path) -> None:
    source = cohort(tmp_path / "in", cases=8)
    manifest = prepared(tmp_path, source, spec(label_map={0: 0, 200: 1}))
    assert check(manifest.root).is_fit()
    case = manifest.splits["train"][0]
    label = nib.load(case.label)
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj) * 3, label.affine), case.label)
    found = [one for one in check(manifest.root).findings if one.code == "undeclared-values"]
    assert [one.cases for one in found] == [(case.id,)]
    shutil.copy(source / "P0_label.nii.gz", case.label)
    moved = nib.load(case.label)
    nib.save(nib.Nifti1Image(np.asarray(moved.dataobj) // 200, moved.affine + np.eye(4, k=3) * 5), case.label)
    assert any("lie up to 5 mm apart" in one.message for one in check(manifest.root).findings)


def test_a_recipe_of_today_does_not_train_on_them(tmp_path: Path, disc_recipe: Recipe) -> None:
    manifest = prepared(tmp_path, cohort(tmp_path / "in"), spec(label_map={0: 0, 200: 1}))
    dataset = type(disc_recipe.train_dataset).model_validate(
        {**disc_recipe.train_dataset.model_dump(), "dataset_root": str(manifest.root)}
    )
    with pytest.raises(DataError, match="whole volumes") as error:
        load_cases(dataset)
    assert "volumes: slices" in error.value.hint


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window": {"level": 40, "width": 400}}, "keeps intensities"),
        ({"reader": "pairs", "window": None}, "reads pictures"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        spec(**options)
