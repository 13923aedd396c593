"""The demo: its steps in a folder with an odd name, and its volumes from DICOM to DICOM."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest

from medseg_paddle.config import Recipe, load_recipe
from medseg_paddle.config.shipped import shipped_recipes
from medseg_paddle.core import LabelMap, LabelSet
from medseg_paddle.io.dicom import load_series
from medseg_paddle.io.dicom_reference import read_reference
from medseg_paddle.io.dicom_seg_out import write_segmentation
from medseg_paddle.io.images import read_label
from medseg_paddle.metrics.overlap import CaseCounts
from medseg_paddle.metrics.report import Report
from medseg_paddle.phantom import write_phantom
from medseg_paddle.steps import demo as module
from medseg_paddle.steps.demo import demo, read_back


def perfect() -> CaseCounts:
    counts = CaseCounts(2, voxel_ml=1)
    counts.add(np.eye(4, dtype=np.uint8), np.eye(4, dtype=np.uint8), None, None)
    return counts


def stand_ins(recipes: list[Recipe]) -> dict[str, Any]:
    """For the steps, which have tests of their own; the recipes that are trained are noted."""

    def train(recipe: Recipe, output: Path, **_: Any) -> Any:
        recipes.append(recipe)
        return SimpleNamespace(path=output)

    def predict(_: Path, __: list[Path], output: Path, **___: Any) -> Any:
        results = (SimpleNamespace(files=("PHANTOM-001_ct_overlay.png", "PHANTOM-001_ct_seg.dcm")),)
        return SimpleNamespace(output=output, results=results, require_complete=lambda: None)

    return {
        "phantom": lambda folder, **_: [folder / "PHANTOM-001"],
        "prepare": lambda *_, **__: SimpleNamespace(splits={}),
        "train": train,
        "evaluate": lambda _: Report.from_counts({"patient": perfect()}, LabelSet.generic(2)),
        "export": lambda run, **_: SimpleNamespace(path=run / "bundle"),
        "predict": predict,
        "read_back": lambda *_: perfect().scores()[0],
    }


def test_it_works_in_any_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is one that YAML, a shell and rich would each read in their own way."""
    recipes: list[Recipe] = []
    for name, step in stand_ins(recipes).items():
        monkeypatch.setattr(module, name, step)
    monkeypatch.setenv("COLUMNS", "300")
    folder = tmp_path / "my #1: [bold]"
    demo(folder)
    out = capsys.readouterr().out
    commands = [
        shlex.split(line.strip().removeprefix("$ ")) for line in out.splitlines() if "$ medseg" in line
    ]
    job = ["prepare", "train", "evaluate", "export", "predict"]
    assert [words[1] for words in commands] == ["phantom", *job, *job]
    assert f"{len(commands)}/{len(commands)} " in out
    assert commands[0][2] == str(folder / "cohort")
    for recipe, (preparing, training, evaluating, exporting, predicting), suffix in zip(
        recipes, (commands[1:6], commands[6:]), ("", "-3d"), strict=True
    ):
        data, run = str(folder / f"dataset{suffix}"), str(folder / f"run{suffix}")
        assert recipe.train_dataset.dataset_root == recipe.val_dataset.dataset_root == data
        assert preparing[2] == str(folder / "cohort")
        overrides = [word for before, word in itertools.pairwise(training) if before == "--set"]
        assert load_recipe(training[training.index("--config") + 1], overrides) == recipe
        assert evaluating[2] == exporting[2] == run
        assert predicting[2] == str(Path(run) / "bundle")
        assert f" {Path(run) / 'evaluation' / 'test' / 'overlays'} " in out
    assert f" {folder / 'prediction-3d'} " in out
    assert " PHANTOM-001_ct_seg.dcm " in out
    assert "Dice 1.000" in out


def test_both_networks_see_the_same_patients_and_none_of_those_held_out() -> None:
    slices, volumes = (
        load_recipe(path) for path in shipped_recipes() if path.stem in ("unet_medical", "unet3d_phantom")
    )
    assert slices.dimensions + volumes.dimensions == 5
    assert slices.prepare is not None
    assert volumes.prepare is not None
    apart = {"volumes", "window", "synthetic"}
    assert slices.prepare.model_dump(exclude=apart) == volumes.prepare.model_dump(exclude=apart)


def test_its_volumes_go_from_dicom_to_a_seg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is real but what is done slice by slice."""
    for name, step in stand_ins([]).items():
        if name in ("phantom", "read_back"):
            continue
        monkeypatch.setattr(module, name, _in_2d(step, getattr(module, name)))
    monkeypatch.setattr(module, "_QUICK", ("prepare.synthetic.patients=4",))
    monkeypatch.setattr(
        module, "_QUICK_VOLUMES", (*module._QUICK_VOLUMES, "iters=2", "save_interval=2", "model_graph=false")
    )
    result = demo(tmp_path, quick=True)
    held_out = {row.case for row in result.volumes.rows}
    assert held_out
    assert held_out < {path.name for path in (tmp_path / "cohort").iterdir()}
    assert (tmp_path / "run-3d" / "evaluation" / "test" / "summary.json").is_file()

    images = [pydicom.dcmread(path) for path in (tmp_path / "unseen").rglob("*.dcm")]
    seg = highdicom.seg.segread(result.seg)
    assert seg.SeriesInstanceUID != images[0].SeriesInstanceUID
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == images[0].SeriesInstanceUID
    assert [one.SegmentLabel for one in seg.SegmentSequence] == ["tumour"]
    assert list(result.seg.parent.glob("*_report.dcm"))
    assert list(result.seg.parent.glob("*_key_*.dcm"))


def _in_2d(stand_in: Any, step: Any) -> Any:
    """The stand-in where a step is called for the network of slices, whose folders end otherwise, or else the step."""

    def chosen(first: Any, *others: Any, **options: Any) -> Any:
        volumes = (
            first.dimensions == 3
            if isinstance(first, Recipe)
            else "-3d" in str(getattr(first, "path", first))
        )
        return (step if volumes else stand_in)(first, *others, **options)

    return chosen


def test_what_a_seg_holds_is_compared_with_what_was_drawn(tmp_path: Path) -> None:
    (patient,) = write_phantom(tmp_path / "cohort", patients=1, seed=1, size=64)
    files = sorted((patient / "ct").iterdir())
    series = load_series(files)
    drawn = np.stack([read_label(patient / "mask" / f"{path.stem}.png") for path in series.paths])
    found = drawn.copy()
    half = np.flatnonzero(found)[::2]
    found.flat[half] = 0
    labels = LabelMap(found, series.volume.geometry, LabelSet.from_names(["background", "tumour"]))
    write_segmentation(tmp_path / "seg.dcm", labels, read_reference(files), algorithm=None)
    scores = read_back(tmp_path / "seg.dcm", patient)
    both, one = int(found.sum()), int(drawn.sum())
    assert scores.dice == pytest.approx(2 * both / (both + one))
    assert scores.truth_ml == pytest.approx(one * np.prod(series.volume.geometry.spacing) / 1000)
