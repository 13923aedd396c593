"""From a folder to a data set with folds, centres and a table, and to what a training reads of it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medseg_paddle.config.datasets import EvalManifest, TrainManifest
from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import LabelSet, Manifest, Unit
from medseg_paddle.core.splitting import deal
from medseg_paddle.errors import DataError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.steps.dataset import write_dataset
from medseg_paddle.steps.dataset_origin import require_same_origin
from medseg_paddle.steps.prepare import summary

THREE = LabelSet.from_names(["background", "disc", "cup"])
AUTO = [{"images": "**/*_image.png", "labels": "**/*_label.png"}]
KEY = r"([^/]+)_(?:image|label)\.png$"


def texture(seed: int, side: int = 48) -> np.ndarray:
    """A picture unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    return np.clip(128 + 400 * ndimage.gaussian_filter(rng.normal(size=(side, side)), 2), 0, 255).astype(
        np.uint8
    )


def folder(root: Path, *names: str, classes: dict[str, int] | None = None) -> Path:
    """Pictures NAME_image.png of their own texture; labels hold class 1, or what `classes` says."""
    for seed, name in enumerate(names):
        path = root / f"{name}_image.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(texture(seed)).save(path)
        label = np.zeros((48, 48), np.uint8)
        label[10:20, 10:20] = (classes or {}).get(name, 1)
        Image.fromarray(label).save(root / f"{name}_label.png")
    return root


def rules(**changes: Any) -> PrepareSpec:
    return PrepareSpec.model_validate({"sets": AUTO, "key": KEY, **changes})


def run(source: Path, spec: PrepareSpec, destination: Path) -> Manifest:
    return write_dataset(spec, source=source, destination=destination, labels=THREE, name="set")


def read(root: Path, mode: str, fold: int | None = None) -> list[str]:
    kind = TrainManifest if mode == "train" else EvalManifest
    spec = kind(type="Manifest", dataset_root=str(root), mode=mode, transforms=(), fold=fold)
    return [case.id for case in load_cases(spec)]


def refused(source: Path, spec: PrepareSpec, destination: Path) -> str:
    with pytest.raises(DataError) as caught:
        run(source, spec, destination)
    assert not destination.exists()
    return str(caught.value)


# --- folds ------------------------------------------------------------------------------------------------


def test_every_fold_is_validated_on_once_and_never_cuts_a_patient(tmp_path):
    source = folder(tmp_path / "in", *[f"p{p}-{eye}" for p in range(11) for eye in "lr"])
    spec = rules(patient=r"(p\d+)-", center="(p)", folds=3, test_fraction=0.2, seed=4)
    made = run(source, spec, tmp_path / "out")
    test = read(tmp_path / "out", "test")
    seen = []
    for fold in (0, 1, 2):
        train, val = (read(tmp_path / "out", mode, fold) for mode in ("train", "val"))
        assert read(tmp_path / "out", "test", fold) == test
        assert sorted([*train, *val, *test]) == sorted(f"p{p}-{eye}" for p in range(11) for eye in "lr")
        assert not {name[:-2] for name in train} & {name[:-2] for name in val}
        seen += val
    assert sorted(seen) == sorted(set(seen))
    assert len(seen) + len(test) == 22
    assert (read(tmp_path / "out", "train"), read(tmp_path / "out", "val")) == (
        read(tmp_path / "out", "train", 0),
        read(tmp_path / "out", "val", 0),
    )
    lists = {
        split: (tmp_path / "out" / f"{split}_list.txt").read_text() for split in ("train", "val", "test")
    }
    assert lists["val"] == "".join(f"images/{n}.png labels/{n}.png\n" for n in read(tmp_path / "out", "val"))
    assert [line for line in summary(made) if "fold" in line] == [
        "fold 0: 6 images of 3 patients",
        "fold 1: 6 images of 3 patients",
        "fold 2: 6 images of 3 patients",
        "val is fold 0; `fold` in the data sets of the recipe picks another",
    ]


def test_a_fold_that_the_data_has_not_is_refused(tmp_path):
    run(folder(tmp_path / "in", *"abcd"), rules(val_fraction=0.25), tmp_path / "plain")
    run(folder(tmp_path / "in", *"abcd"), rules(folds=2), tmp_path / "folds")
    for name, words in (("plain", "has no folds"), ("folds", "has the folds 0 to 1")):
        with pytest.raises(DataError, match=f"{name} {words}, the recipe names fold 2"):
            read(tmp_path / name, "train", 2)


def test_strata_are_of_the_classes_as_they_are_learned(tmp_path):
    """Four patients have the cup, stored as 7; two have a 9 besides, which is left out and no class."""
    stored = {**dict.fromkeys(("p0", "p1", "p2", "p3"), 7), **dict.fromkeys(("p4", "p5"), 9)}
    source = folder(
        tmp_path / "in", *[f"p{i}" for i in range(16)], classes={f"p{i}": 0 for i in range(16)} | stored
    )
    learned = [Unit(f"p{i}", f"p{i}", classes=frozenset({0, 2} if i < 4 else {0})) for i in range(16)]
    for seed in range(3):
        spec = rules(folds=4, stratify=True, seed=seed, label_map={0: 0, 7: 2, 9: 255})
        made = run(source, spec, tmp_path / f"out{seed}")
        for fold in range(4):
            assert sum(int(case.id[1:]) < 4 for case in made.cases("val", fold)) == 1
        folds = {case.patient: case.fold for cases in made.splits.values() for case in cases}
        assert folds == {
            p: place.fold for p, place in deal(learned, folds=4, stratify=True, seed=seed).items()
        }


# --- centres and tables -----------------------------------------------------------------------------------


def test_each_centre_is_held_out_once(tmp_path):
    source = folder(tmp_path / "in", "York/a", "York/b", "Bonn/c", "Bonn/d", "Bonn/e", "Riga/f")
    made = run(source, rules(center="^([^/]+)/", folds="centers"), tmp_path / "out")
    assert {case.id: (case.center, case.fold) for cases in made.splits.values() for case in cases} == {
        **dict.fromkeys("cde", ("Bonn", 0)),
        "f": ("Riga", 1),
        **dict.fromkeys("ab", ("York", 2)),
    }
    assert read(tmp_path / "out", "train", 1) == ["a", "b", "c", "d", "e"]
    assert "fold 1: 1 images, centre Riga" in summary(made)


def table(path: Path, *rows: tuple[str, ...]) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream, delimiter="\t").writerows(rows)


def test_participants_tell_centre_and_official_split(tmp_path):
    names = [f"sub-{i}/sub-{i}_run-{k}" for i in range(1, 7) for k in (1, 2)]
    source = folder(tmp_path / "in", *names)
    head = ("participant_id", "age", "site", "split")
    table(
        source / "participants.tsv",
        head,
        ("sub-1", "50", "X", "test"),
        ("sub-2", "n/a", "Y", "Train"),
        *((f"sub-{i}", "60", "X", "") for i in range(3, 7)),
        ("sub-99", "70", "Z", ""),
    )
    columns = {"file": "participants.tsv", "id": "participant_id", "center": "site", "split": "split"}
    spec = rules(patient=r"^(sub-\d+)/", table=columns, folds=2)
    made = run(source, spec, tmp_path / "out")
    assert {case.patient for case in made.splits["test"]} == {"sub-1"}
    fold_of = {case.patient: case.fold for cases in made.splits.values() for case in cases}
    assert fold_of["sub-1"] is fold_of["sub-2"] is None
    assert sorted(fold_of[f"sub-{i}"] for i in range(3, 7)) == [0, 0, 1, 1]
    assert {c.patient: c.center for cases in made.splits.values() for c in cases}["sub-2"] == "Y"
    assert "participants.tsv" in made.source["files"]
    require_same_origin(made, spec, source, THREE)
    table(source / "participants.tsv", head, *((f"sub-{i}", "60", "X", "test") for i in range(1, 7)))
    with pytest.raises(DataError, match=r"1 file \(participants\.tsv\) changed"):
        require_same_origin(made, spec, source, THREE)


@pytest.mark.parametrize("spelled", ["{key}", "{path}", "{name}", "{stem}"])
def test_a_group_column_keeps_families_together(tmp_path, spelled):
    source = folder(tmp_path / "in", *[f"s/{i}" for i in range(8)])
    ids = [
        spelled.format(key=i, path=f"s/{i}_image.png", name=f"{i}_image.png", stem=f"{i}_image")
        for i in range(8)
    ]
    table(source / "t.tsv", ("file", "family"), *((name, f"f{i // 2}") for i, name in enumerate(ids)))
    columns = {"file": "t.tsv", "id": "file", "patient": "family"}
    made = run(source, rules(table=columns, val_fraction=0.5), tmp_path / "out")
    assert {case.id: case.patient for cases in made.splits.values() for case in cases} == {
        str(i): f"f{i // 2}" for i in range(8)
    }
    assert [len(made.splits[split]) for split in ("train", "val")] == [4, 4]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a", "p", "train"), ("b", "q", "")], "no row for c_image.png"),
        ([("a", "p", "train"), ("a", "q", "train")], "two different rows for 'a'"),
        (
            [("a", "p", "train"), ("a_image", "q", "train"), ("b", "q", ""), ("c", "q", "")],
            "both are names of a_image",
        ),
        ([("a", "", "train"), ("b", "q", ""), ("c", "q", "")], "column 'who' is empty for a_image.png"),
        ([("a", "p", "dev"), ("b", "q", ""), ("c", "q", "")], "column 'part' says 'dev' for a_image.png"),
        ([("a", "p", "train"), ("b", "q", ""), ("c", "q", "")], "column 'part' is empty for b_image.png"),
        ([("a", "p", "train"), ("b", "p", "test"), ("c", "q", "test")], "patient 'p' is in split 'train'"),
        ([("", "p", "train")], "a row without 'image'"),
    ],
)
def test_a_table_that_leaves_something_open_is_refused(tmp_path, rows, words):
    source = folder(tmp_path / "in", *"abc")
    table(source / "t.tsv", ("image", "who", "part"), *rows)
    columns = {"file": "t.tsv", "id": "image", "patient": "who", "split": "part"}
    assert words in refused(source, rules(table=columns), tmp_path / "out")


def test_a_centre_that_the_path_does_not_tell_is_refused(tmp_path):
    source = folder(tmp_path / "in", "York/a", "b")
    spec = rules(center="^([^/]+)/", val_fraction=0.5)
    assert "the `center` pattern '^([^/]+)/' finds nothing in 'b_image.png'" in refused(
        source, spec, tmp_path / "out"
    )


# --- suspicions -------------------------------------------------------------------------------------------

BY_FOLDER = [
    {"split": split, "images": f"{split}/*_image.png", "labels": f"{split}/*_label.png"}
    for split in ("train", "val", "test")
]


def test_a_copy_in_another_split_is_reported_and_one_in_the_same_is_not(tmp_path):
    names = ["train/a", "train/b", "val/c", "test/d", "test/e", "test/f"]
    source = folder(tmp_path / "in", *names)
    smaller = cv2.resize(texture(0), (40, 40), interpolation=cv2.INTER_AREA)
    Image.fromarray(np.clip(smaller * 0.9 + 15, 0, 255).astype(np.uint8)).resize((48, 48)).save(
        source / "test/d_image.png"
    )
    Image.fromarray(np.rot90(texture(2))).save(source / "test/e_image.png")  # of val/c
    shutil.copyfile(source / "train/a_image.png", source / "train/b_image.png")
    made = run(source, rules(sets=BY_FOLDER), tmp_path / "out")
    pairs = {tuple(sorted(pair["cases"])): pair["turned"] for pair in made.source["near_duplicates"]}
    assert {("c", "e"): True}.items() <= pairs.items()
    assert {pair for pair in pairs if "d" in pair} <= {("a", "d"), ("b", "d")}
    assert ("a", "b") not in pairs
    (line,) = [line for line in summary(made) if "nearly the same" in line]
    assert line.startswith(f"warning: {len(pairs)} pair(s) of pictures")
    assert "c (val) and e (test), mirrored or turned" in line
    assert "a (train) and d (test)" in line
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["source"]["near_duplicates"]


def test_unlike_pictures_and_other_folds_raise_no_suspicion(tmp_path):
    source = folder(tmp_path / "in", *"abcdef")
    made = run(source, rules(folds=3), tmp_path / "out")
    assert made.source["near_duplicates"] == []
    assert not [line for line in summary(made) if "warning" in line]


def test_a_copy_in_another_fold_is_reported(tmp_path):
    source = folder(tmp_path / "in", *"abcdef")
    shutil.copyfile(source / "a_image.png", source / "b_image.png")
    found = set()
    for seed in range(6):  # in one fold or in two, as the seed has it
        made = run(source, rules(folds=3, seed=seed), tmp_path / f"out{seed}")
        folds = {case.id: case.fold for cases in made.splits.values() for case in cases}
        lines = [line for line in summary(made) if "nearly the same" in line]
        assert bool(lines) == (folds["a"] != folds["b"])
        assert all(f"a (fold {folds['a']}) and b (fold {folds['b']})" in line for line in lines)
        found.add(bool(lines))
    assert found == {True, False}


def test_two_spellings_of_a_patient_are_reported_and_not_refused(tmp_path):
    source = folder(tmp_path / "in", "train/P 007", "train/q", "test/p7", "val/r")
    made = run(source, rules(sets=BY_FOLDER, patient=r"/(.+)_image"), tmp_path / "out")
    (line,) = [line for line in summary(made) if "spellings" in line]
    assert "1 patient(s)" in line
    assert "'P 007' (train) and 'p7' (test)" in line


# --- a training on a fold ---------------------------------------------------------------------------------

RECIPE = """\
name: folds
labels: [background, disc, cup]
batch_size: 2
iters: 1
save_interval: 1
log_iters: 1
overlays: 0
model_graph: false
device: cpu
train_dataset: {type: Manifest, dataset_root: ROOT, mode: train, transforms: [{type: Normalize}]}
val_dataset: {type: Manifest, dataset_root: ROOT, mode: val, transforms: [{type: Normalize}]}
optimizer: {type: SGD}
lr_scheduler: {type: PolynomialDecay, learning_rate: 0.01}
loss: {types: [{type: CrossEntropyLoss}], coef: [1]}
model: {type: SimpleUNet, width: 2}
prepare:
  key: '([^/]+)_(?:image|label)\\.png$'
  patient: '(p\\d+)-'
  sets: [{images: "*_image.png", labels: "*_label.png"}]
  folds: 3
  test_fraction: 0.2
"""


def test_a_recipe_trains_on_all_but_its_fold_and_is_scored_on_it(tmp_path):
    from medseg_paddle.steps.evaluate import evaluate
    from medseg_paddle.steps.prepare import prepare
    from medseg_paddle.steps.train import train

    source = folder(tmp_path / "in", *[f"p{p}-{eye}" for p in range(5) for eye in "lr"])
    recipe = tmp_path / "folds.yml"
    recipe.write_text(RECIPE.replace("ROOT", str(tmp_path / "data")))
    made = prepare(recipe, source)
    picked = ["train_dataset.fold=2", "val_dataset.fold=2"]
    trained = train(recipe, output=tmp_path / "run", overrides=picked)
    assert trained.provenance["data"]["train"]["images"] == 10 - len(made.cases("val", 2)) - len(
        made.splits["test"]
    )
    held_out = {case.id for case in made.cases("val", 2)}
    assert held_out.isdisjoint(case.id for case in made.splits["val"])
    assert {row.case for row in evaluate(tmp_path / "run", split="val", overlays=0).rows} == held_out
    assert {row.case for row in evaluate(tmp_path / "run", overlays=0).rows} == {
        c.id for c in made.splits["test"]
    }
