"""What a dry run and a preparation say of patients that nobody named, near duplicates, and names that are not ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy import ndimage

from medseg_paddle.cli import main
from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import LabelSet
from medseg_paddle.steps.dataset import write_dataset
from medseg_paddle.steps.dry_run import dry_run
from medseg_paddle.steps.prepare import summary
from medseg_paddle.steps.progress import ProgressBar

TWO = LabelSet.generic(2)
SECTION = {"sets": [{"images": "images/*.png", "labels": "labels/*.png"}], "val_fraction": 0.34}
ALONE = "each image is counted as a patient of its own"


def folder(root: Path, *names: str, alike: bool = False) -> Path:
    for seed, name in enumerate(names):
        noise = np.random.default_rng(0 if alike else seed).normal(size=(48, 48))
        image = np.clip(128 + 400 * ndimage.gaussian_filter(noise, 2), 0, 255).astype(np.uint8)
        label = np.zeros((48, 48), np.uint8)
        label[10:20, 10:20] = 1
        for kind, array in (("images", image), ("labels", label)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / kind / f"{name}.png")
    return root


def said(source: Path, **changes: Any) -> list[str]:
    found = dry_run(PrepareSpec.model_validate(SECTION | changes), source=source, labels=TWO)
    assert found.problems == ()
    return list(found.lines)


def test_a_dry_run_proposes_the_patients_that_the_names_suggest(tmp_path):
    source = folder(tmp_path, *(f"P{patient}_{number:03d}" for patient in range(3) for number in range(2)))
    lines = said(source)
    assert any(line.startswith(ALONE) for line in lines)
    assert not any("patients" in line for line in lines if line.startswith(("train", "  val", " test")))
    (line,) = [line for line in lines if "may be 3 patients" in line]
    pattern = line.split("`patient: '")[1].removesuffix("'`")
    lines = said(source, patient=pattern)
    assert "train: 4 images of 4 cases, 2 patients" in lines
    assert not any(line.startswith((ALONE, "warning")) for line in lines)


@pytest.mark.parametrize("names", ["img_0 img_1 img_2", "a1 b_2 c-3 4", "P0_1 P1_1 P2_1"])
def test_no_patients_are_proposed_where_the_names_suggest_none(tmp_path, names):
    lines = said(folder(tmp_path, *names.split()))
    assert any(line.startswith(ALONE) for line in lines)
    assert not any("may be" in line for line in lines)


def test_a_dry_run_warns_of_near_duplicates_as_the_preparation_does(tmp_path):
    source = folder(tmp_path / "in", *"abcd", alike=True)
    (line,) = [line for line in said(source) if "nearly the same" in line]
    made = write_dataset(
        PrepareSpec.model_validate(SECTION),
        source=source,
        destination=tmp_path / "out",
        labels=TWO,
        name="set",
    )
    assert line in summary(made)
    assert not any("nearly the same" in line for line in said(folder(tmp_path / "other", *"abcd")))


@pytest.mark.parametrize("share", [{}, {"folds": 2, "val_fraction": 0}])
def test_a_table_of_patients_is_what_counts(tmp_path, share):
    source = folder(tmp_path / "in", *"abcdef")
    (source / "who.csv").write_text(
        "image,who\n" + "".join(f"{name},p{ord(name) // 2}\n" for name in "abcdef")
    )
    section = SECTION | share | {"table": {"file": "who.csv", "id": "image", "patient": "who"}}
    assert not any(line.startswith(ALONE) for line in said(source, **section))
    made = write_dataset(
        PrepareSpec.model_validate(section),
        source=source,
        destination=tmp_path / "out",
        labels=TWO,
        name="set",
    )
    lines = summary(made)
    assert not any(line.startswith(ALONE) for line in lines)
    assert all("patients" in line for line in lines if line.startswith(("train", "  val", "fold")))


# --- names that are not ours ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [("甲", "乙", "丙"), ("\u0431\u0432", "é", "x"), tuple("x" * 240 + one for one in "abc")]
)
def test_names_that_make_no_file_name_get_one(tmp_path, names):
    source = folder(tmp_path / "in", *names)
    spec = PrepareSpec.model_validate(SECTION)
    made = write_dataset(spec, source=source, destination=tmp_path / "out", labels=TWO, name="set")
    again = write_dataset(spec, source=source, destination=tmp_path / "again", labels=TWO, name="set")
    cases = [case for cases in made.splits.values() for case in cases]
    assert len({case.id for case in cases}) == 3
    assert all(case.id.isascii() and len(case.id) < 200 and case.image.is_file() for case in cases)
    assert {case.id for case in cases} == {case.id for cases in again.splits.values() for case in cases}
    assert {case.patient for case in cases} == {name.strip() for name in names}


def test_many_problems_of_one_kind_are_told_together(tmp_path):
    for part in "AB":
        folder(tmp_path / part, *(f"{number}" for number in range(40)))
    for number in range(30):
        (tmp_path / "A" / "images" / f"{number}.png").write_bytes(b"no picture")
    sets = [{"images": "*/images/*.png", "labels": "*/labels/*.png"}]
    found = dry_run(PrepareSpec.model_validate(SECTION | {"sets": sets}), source=tmp_path, labels=TWO)
    (equal,) = [one.message for one in found.problems if "images/0.png have the same key '0'" in one.message]
    assert "and so have the files of 39 more keys" in equal
    assert len(found.problems) == 32
    lines = str(found).splitlines()
    assert any(line == "problems up to 32: 25 more of this kind" for line in lines)
    assert sum(line.startswith("problem ") for line in lines) == 7
    assert sum("is not a PNG" in line for line in lines) == 5


def test_links_out_of_the_folder_are_said(tmp_path):
    source = folder(tmp_path / "in", *"abc")
    assert not any("links out" in line for line in said(source))
    for kind in ("images", "labels"):
        (source / kind / "a.png").rename(tmp_path / f"{kind}.png")
        (source / kind / "a.png").symlink_to(tmp_path / f"{kind}.png")
    assert any(line.startswith("  2 files are links out of the folder") for line in said(source))


def test_a_terminal_never_gets_control_characters_of_names(tmp_path, capsys, disc_recipe_file):
    source = folder(tmp_path / "in", "b\x1b[31mred\x9b2", "c", "d")
    (source / "labels" / "b\x1b[31mred\x9b2.png").unlink()
    disc_recipe_file.write_text(disc_recipe_file.read_text() + yaml.safe_dump({"prepare": SECTION}))
    for words in (["--dry-run"], ["--output", str(tmp_path / "out")]):
        with pytest.raises(SystemExit):
            main(["prepare", str(source), "--config", str(disc_recipe_file), *words])
        told = "".join(capsys.readouterr())
        assert "b\\x1b[31mred\\x9b2.png" in told
        assert "\x1b" not in told
        assert "\x9b" not in told


def test_what_is_said_above_a_bar_has_no_control_characters(capsys):
    with ProgressBar("preparing", 1) as bar:
        bar.say("left out: a\x1b]0;title\x07.png")
        bar.advance(1, 1, "a\x1b[2J.png")
    told = capsys.readouterr().out
    assert "a\\x1b]0;title\\x07.png" in told
    assert "a\\x1b[2J.png" in told
    assert "\x1b" not in told
