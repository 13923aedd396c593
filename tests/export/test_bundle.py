from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from medseg_paddle.bundle import Bundle, ParityError
from medseg_paddle.core import Acquisition, LabelSet, SpacingRange
from medseg_paddle.core.concepts import concept_of
from medseg_paddle.description import Parity
from medseg_paddle.errors import ModelError, SetupError

FILES = (
    "bundle.json",
    "model.json",
    "model.pdiparams",
    "sample/input.npy",
    "sample/output.npy",
)
GOOD = Parity(((1, 1, 48, 64),), 1e-6, 0.0)


def reseal(folder: Path) -> None:
    """Write checksums anew, as a person who edits a bundle on purpose would."""
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}" for n in FILES]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def fill(draft, parity: Parity = GOOD, classes: int = 2) -> None:
    for suffix in (".json", ".pdiparams"):
        draft.graph_prefix.with_suffix(suffix).write_bytes(b"x")
    draft.accept(parity, np.zeros((4, 5, 1), np.float32), np.zeros((classes, 4, 5), np.float32))


def test_a_bundle_says_what_was_put_into_it(tmp_path, description):
    said = description(
        name="künstlich",
        window=None,
        labels=LabelSet.from_names(["background", "tumour"]).described(
            {"tumour": concept_of("kidney tumour")}, {"tumour": (1, 2, 3)}
        ),
        trained_on=Acquisition(
            ("axial", "oblique"), ("HU",), SpacingRange(0.5, 0.7, 0.9), SpacingRange(1, 1, 1)
        ),
    )
    with Bundle.create(tmp_path / "b", said) as draft:
        fill(draft)
    opened = Bundle.open(tmp_path / "b")
    assert opened.description == said
    assert opened.parity == GOOD
    assert opened.sample()[1].shape == (2, 4, 5)


def test_the_checksums_are_what_sha256sum_reads(exported):
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=exported, check=True)
    names = {p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.is_file()}
    assert names == {*FILES, "SHA256SUMS"}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, -1])
def test_one_changed_byte_is_noticed(bundle, name, place):
    data = bytearray((bundle / name).read_bytes())
    data[place] ^= 1
    (bundle / name).write_bytes(bytes(data))
    with pytest.raises(ModelError, match=f"{name} changed since the export") as caught:
        Bundle.open(bundle)
    assert "export the run again" in caught.value.hint


@pytest.mark.parametrize("name", [*FILES, "SHA256SUMS"])
def test_a_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(ModelError, match=name):
        Bundle.open(bundle)


def test_a_file_too_many_is_named(bundle):
    (bundle / "sample" / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match=r"do not belong.*sample/notes\.txt"):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_link_is_refused_even_to_the_same_bytes(bundle, tmp_path, name):
    (bundle / name).rename(tmp_path / "elsewhere")
    (bundle / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="link"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    "name", ["../outside.bin", "/etc/hostname", "sample/../../outside.bin", "..\\outside.bin"]
)
def test_checksums_that_point_outside_are_refused(bundle, tmp_path, name):
    (tmp_path / "outside.bin").write_bytes(b"secret")
    line = f"{hashlib.sha256(b'secret').hexdigest()}  {name}\n"
    (bundle / "SHA256SUMS").write_text((bundle / "SHA256SUMS").read_text() + line)
    with pytest.raises(ModelError, match="not valid"):
        Bundle.open(bundle)


@pytest.mark.parametrize("version", [1, 99])
def test_a_bundle_of_another_version_is_refused_by_name(bundle, version):
    content = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**content, "version": version}))
    reseal(bundle)
    with pytest.raises(ModelError, match=f"version {version}, this program reads versions 2 and 3") as caught:
        Bundle.open(bundle)
    assert "export the run again" in caught.value.hint


@pytest.mark.parametrize(
    "broken",
    [
        "not json",
        "[]",
        '{"version": 2}',
        '{"version": 3}',
        lambda c: {**c, "labels": [{"index": 5, "name": "x", "color": [0, 0, 0]}]},
        lambda c: {**c, "preprocessing": [{"type": "Sharpen"}]},
        lambda c: {**c, "plan": {**c["plan"], "overlap": 2}},
        lambda c: {**c, "window": {"level": 0}},
        lambda c: {**c, "trained_on": {"planes": ["axial"]}},
        lambda c: {**c, "dimensions": 3},
        lambda c: {**c, "dimensions": 4},
        lambda c: {**c, "plan": {**c["plan"], "tile": [16, 16, 16]}},
        lambda c: {key: value for key, value in c.items() if key != "postprocessing"},
        lambda c: {**c, "postprocessing": [{"type": "KeepLargest", "classes": ["liver"]}]},
    ],
)
def test_a_description_that_makes_no_sense_is_a_model_error(bundle, broken):
    path = bundle / "bundle.json"
    path.write_text(broken if isinstance(broken, str) else json.dumps(broken(json.loads(path.read_text()))))
    reseal(bundle)
    with pytest.raises(ModelError, match=r"bundle\.json is not readable"):
        Bundle.open(bundle)


def test_a_bundle_of_version_2_is_one_of_pictures_without_postprocessing(bundle, description):
    """As programs wrote it before there were 3-D models."""
    content = json.loads((bundle / "bundle.json").read_text())
    assert (content["version"], content["dimensions"]) == (3, 2)
    for key in (
        *("dimensions", "postprocessing", "channel_windows", "picture_windows", "files_per_case", "members"),
    ):
        content.pop(key)
    for key in ("mirror", "rotate90", "skip_below"):
        content["plan"].pop(key)
    (bundle / "bundle.json").write_text(json.dumps({**content, "version": 2}))
    reseal(bundle)
    assert Bundle.open(bundle).description == description()


def test_the_id_changes_with_any_content(bundle):
    before = Bundle.open(bundle).id
    content = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**content, "name": "other"}))
    reseal(bundle)
    assert Bundle.open(bundle).id != before


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_what_is_no_bundle_is_said_so(tmp_path, path):
    with pytest.raises(ModelError, match="not a bundle"):
        Bundle.open(tmp_path / path)


@pytest.mark.parametrize(
    "parity", [Parity(GOOD.shapes, 2e-4, 0.0), Parity(GOOD.shapes, float("nan"), 0.0), Parity((), 0.0, 0.0)]
)
def test_beyond_the_tolerance_nothing_is_left_on_disk(tmp_path, parity, description):
    with pytest.raises(ParityError) as caught, Bundle.create(tmp_path / "b", description()) as draft:
        fill(draft, parity)
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_the_tolerance_itself_is_accepted(tmp_path, description):
    with Bundle.create(tmp_path / "b", description(tolerance=2e-4)) as draft:
        fill(draft, Parity(GOOD.shapes, 2e-4, 0.0))
    assert Bundle.open(tmp_path / "b").description.tolerance == 2e-4


def test_a_graph_with_other_classes_than_the_labels_is_refused(tmp_path, description):
    with pytest.raises(ModelError, match="3 classes"), Bundle.create(tmp_path / "b", description()) as draft:
        fill(draft, classes=3)
    assert list(tmp_path.iterdir()) == []


def test_an_older_bundle_is_replaced_only_when_asked(bundle, description):
    before = Bundle.open(bundle).id
    with pytest.raises(SetupError), Bundle.create(bundle, description()) as draft:
        fill(draft)
    assert Bundle.open(bundle).id == before
    with pytest.raises(ParityError), Bundle.create(bundle, description(), overwrite=True) as draft:
        fill(draft, Parity(GOOD.shapes, 1.0, 1.0))
    assert Bundle.open(bundle).id == before
    with Bundle.create(bundle, description(name="new"), overwrite=True) as draft:
        fill(draft)
    assert Bundle.open(bundle).description.name == "new"


def test_a_folder_of_something_else_is_never_replaced(tmp_path, description):
    (tmp_path / "thesis.tex").write_text("years of work")
    new = Bundle.create(tmp_path, description(), overwrite=True)
    with pytest.raises(SetupError, match="not a bundle"), new as draft:
        fill(draft)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("name", ["thesis.tex", "sample/notes.txt", ".hidden", "link"])
def test_files_that_somebody_put_into_a_bundle_are_never_replaced(bundle, tmp_path, description, name):
    if name == "link":
        (bundle / name).symlink_to(tmp_path)
    else:
        (bundle / name).write_text("years of work")
    new = Bundle.create(bundle, description(), overwrite=True)
    with pytest.raises(SetupError, match=f"do not belong to the bundle: {name}") as caught, new as draft:
        fill(draft)
    assert "move them" in caught.value.hint
    assert (bundle / name).exists()
