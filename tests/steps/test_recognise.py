"""Folders as people have them: what is proposed for them reads them, and what it leaves out is said."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.errors import DataError
from medseg_paddle.phantom import write_phantom
from medseg_paddle.steps.prepare import proposal
from medseg_paddle.steps.recognise import Layout, recognise
from medseg_paddle.steps.sources import Source, find_sources

_seed = itertools.count()


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def image(path: Path) -> None:
    if path.name.endswith(".nii.gz"):
        volume(path, np.random.default_rng(next(_seed)).integers(0, 400, (6, 5, 3)).astype(np.int16))
    else:
        save(path, np.random.default_rng(next(_seed)).integers(0, 256, (12, 10), dtype=np.uint8))


def label(path: Path, *values: Any) -> None:
    array = np.zeros((6, 5, 3) if path.name.endswith(".nii.gz") else (12, 10), np.uint8)
    for place, value in enumerate(values or (1,), start=1):
        array[place] = value
    if path.name.endswith(".nii.gz"):
        volume(path, array)
    else:
        save(path, array)


def volume(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = nib.Nifti1Image(array, np.eye(4))
    made.set_sform(np.eye(4), code="scanner")
    nib.save(made, path)


def first(root: Path) -> Layout:
    return recognise(root)[0]


def pairs(root: Path, section: dict[str, Any]) -> set[tuple[str, ...]]:
    """Files of each case, as the proposal reads them."""
    found: list[Source] = find_sources(PrepareSpec.model_validate(section), root)
    return {tuple(path.relative_to(root).as_posix() for path in one.files) for one in found}


def splits(root: Path, section: dict[str, Any]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one in find_sources(PrepareSpec.model_validate(section), root):
        found.setdefault(one.split, set()).add(one.name)
    return found


# --- files that belong together ---------------------------------------------------------------------------

LAYOUTS = {
    "a word at the end": [(f"img_{k}.png", f"img_{k}_mask.png") for k in range(11)],
    "volumes with a word at the end": [(f"p{k}.nii.gz", f"p{k}_seg.nii.gz") for k in range(3)],
    "a word at both ends": [(f"brain{k}_image.nii.gz", f"brain{k}_label.nii.gz") for k in range(3)],
    "a folder per patient, slices with masks beside them": [
        (f"TCGA_{p}/TCGA_{p}_{k}.tif", f"TCGA_{p}/TCGA_{p}_{k}_mask.tif") for p in range(3) for k in range(1, 4)
    ],
    "a folder per class, numbers in brackets": [
        (f"{kind}/{kind} ({k}).png", f"{kind}/{kind} ({k})_mask.png")
        for kind in ("benign", "normal") for k in range(1, 4)
    ],
    "names without numbers": [(f"{name}.png", f"{name}_mask.png") for name in ("anna", "otto", "eve")],
    "equal names in train and val": [
        (f"{split}/images/{k}.png", f"{split}/masks/{k}.png") for split in ("train", "val") for k in range(3)
    ],
    "folders of patients below images and labels": [
        (f"images/P{p}/{k}.png", f"labels/P{p}/{k}.png") for p in range(3) for k in range(3)
    ],
    "signs that a pattern would take for its own": [
        (f"set[1]/images/a{k}.png", f"set[1]/labels/a{k}.png") for k in range(3)
    ],
    "other words for folders": [(f"Original/{k}.png", f"Ground Truth/{k}.png") for k in range(3)],
    "a number in the channel's name": [
        (*(f"B{k}/B{k}_{name}.nii.gz" for name in ("flair", "t1", "t1ce", "t2")), f"B{k}/B{k}_seg.nii.gz")
        for k in range(3)
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_proposal_pairs_what_belongs_together(tmp_path, kind):
    for *images, mask in LAYOUTS[kind]:
        for path in images:
            image(tmp_path / path)
        label(tmp_path / mask)
    layout = first(tmp_path)
    assert layout.problems == ()
    assert pairs(tmp_path, layout.prepare) == set(LAYOUTS[kind])


def test_slices_and_masks_in_one_folder_a_patient_are_paired_by_the_folder(tmp_path):
    write_phantom(tmp_path, patients=2, seed=3, size=40, slices=9)
    for patient in list(tmp_path.iterdir()):
        for path in [*patient.glob("ct/*"), *patient.glob("mask/*")]:
            path.rename(patient / path.name)
        (patient / "ct").rmdir()
        (patient / "mask").rmdir()
    layout = first(tmp_path)
    assert layout.problems == ()
    found = find_sources(PrepareSpec.model_validate(layout.prepare), tmp_path)
    assert len(found) == 2
    for one in found:
        slices, masks = one.files[:9], one.files[9:]
        assert [path.with_suffix(".png") for path in slices] == list(masks)


def test_a_second_mask_of_one_image_is_left_out_and_said(tmp_path):
    for number in range(3):
        image(tmp_path / f"a ({number}).png")
        label(tmp_path / f"a ({number})_mask.png")
    label(tmp_path / "a (1)_mask_1.png")
    layout = first(tmp_path)
    assert len(pairs(tmp_path, layout.prepare)) == 3
    assert "1 files are not taken: a (1)_mask_1.png" in layout.remarks


def test_of_two_folders_of_labels_one_is_taken_and_the_other_said(tmp_path):
    for number in range(3):
        image(tmp_path / f"images/{number}.png")
        label(tmp_path / f"labels/{number}.png")
        label(tmp_path / f"masks/{number}.png")
    layout = first(tmp_path)
    assert {two for _, two in pairs(tmp_path, layout.prepare)} == {f"labels/{k}.png" for k in range(3)}
    assert "other folders may hold labels, or are of another kind: masks" in layout.remarks


def test_a_field_of_view_is_no_label(tmp_path):
    for number in range(3):
        image(tmp_path / f"images/2{number}_training.png")
        label(tmp_path / f"1st_manual/2{number}_manual1.png")
        label(tmp_path / f"2nd_manual/2{number}_manual2.png")
        label(tmp_path / f"mask/2{number}_training_mask.png", 255)
    layout = first(tmp_path)
    assert pairs(tmp_path, layout.prepare) == {
        (f"images/2{k}_training.png", f"1st_manual/2{k}_manual1.png", f"mask/2{k}_training_mask.png")
        for k in range(3)
    }
    assert any("2nd_manual" in remark for remark in layout.remarks)
    assert any("field of view" in remark for remark in layout.remarks)


@pytest.mark.parametrize("lacking", ["actin", "label"])
def test_what_one_case_lacks_is_said_and_not_passed_over(tmp_path, lacking):
    for case in range(6):
        for name in ("actin", "dapi"):
            image(tmp_path / f"p{case}/{name}.png")
        label(tmp_path / f"p{case}/label.png")
    (tmp_path / "p4" / f"{lacking}.png").unlink()
    layout = first(tmp_path)
    assert layout.prepare["sets"][0]["images"] == ["*/actin.png", "*/dapi.png"]
    assert f"'{lacking}.png' is not in p4" in layout.remarks
    assert layout.problems
    assert all("p4/" in problem for problem in layout.problems)
    assert all(f"does not fit yet: {problem}" in str(layout) for problem in layout.problems)


# --- official splits --------------------------------------------------------------------------------------


def folders(root: Path, count: int = 8) -> None:
    for number in range(count):
        image(root / f"images/a{number}.png")
        label(root / f"masks/a{number}.png")


@pytest.mark.parametrize("name", ["a{}", "a{}.png", "images/a{}.png"])
def test_lists_of_names_say_the_splits(tmp_path, name):
    folders(tmp_path)
    wanted = {"train": range(4), "val": range(4, 6), "test": range(6, 8)}
    for split, numbers in wanted.items():
        (tmp_path / f"{split}.txt").write_text("".join(f"{name.format(k)}\n" for k in numbers))
    layout = first(tmp_path)
    assert splits(tmp_path, layout.prepare) == {
        split: {f"a{k}.png" for k in numbers} for split, numbers in wanted.items()
    }
    assert "val_fraction" not in layout.prepare
    assert layout.remarks == ()


def test_lists_that_are_not_read_are_named(tmp_path):
    folders(tmp_path)
    (tmp_path / "train_ids.txt").write_text("patient 1\npatient 2\n")
    (tmp_path / "splits_final.json").write_text("[]")
    text = str(first(tmp_path))
    assert "not read, though the names say a split: train_ids.txt" in text
    assert "not read: the folds of splits_final.json" in text


@pytest.mark.parametrize("windows", [False, True])
def test_one_bad_line_drops_no_list(tmp_path, windows):
    folders(tmp_path)
    for split, numbers in (("train", range(5)), ("test", range(5, 9))):
        text = "".join(f"images/a{k}.png masks/a{k}.png\n" for k in numbers)
        (tmp_path / f"{split}_list.txt").write_text(text.replace("/", "\\") if windows else text)
    layout = first(tmp_path)
    assert [one["index"] for one in layout.prepare["sets"]] == ["train_list.txt", "test_list.txt"]
    (problem,) = layout.problems
    assert "test_list.txt, line 4" in problem
    (tmp_path / "test_list.txt").write_text(text.rsplit("images", 1)[0])
    assert {one: len(names) for one, names in splits(tmp_path, first(tmp_path).prepare).items()} == {
        "train": 5, "test": 3
    }  # fmt: skip


# --- label values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1, 255), {0: 0, 1: 1, 255: 255}),
        ((5, 15, 255), {0: 0, 5: 1, 15: 2, 255: 255}),
        ((255,), {0: 0, 255: 1}),
        ((85, 170, 255), {0: 0, 85: 1, 170: 2, 255: 3}),
    ],
)
def test_255_beside_classes_is_left_out_and_said(tmp_path, values, expected):
    for number in range(3):
        image(tmp_path / f"images/{number}.png")
        label(tmp_path / f"masks/{number}.png", *values)
    layout = first(tmp_path)
    assert layout.prepare["label_map"] == expected
    assert any("255 are left out" in remark for remark in layout.remarks) == (expected[255] == 255)


def test_colours_of_labels_become_a_line_of_the_proposal(tmp_path):
    for number in range(3):
        image(tmp_path / f"images/{number}.png")
        colors = np.zeros((12, 10, 3), np.uint8)
        colors[2:4], colors[7] = (255, 0, 0), (0, 128, 0)
        save(tmp_path / f"masks/{number}.png", colors)
    layout = first(tmp_path)
    assert layout.prepare["label_colors"] == {"0 0 0": 0, "255 0 0": 1, "0 128 0": 2}
    PrepareSpec.model_validate(layout.prepare)
    assert any("in colour" in remark for remark in layout.remarks)


# --- real data --------------------------------------------------------------------------------------------


def test_drive_is_proposed_with_its_first_reader_and_its_field_of_view(real_data):
    layout = first(real_data / "drive")
    found = find_sources(PrepareSpec.model_validate(layout.prepare), real_data / "drive")
    assert len(found) == 40
    assert all(
        one.files[1].parent.name == "1st_manual" and one.files[2].parent.name == "mask" for one in found
    )
    assert all(len({path.name[:2] for path in one.files}) == 1 for one in found)


@pytest.mark.parametrize(
    ("name", "counts"),
    [("isbi2012_membrane", {"train": 24, "val": 6}), ("dsb2018_nuclei", None), ("msd_hippocampus", None)],
)
def test_the_splits_of_real_sets_are_kept(real_data, name, counts):
    folder = real_data / name
    said = {
        path.stem: len(path.read_text().split())
        for path in folder.glob("*.txt")
        if path.stem in ("train", "val", "test")
    }
    assert counts in (None, said)
    found = splits(folder, first(folder).prepare)
    assert {split: len(names) for split, names in found.items()} == said


def test_a_json_of_endless_depth_is_no_layout(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("[" * 200_000)
    with pytest.raises(DataError, match="is not recognised"):
        proposal(tmp_path)
