"""A manifest is a file from elsewhere: what it names must stay inside."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from medseg_paddle.core import Case, LabelSet, Manifest, Slicing, Within
from medseg_paddle.core.concepts import concept_of
from medseg_paddle.errors import DataError

LABELS = LabelSet.from_names(("background", "disc"))


def manifest(*cases: Case, root: Path = Path("/data")) -> Manifest:
    return Manifest(name="m", labels=LABELS, splits={"train": cases}, root=root)


BAD = ["", ".", "/etc/x", "../x", "a/../../x", "a/..", "a\\b", "..\\x", "C:/x", "C:x", "a\0b"]


@pytest.mark.parametrize("name", BAD)
def test_an_id_that_leads_outside_is_refused(name):
    with pytest.raises(DataError, match="cannot name a case"):
        manifest(Case(id=name, image=Path("/data/x.png")))


@pytest.mark.parametrize("name", [name for name in BAD if name])
def test_a_volume_that_leads_outside_is_refused(name):
    with pytest.raises(DataError, match="cannot name a case"):
        manifest(Case(id="x", image=Path("/data/x.png"), volume=name))


@pytest.mark.parametrize("name", ["x", "images/x", "scan..2", ".hidden", "Grüße 1", "a.b-c_d"])
def test_ordinary_names_are_taken(name):
    (case,) = manifest(Case(id=name, image=Path("/data/x.png"), volume=name)).splits["train"]
    assert (case.id, case.group) == (name, name)


@pytest.mark.parametrize(("key", "value"), [("id", "../../x"), ("volume", "/x"), ("id", 7), ("volume", 7)])
def test_a_foreign_manifest_file_with_such_a_name_is_refused(tmp_path, key, value):
    good = manifest(Case(id="x", image=tmp_path / "x.png"), root=tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(good.to_json())
    assert Manifest.load(path).splits["train"][0].id == "x"
    raw = json.loads(good.to_json())
    raw["splits"]["train"][0][key] = value
    path.write_text(json.dumps(raw))
    with pytest.raises(DataError):
        Manifest.load(tmp_path)


def test_what_classes_mean_is_kept_in_the_file(tmp_path):
    labels = LABELS.described({"disc": concept_of("cyst of the left kidney")}, {"disc": (1, 2, 3)})
    made = replace(manifest(root=tmp_path), labels=labels)
    (tmp_path / "manifest.json").write_text(made.to_json())
    assert Manifest.load(tmp_path).labels == labels


def test_how_slices_were_cut_is_kept_in_the_file(tmp_path):
    slicing = Slicing("sagittal", (0.5, 3.0), "HU", Within(3, 17, 1.25))
    cases = Case(id="x", image=tmp_path / "x.png", slicing=slicing), Case(id="y", image=tmp_path / "y.png")
    (tmp_path / "manifest.json").write_text(manifest(*cases, root=tmp_path).to_json())
    assert [case.slicing for case in Manifest.load(tmp_path).splits["train"]] == [slicing, None]
    raw = json.loads((tmp_path / "manifest.json").read_text())
    entry = raw["splits"]["train"][0]["slicing"]
    entry["within"]["spacing"] = 0
    (tmp_path / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(DataError, match="spacing"):
        Manifest.load(tmp_path)
    del entry["within"]  # as earlier versions wrote it
    (tmp_path / "manifest.json").write_text(json.dumps(raw))
    assert Manifest.load(tmp_path).splits["train"][0].slicing == replace(slicing, within=None)


def test_a_manifest_of_another_version_is_refused(tmp_path):
    raw = json.loads(manifest(root=tmp_path).to_json())
    (tmp_path / "manifest.json").write_text(json.dumps({**raw, "version": 1}))
    with pytest.raises(DataError, match="manifest version 1, this program reads 2") as caught:
        Manifest.load(tmp_path)
    assert "prepare the data again" in caught.value.hint


# --- patients, centres and folds --------------------------------------------------------------------------


def in_folds(root: Path = Path("/data"), **splits: list[tuple[str, str, int | None]]) -> Manifest:
    """A manifest of (id, patient, fold) by split."""
    cases = {
        split: tuple(
            Case(id=name, image=root / f"{name}.png", patient=patient, fold=fold, center=patient.upper())
            for name, patient, fold in own
        )
        for split, own in splits.items()
    }
    return Manifest(name="m", labels=LABELS, splits=cases, root=root)


FOLDED = {
    "train": [("b1", "b", 1), ("c1", "c", 2), ("x", "x", None), ("b2", "b", 1)],
    "val": [("a1", "a", 0), ("a2", "a", 0)],
    "test": [("t", "t", None)],
}


@pytest.mark.parametrize(
    ("fold", "train", "val"),
    [
        (None, "b1 c1 x b2", "a1 a2"),
        (0, "b1 c1 x b2", "a1 a2"),
        (1, "c1 x a1 a2", "b1 b2"),
        (2, "b1 x b2 a1 a2", "c1"),
    ],
)
def test_each_fold_is_the_validation_set_in_turn(fold, train, val):
    made = in_folds(**FOLDED)
    assert made.folds == (0, 1, 2)
    names = {
        split: " ".join(case.id for case in made.cases(split, fold)) for split in ("train", "val", "test")
    }
    assert names == {"train": train, "val": val, "test": "t"}


def test_folds_and_centres_are_kept_in_the_file(tmp_path):
    made = in_folds(tmp_path, **FOLDED)
    (tmp_path / "manifest.json").write_text(made.to_json())
    assert Manifest.load(tmp_path) == made


def test_a_file_of_the_first_release_has_neither(tmp_path):
    raw = json.loads(in_folds(tmp_path, **FOLDED).to_json())
    for cases in raw["splits"].values():
        for case in cases:
            del case["fold"], case["center"]
    (tmp_path / "manifest.json").write_text(json.dumps(raw))
    made = Manifest.load(tmp_path)
    assert made.folds == ()
    assert {(case.fold, case.center) for cases in made.splits.values() for case in cases} == {(None, "")}


@pytest.mark.parametrize("fold", [-1, 1.5, "1", True])
def test_a_fold_that_is_no_number_is_refused(tmp_path, fold):
    raw = json.loads(in_folds(tmp_path, **FOLDED).to_json())
    raw["splits"]["train"][0]["fold"] = fold
    (tmp_path / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(DataError, match="is not a manifest"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        (
            {"train": [("1", "p", None)], "test": [("2", "p", None)]},
            "patient 'p' is in both 'train' and 'test'",
        ),
        ({"train": [("1", "p", 1), ("2", "p", 2)]}, "patient 'p' is in both fold 1 and 2"),
        ({"train": [("1", "p", 1), ("2", "p", None)]}, "patient 'p' is in both fold 1 and None"),
        ({"val": [("1", "p", 0)], "train": [("2", "p", 1)]}, "patient 'p' is in both 'val' and 'train'"),
        ({"train": [("1", "p", 1)], "test": [("2", "q", 0)]}, "test case '2' is in fold 0"),
        ({"train": [("1", "p", 1)], "val": [("2", "q", None)]}, "validation case '2' is in no fold"),
    ],
)
def test_a_cut_patient_and_a_leak_between_folds_are_refused(splits, words):
    with pytest.raises(DataError) as caught:
        in_folds(**splits)
    assert words in caught.value.message


@pytest.mark.parametrize(("one", "other"), [(("train", None), ("test", None)), (("val", 0), ("train", 1))])
def test_slices_of_one_volume_stay_together_also_where_nobody_names_a_patient(one, other):
    splits = {
        split: (Case(id=split, image=Path(f"/data/{split}.png"), volume="ct", fold=fold),)
        for split, fold in (one, other)
    }
    with pytest.raises(DataError, match="volume 'ct' is in both"):
        Manifest(name="m", labels=LABELS, splits=splits, root=Path("/data"))


@pytest.mark.parametrize(
    ("splits", "words"), [(FOLDED, "the folds 0 to 2"), ({"train": [("1", "p", None)]}, "no folds")]
)
def test_a_fold_that_is_not_there_is_refused(splits, words):
    with pytest.raises(DataError) as caught:
        in_folds(**splits).cases("train", 3)
    assert f"has {words}, the recipe names fold 3" in caught.value.message
