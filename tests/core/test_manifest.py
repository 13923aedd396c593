"""A manifest is a file from elsewhere: what it names must stay inside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medseg_paddle.core import Case, LabelSet, Manifest, Slicing
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


def test_how_slices_were_cut_is_kept_in_the_file(tmp_path):
    slicing = Slicing("sagittal", (0.5, 3.0), "HU")
    cases = Case(id="x", image=tmp_path / "x.png", slicing=slicing), Case(id="y", image=tmp_path / "y.png")
    (tmp_path / "manifest.json").write_text(manifest(*cases, root=tmp_path).to_json())
    assert [case.slicing for case in Manifest.load(tmp_path).splits["train"]] == [slicing, None]


def test_a_manifest_of_another_version_is_refused(tmp_path):
    raw = json.loads(manifest(root=tmp_path).to_json())
    (tmp_path / "manifest.json").write_text(json.dumps({**raw, "version": 1}))
    with pytest.raises(DataError, match="manifest version 1, this program reads 2") as caught:
        Manifest.load(tmp_path)
    assert "prepare the data again" in caught.value.hint
