"""What several tests work on: a small data set of bright discs, and the real public data where it is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_paddle.config import Recipe, load_recipe
from medseg_paddle.engine.startup import start_paddle

# Before any test imports Paddle: the same settings as the program's own.
start_paddle()

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the public data sets that lie beside a developer's checkout."""
    folder = Path(os.environ.get("MEDSEG_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the public test data is not beside the checkout ({folder.name}); set MEDSEG_TEST_DATA")
    return folder


def write_discs(root: Path, *, train: int = 6, val: int = 3, test: int = 2, size: int = 48) -> Path:
    """A data set with PaddleSeg's lists: noisy pictures, each with one brighter disc as class 1."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    rows, columns = np.mgrid[:size, :size]
    for split, count in (("train", train), ("val", val), ("test", test)):
        lines = []
        for number in range(count):
            centre = rng.integers(size // 4, 3 * size // 4, 2)
            disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < (size // 6) ** 2
            picture = np.clip(80 + 90 * disc + rng.normal(0, 20, (size, size)), 0, 255).astype(np.uint8)
            name = f"{split}{number}.png"
            Image.fromarray(np.stack([picture] * 3, axis=-1)).save(root / "images" / name)
            Image.fromarray(disc.astype(np.uint8)).save(root / "labels" / name)
            lines.append(f"images/{name} labels/{name}")
        (root / f"{split}_list.txt").write_text("\n".join(lines) + "\n")
    return root


RECIPE = """\
name: discs
labels: [background, disc]
batch_size: 2
iters: 12
save_interval: 6
log_iters: 2
overlays: 1
model_graph: false
device: cpu
train_dataset:
  type: OpticDiscSeg
  dataset_root: {root}
  transforms:
    - type: RandomAffinePatch
      size: [32, 32]
      flip_horizontal: 0.5
    - type: Normalize
  mode: train
val_dataset:
  type: OpticDiscSeg
  dataset_root: {root}
  transforms:
    - type: Normalize
  mode: val
optimizer:
  type: AdamW
lr_scheduler:
  type: PolynomialDecay
  learning_rate: 0.01
loss:
  types:
    - type: CrossEntropyLoss
  coef: [1]
model:
  type: SimpleUNet
  width: 4
"""


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two finished trainings, ``first`` and ``second``, on a small data set."""
    from medseg_paddle.steps.train import train

    folder = tmp_path_factory.mktemp("runs")
    recipe = tmp_path_factory.mktemp("recipe") / "discs.yml"
    recipe.write_text(RECIPE.format(root=write_discs(recipe.parent / "discs")))
    for name, rate in (("first", 0.01), ("second", 0.003)):
        overrides = [f"lr_scheduler.learning_rate={rate}", "iters=40", "save_interval=20"]
        train(recipe, output=folder / name, overrides=overrides)
    return folder


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    """Folder of a small data set with PaddleSeg's lists."""
    return write_discs(tmp_path / "discs")


@pytest.fixture
def disc_recipe_file(tmp_path: Path, discs: Path) -> Path:
    """A recipe that trains on :func:`discs` in seconds."""
    path = tmp_path / "discs.yml"
    path.write_text(RECIPE.format(root=discs))
    return path


@pytest.fixture
def disc_recipe(disc_recipe_file: Path) -> Recipe:
    """See :func:`disc_recipe_file`."""
    return load_recipe(disc_recipe_file)
