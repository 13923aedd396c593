"""A small clean data set, made anew for each test that dirties it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

RECIPE = """\
name: blobs
labels: [background, blob]
batch_size: 2
iters: 2
prepare:
  reader: pairs
  patient: '^photos/([A-Za-z]+\\d+)_'
  sets:
    - {{images: "photos/*.png", labels: "masks/*.png"}}
  label_map: {{0: 0, 255: 1}}
  val_fraction: 0.2
  test_fraction: 0.2
  seed: 1
train_dataset:
  type: Manifest
  dataset_root: {root}
  img_channels: 1
  mode: train
  transforms:
    - type: Normalize
      mean: [0.5]
      std: [0.5]
val_dataset:
  type: Manifest
  dataset_root: {root}
  img_channels: 1
  mode: val
  transforms:
    - type: Normalize
      mean: [0.5]
      std: [0.5]
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
  in_channels: 1
"""


@dataclass(frozen=True)
class Blobs:
    """A source folder, and a folder with PaddleSeg's lists, of the same twelve pictures."""

    source: Path
    lists: Path
    recipe: Path

    def label(self, name: str) -> np.ndarray:
        return np.array(Image.open(self.lists / "labels" / f"{name}.png"))

    def write_label(self, name: str, array: np.ndarray) -> None:
        """In both folders; 0 and 1 are 0 and 255 in the source."""
        plain = np.ascontiguousarray(array)
        Image.fromarray(plain.astype(np.uint8)).save(self.lists / "labels" / f"{name}.png")
        Image.fromarray(np.where(plain == 1, 255, plain).astype(np.uint8)).save(
            self.source / "masks" / f"{name}.png"
        )

    def image(self, name: str) -> np.ndarray:
        return np.array(Image.open(self.lists / "images" / f"{name}.png"))

    def write_image(self, name: str, array: np.ndarray) -> None:
        for folder in (self.lists / "images", self.source / "photos"):
            Image.fromarray(np.ascontiguousarray(array)).save(folder / f"{name}.png")


NAMES = tuple(f"P{number:02d}_1" for number in range(1, 13))
SPLITS = {"train": NAMES[:8], "val": NAMES[8:10], "test": NAMES[10:]}


def draw(number: int, size: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """Three soft ellipses, each picture with its own."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:size, :size]
    mask = np.zeros((size, size), bool)
    for _ in range(3):
        row, column = rng.integers(30, size - 30, 2)
        mask |= ((rows - row) / rng.integers(10, 20)) ** 2 + (
            (columns - column) / rng.integers(10, 20)
        ) ** 2 < 1
    ground = cv2.resize(
        rng.normal(0, 14, (9, 9)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
    )
    picture = cv2.GaussianBlur(90 + 70 * mask.astype(np.float32), (0, 0), 1.2) + ground
    picture += rng.normal(0, 8, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8), mask.astype(np.uint8)


@pytest.fixture(scope="session")
def clean_blobs(tmp_path_factory) -> Blobs:
    """Not to be changed."""
    root = tmp_path_factory.mktemp("blobs")
    blobs = Blobs(root / "source", root / "lists", root / "blobs.yml")
    for folder in (
        blobs.source / "photos", blobs.source / "masks", blobs.lists / "images", blobs.lists / "labels"
    ):  # fmt: skip
        folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        picture, mask = draw(number)
        blobs.write_image(name, picture)
        blobs.write_label(name, mask)
    for split, names in SPLITS.items():
        (blobs.lists / f"{split}_list.txt").write_text(
            "".join(f"images/{name}.png labels/{name}.png\n" for name in names)
        )
    blobs.recipe.write_text(RECIPE.format(root=root / "prepared"))
    return blobs


@pytest.fixture
def blobs(clean_blobs, tmp_path) -> Blobs:
    """A copy to dirty."""
    copy = Blobs(tmp_path / "source", tmp_path / "lists", tmp_path / "blobs.yml")
    shutil.copytree(clean_blobs.source, copy.source)
    shutil.copytree(clean_blobs.lists, copy.lists)
    copy.recipe.write_text(RECIPE.format(root=tmp_path / "prepared"))
    return copy
