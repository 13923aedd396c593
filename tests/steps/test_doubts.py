"""What a dry run and a preparation say of patients that nobody named and of pictures that are nearly the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import LabelSet
from medseg_paddle.steps.dataset import write_dataset
from medseg_paddle.steps.dry_run import dry_run
from medseg_paddle.steps.prepare import summary

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
