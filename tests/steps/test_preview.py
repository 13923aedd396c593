"""`medseg recipe preview`: the sheet shows what training gets, and says what is wrong with it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medseg_paddle.cli import main
from medseg_paddle.config import load_recipe
from medseg_paddle.core import LabelSet
from medseg_paddle.engine.data import TrainingStream
from medseg_paddle.errors import DataError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.sheet import TILE_SIDE, Row, Tile, draw_sheet, draw_small
from medseg_paddle.steps import preview as step
from medseg_paddle.steps.preview import preview

LABELS = LabelSet.from_names(["background", "disc"])
COLOR = LABELS.foreground[0].color


@pytest.fixture
def rows(monkeypatch) -> list[Row]:
    """The rows of the sheets that a test draws."""
    drawn: list[Row] = []

    def noted(title, notes, rows, *args, **kwargs):
        drawn.extend(rows)
        return draw_sheet(title, notes, rows, *args, **kwargs)

    monkeypatch.setattr(step, "draw_sheet", noted)
    return drawn


@pytest.fixture
def images(monkeypatch) -> list[np.ndarray]:
    """The images in the tiles that a test draws."""
    drawn: list[np.ndarray] = []

    def noted(image, *args, **kwargs):
        drawn.append(image)
        return draw_small(image, *args, **kwargs)

    monkeypatch.setattr(step, "draw_small", noted)
    return drawn


def test_the_sheet_has_a_row_for_each_case_and_each_transform(disc_recipe_file, tmp_path, rows):
    patch = "{type: RandomAffinePatch, size: [32, 32], foreground: 1}"
    intensity = "{type: RandomIntensity, brightness: 0.2}"
    made = preview(
        disc_recipe_file,
        draws=3,
        output=tmp_path / "sheet.png",
        overrides=[
            f"train_dataset.transforms=[{patch}, {intensity}, {{type: RandomNoise}}, {{type: Normalize}}]",
            "train_dataset.mixup={}",
        ],
    )
    assert [row.title for row in rows] == [
        *made.cases,
        "RandomAffinePatch alone",
        "RandomIntensity alone",
        "RandomNoise alone",
        "mixup",
    ]
    assert {len(row.tiles) for row in rows} == {4}
    assert len(made.cases) == 3
    with Image.open(made.path) as picture:
        assert picture.width > 4 * TILE_SIDE


def test_a_transform_alone_gets_an_image_as_the_one_before_it_leaves_it(disc_recipe_file, tmp_path, images):
    patch = "{type: RandomAffinePatch, size: [16, 20], scale: [0.5, 2], rotation: 90, border: ignore}"
    chain = f"train_dataset.transforms=[{patch}, {{type: RandomNoise, prob: 0.01}}, {{type: Normalize}}]"
    preview(
        disc_recipe_file, draws=2, cases=["images/train0"], output=tmp_path / "sheet.png", overrides=[chain]
    )
    prepared, *drawn = images
    assert [image.shape[:2] for image in drawn] == [(16, 20)] * 2 + [(48, 48)] + [(16, 20)] * 5
    before, first, second = drawn[-3:]
    assert any((before == prepared[r : r + 16, c : c + 20]).all() for r in range(33) for c in range(29))
    assert (first != before).any()
    assert (second != first).any()


def test_a_tile_shows_what_the_training_gets(disc_recipe_file, tmp_path, images):
    """In grey values of the training's own image at that pass, de-normalised."""
    cases = load_cases(load_recipe(disc_recipe_file).train_dataset)
    preview(disc_recipe_file, draws=2, cases=[cases[4].id], output=tmp_path / "sheet.png")
    stream = TrainingStream(cases, load_recipe(disc_recipe_file))
    positions = [p for p in range(2 * len(cases)) if stream.case_at(p).id == cases[4].id]
    for shown, position in zip(images[1:3], positions, strict=True):
        expected = (stream[position]["img"].transpose(1, 2, 0) * 0.5 + 0.5) * 255
        np.testing.assert_array_equal(shown, np.rint(expected).astype(np.uint8))


def test_shares_are_those_of_the_first_training_images(disc_recipe_file, tmp_path):
    recipe = load_recipe(disc_recipe_file, ["train_dataset.transforms.0.size=[12, 12]"])
    made = preview(recipe, draws=1, output=tmp_path / "sheet.png")
    stream = TrainingStream(load_cases(recipe.train_dataset), recipe)
    hits = [bool((stream[p]["label"] == 1).any()) for p in range(made.counted)]
    assert made.shares == {"disc": pytest.approx(np.mean(hits))}
    assert 0 < made.shares["disc"] < 1
    assert made.problems == ()


def test_a_class_that_no_image_holds_is_a_warning(disc_recipe_file, discs, tmp_path, capsys):
    for path in (discs / "labels").glob("train*.png"):
        Image.fromarray(np.zeros((48, 48), np.uint8)).save(path)
    with pytest.raises(SystemExit) as left:
        main(["recipe", "preview", str(disc_recipe_file), "-n", "1", "-o", str(tmp_path / "sheet.png")])
    assert not left.value.code
    said = capsys.readouterr()
    assert "disc 0%" in said.out
    assert "warning: none of the first 64 training images holds disc" in said.err


def test_lost_labels_and_blank_images_are_warnings(disc_recipe_file, discs, tmp_path):
    Image.fromarray(np.full((48, 48), 255, np.uint8)).save(discs / "labels" / "train0.png")
    Image.fromarray(np.full((48, 48), 90, np.uint8)).save(discs / "images" / "train1.png")
    problems = preview(disc_recipe_file, draws=1, output=tmp_path / "sheet.png").problems
    assert len(problems) == 2
    assert "ignored (first: images/train0)" in problems[0]
    assert "one intensity everywhere (first: images/train1)" in problems[1]


def test_a_transform_that_needs_what_stands_before_it_is_said_so(disc_recipe_file, tmp_path, rows):
    shrink = "{type: ResizeStepScaling, min_scale_factor: 0.4, max_scale_factor: 0.6}"
    chain = (
        f"train_dataset.transforms=[{shrink}, {{type: Padding, target_size: [32, 32]}}, {{type: Normalize}}]"
    )
    preview(disc_recipe_file, draws=2, output=tmp_path / "sheet.png", overrides=[chain])
    padding = next(row for row in rows if row.title == "Padding alone")
    assert "smaller than an image" in padding.note
    assert len(padding.tiles) == 1


def test_real_fundus_images_are_shown(real_data, disc_recipe_file, tmp_path, monkeypatch):
    monkeypatch.setattr(step, "_COUNTED", 3)
    patch = "{type: RandomAffinePatch, size: [160, 160], scale: [0.36, 0.54], foreground: 1}"
    made = preview(
        disc_recipe_file,
        draws=1,
        cases=["JPEGImages/N0060"],
        output=tmp_path / "sheet.png",
        overrides=[
            f"train_dataset.dataset_root={real_data / 'optic_disc_seg'}",
            f"train_dataset.transforms=[{patch}, {{type: RandomGaussianBlur}}, {{type: Normalize}}]",
        ],
    )
    assert made.shares == {"disc": 1.0}
    assert made.problems == ()


def test_an_unknown_case_is_an_error_that_names_a_close_one(disc_recipe_file, tmp_path):
    with pytest.raises(DataError, match="no case 'images/train9'") as caught:
        preview(disc_recipe_file, cases=["images/train9"], output=tmp_path / "sheet.png")
    assert "images/train" in caught.value.hint
    assert not (tmp_path / "sheet.png").exists()


def test_a_small_picture_is_enlarged_to_the_tile_and_its_labels_with_it():
    label = np.zeros((29, 58), np.int64)  # a quarter of a tile
    label[5:15, 10:30] = 1
    picture = draw_small(np.full((29, 58), 50, np.uint8), label, LABELS, ignore_index=255)
    assert picture.shape == (TILE_SIDE // 2, TILE_SIDE, 3)
    rows, columns = np.nonzero((picture == COLOR).all(axis=-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 59, 40, 119)
    assert (picture[0, 0] == 50).all()
    assert (picture[19, 60] == 30).all()  # darker beside the line


def test_a_large_picture_is_shrunk_to_the_tile():
    label = np.zeros((600, 300), np.int64)
    label[200:400, 100:200] = 1
    picture = draw_small(np.zeros((600, 300, 3), np.uint8), label, LABELS, ignore_index=255)
    assert picture.shape == (TILE_SIDE, TILE_SIDE // 2, 3)
    assert (picture == COLOR).all(axis=-1).sum() > 100


def test_what_is_ignored_is_hatched_and_what_is_mixed_in_is_dashed():
    label = np.zeros((40, 40), np.int64)
    label[:, :20] = 255
    picture = draw_small(np.full((40, 40), 255, np.uint8), label, LABELS, ignore_index=255)
    middle = picture.shape[1] // 2
    assert (picture[:, middle + 1 :] == 255).all()
    assert picture[:, : middle - 1].max() < 200
    assert len(np.unique(picture[:, : middle - 9].reshape(-1, 3), axis=0)) == 2
    inside = np.zeros((40, 40), np.int64)
    inside[10:30, 10:30] = 1
    solid = draw_small(np.zeros((40, 40), np.uint8), inside, LABELS, ignore_index=255)
    dashed = draw_small(np.zeros((40, 40), np.uint8), inside * 0, LABELS, ignore_index=255, second=inside)
    lines = [int((drawn == COLOR).all(axis=-1).sum()) for drawn in (solid, dashed)]
    assert 0.3 * lines[0] < lines[1] < 0.7 * lines[0]


def test_long_words_are_broken_or_cut_in_the_middle():
    tile = Tile(np.zeros((TILE_SIDE, TILE_SIDE, 3), np.uint8), "x" * 200)
    row = Row("case " + "y" * 400, "word " * 100, (tile,))
    sheet = draw_sheet("z" * 300, ["note " * 60], [row], LABELS, mixed=True)
    assert sheet.shape[1] < 2 * TILE_SIDE
    assert sheet.shape[0] > TILE_SIDE
