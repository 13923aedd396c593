"""A network that learned from one source of pictures, at two others: with what helps with the difference, and without.

python benchmarks/another_hospital.py DATA/dsb2018_nuclei

Grey pictures of the Data Science Bowl 2018 have a few sizes, which stand for its sources. Labelled for the training are
those of 256 x 256 pixels, of the set's own split. Of two other sizes the training's pictures lend their style or are
aligned, without labels, and the validation and test pictures are scored. "no reversal" is an alignment whose
classifier teaches the encoder nothing: what is left is that batch norms see the other sources. Scored is the best
checkpoint on the first source's validation pictures: what a hospital that has no labels of the others could choose.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from medseg_paddle.run import Run
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.train import train

SOURCE = ("256", "256")
TARGETS = {"360 x 360": ("360", "360"), "696 x 520": ("696", "520")}
STANDARDIZE = {"type": "StandardizeImage"}
ALIGNED = ("adversarial", "standardize, adversarial", "no reversal")
WAYS = ("nothing", "standardize", "histogram", "fourier", *ALIGNED)
NO_REVERSAL = 1e-12  # a weight that changes nothing


def write(data: Path, root: Path) -> None:
    """Grey pictures, labels of two classes, the lists, and a folder of the other sources' training pictures."""
    rows = [row for row in csv.DictReader((data / "cases.csv").open()) if row["kind"] == "grey"]
    lists: dict[str, list[str]] = {}
    for folder in ("images", "labels", "style"):
        (root / folder).mkdir()
    for row in rows:
        size, name = (row["width"], row["height"]), f"{row['id']}.png"
        target = next((key for key, value in TARGETS.items() if value == size), None)
        if size != SOURCE and target is None:
            continue
        picture = Image.open(data / "images" / name).convert("L")
        picture.save(root / "images" / name)
        instances = np.asarray(Image.open(data / "instances" / name))
        Image.fromarray((instances > 0).astype(np.uint8)).save(root / "labels" / name)
        line = f"images/{name} labels/{name}"
        if target is None:
            lists.setdefault(row["split"], []).append(line)
        elif row["split"] == "train":
            picture.save(root / "style" / name)
        else:
            lists.setdefault(target, []).append(line)
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")


def recipe(root: Path, way: str, iters: int, seed: int, weight: float) -> dict:
    """The same training but for `way`."""
    first = {
        "histogram": [{"type": "RandomHistogramMatch", "styles": str(root / "style"), "prob": 0.5}],
        "fourier": [{"type": "RandomFourierStyle", "styles": str(root / "style"), "prob": 0.5}],
    }.get(way, [STANDARDIZE] if way.startswith("standardize") else [])
    intensity = [{"type": "RandomIntensity", "brightness": 0.1, "contrast": 0.3, "gamma": 0.3}]
    dataset = {"type": "Dataset", "dataset_root": str(root), "num_classes": 2, "img_channels": 1}
    patch = {"type": "RandomAffinePatch", "size": [96, 96], "scale": [0.7, 1.4], "rotation": 180,
             "flip_horizontal": 0.5, "foreground": 0.5}  # fmt: skip
    before = [STANDARDIZE] if way.startswith("standardize") else []
    share = NO_REVERSAL if way == "no reversal" else weight
    alignment = {"target": str(root / "style"), "weight": share} if way in ALIGNED else None
    losses = [{"type": "CrossEntropyLoss"}, {"type": "DiceLoss", "background": False}]
    return {
        "name": "nuclei", "labels": ["background", "nucleus"], "batch_size": 4, "iters": iters, "seed": seed,
        "alignment": alignment, "save_interval": max(1, iters // 2),
        "model_graph": False, "overlays": 0, "device": "cpu",
        "train_dataset": {**dataset, "mode": "train", "train_path": "train.txt",
                          "transforms": [*first, patch, *intensity, {"type": "Normalize"}]},
        "val_dataset": {**dataset, "mode": "val", "val_path": "val.txt",
                        "transforms": [*before, {"type": "Normalize"}]},
        "model": {"type": "ScalableUNet", "num_classes": 2, "width": 8, "depth": 3},
        "loss": {"types": [{"type": "MixedLoss", "losses": losses, "coef": [1, 1]}], "coef": [1]},
        "optimizer": {"type": "AdamW"},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.005, "warmup_iters": 20, "end_lr": 0,
                         "power": 0.9},
    }  # fmt: skip


def scored(run: Run, output: Path, wanted: dict, name: str) -> float:
    """Mean Dice of the pictures in a list."""
    dataset = {**wanted["val_dataset"], "mode": "test", "test_path": f"{name}.txt"}
    del dataset["val_path"]
    override = "test_dataset=" + yaml.safe_dump(dataset, default_flow_style=True, width=10**6).strip()
    return evaluate(run, output=output / name, overlays=0, overrides=[override]).mean_foreground_dice


def main() -> None:
    """Train each way with each seed, and print what they reach."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--iters", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weight", type=float, default=1.0, help="of an alignment")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(options.data, root)
        start = time.monotonic()
        found: dict[tuple[str, str], list[float]] = {
            (way, name): [] for way in options.ways for name in ("test", *TARGETS)
        }
        for seed, way in itertools.product(range(options.seeds), options.ways):
            wanted = recipe(root, way, options.iters, seed, options.weight)
            path = root / "recipe.yml"
            path.write_text(yaml.safe_dump(wanted))
            run = train(path, output=root / "run", overwrite=True)
            for name in ("test", *TARGETS):
                found[way, name].append(scored(run, root / "scores", wanted, name))
            said = ", ".join(f"{name} {found[way, name][-1]:.4f}" for name in ("test", *TARGETS))
            print(f"{time.monotonic() - start:4.0f} s  {way}, seed {seed}: {said}", flush=True)
        for (way, name), values in found.items():
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            print(f"{way:24} {name:10} Dice {statistics.fmean(values):.3f}, SD {spread:.3f} of {len(values)}")


if __name__ == "__main__":
    main()
