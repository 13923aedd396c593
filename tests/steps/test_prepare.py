"""`medseg prepare`: a named folder or synthetic patients, written once and kept while nothing has changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from pydantic import ValidationError

from medseg_paddle.cli import main
from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.config.shipped import shipped_recipes
from medseg_paddle.core import Case, LabelSet, Manifest, Slicing
from medseg_paddle.errors import DataError, RecipeError, SetupError
from medseg_paddle.steps.prepare import prepare, summary

MEDICAL = next(path for path in shipped_recipes() if path.stem == "unet_medical")
THREE = ("prepare.synthetic.patients=3",)
SECTION = """
prepare:
  sets:
    - {images: "images/*.png", labels: "labels/*.png"}
  val_fraction: 0.2
"""


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """What changes when any file below is written."""
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}


# --- what is said of it -----------------------------------------------------------------------------------


def manifest(reader: str, *slices: Slicing | None, patient: str | None = None) -> Manifest:
    cases = tuple(
        Case(id=f"{k}", image=Path(f"/d/{k}.png"), patient=f"p{k % 2}", slicing=one)
        for k, one in enumerate(slices)
    )
    source = {"prepare": {"reader": reader, "patient": patient}}
    return Manifest("m", LabelSet.generic(2), {"train": cases}, Path("/d"), source=source)


def axial(spacing: float, units: str = "HU", plane: str = "axial") -> Slicing:
    return Slicing(plane, (spacing, 0.7), units)


def test_images_that_are_counted_as_patients_are_said_to_be():
    counted, why = summary(manifest("pairs", None, None, None))
    assert counted == "train: 3 images"
    assert why.startswith("each image is counted as a patient of its own; set `patient`")
    assert "each volume is counted" in "".join(summary(manifest("nifti", axial(1), axial(1))))


@pytest.mark.parametrize(
    "made", [manifest("pairs", None, None, None, patient="(p)"), manifest("dicom", *[axial(1)] * 3)]
)
def test_patients_that_are_known_are_counted(made):
    assert summary(made)[0] == "train: 3 images of 2 patients"
    assert "counted as" not in "".join(summary(made))


def test_plane_spacing_and_units_stand_on_one_line():
    *_, line = summary(manifest("dicom", axial(0.6), axial(0.75), axial(0.88)))
    assert line == "slices: axial, pixels of 0.6 to 0.88 mm x 0.7 mm (rows x columns), units HU"


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ((axial(0.91),), "spacings differ by more than half"),
        ((Slicing("axial", (0.6, 0.4), "HU"),), "spacings differ by more than half"),
        ((axial(0.6, plane="coronal"),), "slices in 2 planes"),
        ((axial(0.6, units="arbitrary"),), "one window cannot serve CT"),
    ],
)
def test_what_makes_a_training_doubtful_is_warned_of(others, words):
    *_, line = summary(manifest("dicom", axial(0.6), *others))
    assert line.startswith("warning: ")
    assert words in line


def test_unknown_units_beside_known_ones_are_no_cause_for_a_warning():
    assert "warning" not in "".join(summary(manifest("dicom", axial(1), axial(1, units="unknown"))))


def test_the_command_prints_it(recipe, discs, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["prepare", str(discs), "--config", str(recipe), "--output", str(tmp_path / "made")])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert "each image is counted as a patient of its own" in said
    assert "patients" not in said


# --- a named folder ---------------------------------------------------------------------------------------


@pytest.fixture
def recipe(disc_recipe_file) -> Path:
    """A recipe that reads the pictures of :func:`discs`."""
    disc_recipe_file.write_text(disc_recipe_file.read_text() + SECTION)
    return disc_recipe_file


@pytest.fixture
def made(recipe, discs, tmp_path) -> Path:
    """The data set of :func:`recipe`; nothing was there, so that `keep` made it."""
    prepare(recipe, discs, output=tmp_path / "made", keep=True)
    return tmp_path / "made"


def keep(recipe: Path, source: Path, made: Path, *overrides: str) -> Manifest:
    return prepare(recipe, source, output=made, overrides=overrides, keep=True)


def refused(recipe: Path, source: Path, made: Path, *overrides: str) -> str:
    before = state(made)
    with pytest.raises(DataError) as caught:
        keep(recipe, source, made, *overrides)
    assert "--overwrite" in caught.value.hint
    assert state(made) == before
    return caught.value.message


def test_what_is_prepared_is_kept_and_said_so(recipe, discs, made, capsys):
    before = state(made)
    assert keep(recipe, discs, made) == Manifest.load(made)
    assert f"{made} is prepared already" in capsys.readouterr().out
    assert state(made) == before


def test_a_copy_of_the_source_elsewhere_is_the_same_source(recipe, discs, made, tmp_path):
    before = state(made)
    copy = shutil.copytree(discs, tmp_path / "mounted", copy_function=shutil.copyfile)
    keep(recipe, copy, made)
    assert state(made) == before


def test_added_removed_and_changed_files_are_counted_with_an_example(recipe, discs, made):
    for kind in ("images", "labels"):
        (discs / kind / "val0.png").unlink()
        (discs / kind / "val1.png").rename(discs / kind / "new.png")
    picture = discs / "images" / "test0.png"
    Image.open(picture).transpose(Image.Transpose.ROTATE_180).save(picture)
    said = refused(recipe, discs, made)
    assert "2 files (images/new.png, ...) added" in said
    assert "4 files (images/val0.png, ...) removed" in said
    assert "1 file (images/test0.png) changed" in said


def test_a_change_that_keeps_the_size_is_found_by_its_time_and_the_reverse(recipe, discs, made):
    label = discs / "labels" / "test0.png"
    before, content = label.stat().st_mtime_ns, label.read_bytes()
    label.write_bytes(content[:-1] + b"x")
    os.utime(label, ns=(0, 0))
    assert "1 file (labels/test0.png) changed" in refused(recipe, discs, made)
    label.write_bytes(content + b"x")
    os.utime(label, ns=(before, before))
    assert "1 file (labels/test0.png) changed" in refused(recipe, discs, made)


def test_other_settings_and_classes_are_named(recipe, discs, made):
    said = refused(recipe, discs, made, "prepare.val_fraction=0.3", "labels=[background, cup]")
    assert "`val_fraction` was 0.2, is 0.3" in said
    assert "classes are background, disc, now background, cup" in said
    assert "file" not in said


def test_other_codes_and_colours_of_the_same_classes_are_no_reason_to_prepare_again(recipe, discs, made):
    before = state(made)
    codes = "{category: [91723000, SCT, Anatomical Structure], type: [81016008, SCT, Optic nerve head]}"
    keep(recipe, discs, made, f"codes.disc={codes}", "colors.disc=[1, 2, 3]")
    assert state(made) == before


def test_a_data_set_that_lacks_files_is_not_kept(recipe, discs, made):
    next((made / "labels").iterdir()).unlink()
    assert "lacks 1 file (labels/" in refused(recipe, discs, made)
    (made / "val_list.txt").unlink()
    assert "lacks 2 files" in refused(recipe, discs, made)


def test_a_data_set_of_an_earlier_version_is_not_kept(recipe, discs, made):
    raw = json.loads((made / "manifest.json").read_text())
    raw["source"]["files"] = 22
    del raw["source"]["prepare"]["synthetic"]  # a key that came later is no difference
    (made / "manifest.json").write_text(json.dumps(raw))
    said = refused(recipe, discs, made)
    assert said.endswith("was made otherwise: by an earlier version, which did not note what it read")


def test_without_a_folder_a_data_set_of_somebody_s_images_is_kept_by_its_settings(
    recipe, discs, made, capsys
):
    (discs / "images" / "train0.png").unlink()
    before = state(made)
    assert keep(recipe, None, made) == Manifest.load(made)
    assert "not compared" in capsys.readouterr().out
    assert "`seed` was 0, is 1" in refused(recipe, None, made, "prepare.seed=1")
    assert state(made) == before


def test_a_data_set_of_somebody_s_images_is_never_taken_for_the_synthetic_one(first, tmp_path):
    own = tmp_path / "own"
    prepare(MEDICAL, first / "set-cohort", output=own, overrides=THREE)
    before = state(tmp_path)
    prepare(MEDICAL, output=own, overrides=THREE, keep=True)
    assert state(tmp_path) == before


def test_a_recipe_whose_data_set_has_lists_has_nothing_to_prepare(disc_recipe_file, discs):
    before = state(discs)
    manifest = prepare(disc_recipe_file, keep=True)
    assert {split: len(cases) for split, cases in manifest.splits.items()} == {
        "train": 6,
        "val": 3,
        "test": 2,
    }
    assert state(discs) == before


def test_something_else_is_neither_kept_nor_replaced(recipe, discs, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").touch()
    with pytest.raises(SetupError, match="no data set"):
        keep(recipe, discs, tmp_path / "thesis")


def test_to_keep_and_to_overwrite_exclude_each_other(recipe, discs, made):
    before = state(made)
    with pytest.raises(RecipeError, match="exclude each other"):
        prepare(recipe, discs, output=made, keep=True, overwrite=True)
    assert state(made) == before


def test_a_recipe_without_synthetic_patients_needs_a_folder(recipe, tmp_path):
    with pytest.raises(RecipeError) as caught:
        prepare(recipe, output=tmp_path / "made")
    assert "name the folder" in caught.value.hint
    assert not (tmp_path / "made").exists()


# --- synthetic patients -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """Folder with ``set`` and ``set-cohort``, as made where nothing was."""
    folder = tmp_path_factory.mktemp("synthetic")
    prepare(MEDICAL, output=folder / "set", overrides=THREE, keep=True)
    return folder


@pytest.fixture
def synthetic(first, tmp_path) -> Path:
    """A copy of :func:`first`, times and all."""
    return shutil.copytree(first, tmp_path / "work")


def test_without_a_folder_the_synthetic_patients_are_prepared(first):
    assert sorted(path.name for path in first.iterdir()) == ["set", "set-cohort"]
    names = ["PHANTOM-001", "PHANTOM-002", "PHANTOM-003"]
    assert sorted(path.name for path in (first / "set-cohort").iterdir() if path.is_dir()) == names
    manifest = Manifest.load(first / "set")
    assert sorted({case.patient for cases in manifest.splits.values() for case in cases}) == names
    assert manifest.source["prepare"]["synthetic"] == {"patients": 3, "seed": 42}


def test_a_named_folder_comes_before_the_synthetic_patients(first, tmp_path):
    manifest = prepare(MEDICAL, first / "set-cohort", output=tmp_path / "own")
    assert [path.name for path in tmp_path.iterdir()] == ["own"]
    assert manifest.source["prepare"]["synthetic"] is None
    assert manifest.fingerprints == Manifest.load(first / "set").fingerprints


def test_synthetic_patients_are_kept_too(synthetic):
    before = state(synthetic)
    prepare(MEDICAL, output=synthetic / "set", overrides=THREE, keep=True)
    assert state(synthetic) == before


def test_a_lost_cohort_comes_back_the_same(synthetic):
    shutil.rmtree(synthetic / "set-cohort")
    before = state(synthetic / "set")
    prepare(MEDICAL, output=synthetic / "set", overrides=THREE, keep=True)
    assert (synthetic / "set-cohort" / "PHANTOM-003").is_dir()
    assert state(synthetic / "set") == before


@pytest.mark.parametrize("change", ["patients=2", "seed=41"])
def test_other_synthetic_patients_are_refused(synthetic, change):
    before = state(synthetic)
    overrides = (*THREE, f"prepare.synthetic.{change}")
    with pytest.raises(DataError) as caught:
        prepare(MEDICAL, output=synthetic / "set", overrides=overrides, keep=True)
    assert 'set-cohort was made with {"patients": 3, "seed": 42}' in caught.value.message
    assert "--overwrite" in caught.value.hint
    assert state(synthetic) == before
    shutil.rmtree(synthetic / "set-cohort")
    with pytest.raises(DataError, match=r'`synthetic` was \{"patients": 3, "seed": 42\}, is'):
        prepare(MEDICAL, output=synthetic / "set", overrides=overrides, keep=True)


def test_without_a_word_neither_cohort_nor_data_set_is_replaced(synthetic):
    before = state(synthetic)
    with pytest.raises(SetupError, match=r"set is there already"):
        prepare(MEDICAL, output=synthetic / "set", overrides=THREE)
    shutil.rmtree(synthetic / "set")
    with pytest.raises(SetupError, match="set-cohort is there already"):
        prepare(MEDICAL, output=synthetic / "set", overrides=THREE)
    assert state(synthetic).items() <= before.items()


def test_both_are_replaced_when_told_to(synthetic):
    prepare(MEDICAL, output=synthetic / "set", overrides=(*THREE, "prepare.synthetic.seed=1"), overwrite=True)
    assert json.loads((synthetic / "set-cohort" / "phantom.json").read_text()) == {"patients": 3, "seed": 1}
    assert Manifest.load(synthetic / "set").source["prepare"]["synthetic"]["seed"] == 1


def test_a_refused_place_leaves_no_cohort_behind(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis").touch()
    for options in ({"keep": True}, {"overwrite": True}, {}):
        with pytest.raises(SetupError, match="no data set"):
            prepare(MEDICAL, output=tmp_path / "set", overrides=THREE, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("reader", ["pairs", "nifti"])
def test_synthetic_patients_are_for_the_dicom_reader(reader):
    rules = {
        "reader": reader,
        "sets": [{"split": "train", "images": "a", "labels": "b"}],
        "synthetic": {"patients": 3},
        **({"window": {"level": 0, "width": 1}} if reader == "nifti" else {}),
    }
    with pytest.raises(ValidationError, match="synthetic"):
        PrepareSpec.model_validate(rules)
