"""How often each image is drawn: by foreground, by how hard it is; a function of seed and position alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medseg_paddle.config import load_recipe
from medseg_paddle.config.datasets import Sampling
from medseg_paddle.core import Case
from medseg_paddle.engine.data import TrainingStream, batch_bytes, survey
from medseg_paddle.engine.loading import loaded
from medseg_paddle.engine.paddleseg_adapter.loop import StreamSampler
from medseg_paddle.engine.sampling import Order, order_of
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.preview import preview
from medseg_paddle.steps.train import train


def cases(count: int) -> list[Case]:
    return [Case(id=f"case{n}", image=Path(f"{n}.png")) for n in range(count)]


def drawn(order: Order, count: int, number: int) -> list[int]:
    """How often each case stands in a pass."""
    found = [order[position] for position in range(number * count, (number + 1) * count)]
    return list(np.bincount(found, minlength=count))


def order(sampling: Sampling | None, full: list[bool], seed: int = 0) -> Order:
    return order_of(sampling, cases(len(full)), seed, lambda: full)


def scores(folder: Path, dice: dict[str, float | None]) -> str:
    """A file as `medseg evaluate` writes it, with one class."""
    path = folder / "summary.json"
    rows = [{"case": case, "class": "disc", "dice": value} for case, value in dice.items()]
    path.write_text(json.dumps({"split": "train", "cases": rows}))
    return str(path)


def test_without_weights_a_pass_holds_each_case_once_in_the_order_that_it_always_had():
    plain = Order(7, seed=3)
    for number in range(4):
        expected = np.random.default_rng([3, 0, number]).permutation(7)
        assert [plain[position] for position in range(7 * number, 7 * number + 7)] == list(expected)
    assert drawn(order(None, [True] * 7), 7, 2) == [1] * 7
    assert drawn(order(Sampling(), [True] * 7), 7, 2) == [1] * 7


@given(
    raw=st.lists(st.floats(0, 100), min_size=1, max_size=30).filter(lambda values: sum(values) > 0.1),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_a_case_stands_in_each_pass_as_often_as_its_weight_says(raw, seed):
    weights = np.array(raw) * len(raw) / sum(raw)
    weighted = Order(len(raw), seed, weights)
    counts = np.array([drawn(weighted, len(raw), number) for number in range(5)])
    assert (counts.sum(axis=1) == len(raw)).all()
    assert (counts >= np.floor(weights - 1e-9)).all()
    assert (counts <= np.ceil(weights + 1e-9)).all()


def test_over_many_passes_each_case_is_drawn_its_weight():
    weights = [0.0, 0.25, 0.5, 1.5, 2.75]
    weighted = Order(5, 1, weights)
    counts = np.array([drawn(weighted, 5, number) for number in range(2000)])
    np.testing.assert_allclose(counts.mean(axis=0), weights, atol=0.03)


@pytest.mark.parametrize(
    ("share", "full", "expected"),
    [
        (0.33, 10, 100 * (0.33 + 0.67 * 0.1)),  # nnU-Net's share, and the tenth of the others
        (0.5, 3, 100 * (0.5 + 0.5 * 0.03)),
        (1.0, 20, 100),
        (0.33, 80, 100 * (0.33 + 0.67 * 0.8)),  # never fewer than there are
    ],
)
def test_the_share_with_foreground_is_the_wanted_one_in_every_pass(share, full, expected):
    holds = (
        [n % (100 // full) == 0 and n // (100 // full) < full for n in range(100)]
        if full < 80
        else ([n % 5 != 0 for n in range(100)])
    )
    assert sum(holds) == full
    sampled = order(Sampling(foreground=share), holds)
    for number in range(10):
        with_foreground = np.array(drawn(sampled, 100, number))[np.array(holds)].sum()
        assert np.floor(expected - 1e-9) <= with_foreground <= np.ceil(expected + 1e-9)


def test_all_images_with_foreground_are_drawn_evenly_and_so_are_the_others():
    holds = [True, False, False, True, False, False, False, False]
    counts = sum(np.array(drawn(order(Sampling(foreground=0.5), holds), 8, n)) for n in range(800)) / 800
    # half of 8 among two, half among all: 8 (1/4 + 1/16) and 8/16
    np.testing.assert_allclose(counts, np.where(holds, 2.5, 0.5), atol=0.05)


def test_images_with_foreground_stand_all_over_a_pass():
    sampled = order(Sampling(foreground=0.5), [n < 10 for n in range(40)])
    halves = np.array(
        [[sampled[position] < 10 for position in range(40 * n, 40 * n + 40)] for n in range(50)]
    )
    first, second = halves[:, :20].sum(axis=1).mean(), halves[:, 20:].sum(axis=1).mean()
    assert first + second == 25  # 40 (1/2 + 1/2 * 1/4)
    assert abs(first - second) < 2


def test_hard_cases_are_drawn_more_often(tmp_path):
    path = scores(tmp_path, {"case0": 0.9, "case1": 0.6, "case2": 0.5, "case3": None})
    found = order(Sampling(hard=0.5, scores=path), [True] * 4)
    counts = np.mean([drawn(found, 4, number) for number in range(1000)], axis=0)
    # half of the images evenly, half by 0.1 : 0.4 : 0.5 : 0, the last being right as it is
    np.testing.assert_allclose(counts, 4 * (0.5 / 4 + 0.5 * np.array([0.1, 0.4, 0.5, 0])), atol=0.03)
    squared = order(Sampling(hard=1, scores=path, power=2), [True] * 4)
    counts = np.mean([drawn(squared, 4, number) for number in range(1000)], axis=0)
    np.testing.assert_allclose(counts, 4 * np.array([0.01, 0.16, 0.25, 0]) / 0.42, atol=0.03)


def test_slices_of_a_volume_have_the_score_of_the_volume(tmp_path):
    slices = [Case(id=f"s{n}", image=Path(f"{n}.png"), volume="ab"[n // 2]) for n in range(4)]
    sampling = Sampling(hard=1, scores=scores(tmp_path, {"a": 0.2, "b": 0.6}))
    found = order_of(sampling, slices, 0, list)
    counts = np.mean([drawn(found, 4, number) for number in range(1000)], axis=0)
    np.testing.assert_allclose(counts, 4 * np.array([0.8, 0.8, 0.4, 0.4]) / 2.4, atol=0.03)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is not there"),
        ("{", "holds no scores"),
        ('{"cases": [{"case": "case0"}]}', "holds no scores"),
        ("[]", "holds no scores"),
        (
            '{"cases": [{"case": "case0", "dice": 1.5}, {"case": "case1", "dice": 0.5}]}',
            "not between 0 and 1",
        ),
        (
            '{"cases": [{"case": "case0", "dice": NaN}, {"case": "case1", "dice": 0.5}]}',
            "not between 0 and 1",
        ),
        ('{"cases": [{"case": "case0", "dice": 0.5}]}', "no score of 1 training image.*case1"),
        ('{"cases": [{"case": "case0", "dice": 1}, {"case": "case1", "dice": null}]}', "none is hard"),
    ],
)
def test_scores_that_do_not_fit_are_refused(tmp_path, content, words):
    path = tmp_path / "summary.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=words) as error:
        order(Sampling(hard=0.5, scores=str(path)), [True, True])
    assert str(path) in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ("{foreground: 0.7, hard: 0.4, scores: a.json}", "more than all images"),
        ("{hard: 0.4}", "`hard`, but no `scores`"),
        ("{scores: a.json}", "`scores`, but no `hard`"),
        ("{foreground: 1.5}", "foreground"),
        ("{easy: 0.5}", "unknown key"),
    ],
)
def test_impossible_samplings_are_refused(disc_recipe_file, sampling, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe(disc_recipe_file, [f"train_dataset.sampling={sampling}"])


# ---- with files, processes and trainings ----

SHARE = "train_dataset.sampling={foreground: 0.5}"


@pytest.fixture
def half_empty(discs: Path) -> Path:
    """The data set with four of six training labels empty."""
    for number in range(4):
        Image.fromarray(np.zeros((48, 48), np.uint8)).save(discs / "labels" / f"train{number}.png")
    return discs


def batches(path: Path, workers: int, first: int = 0, last: int = 9) -> list[tuple[np.ndarray, np.ndarray]]:
    recipe = load_recipe(path, [SHARE])
    found = load_cases(recipe.train_dataset)
    surveyed = survey(found, recipe)
    orders = StreamSampler(len(found), recipe.batch_size, first, last)
    stream = TrainingStream(found, recipe, found=surveyed)
    room = batch_bytes(recipe, surveyed)
    with loaded(stream, orders, num_workers=workers, batch_bytes=room) as served:
        return [(batch["img"].numpy(), batch["label"].numpy()) for batch in served]


def test_the_stream_is_the_same_for_any_number_of_processes_and_wherever_it_starts(
    disc_recipe_file, half_empty
):
    alone = batches(disc_recipe_file, 0)
    assert len(alone) == 9
    for workers, first in ((1, 0), (2, 0), (4, 0), (2, 4)):
        several = batches(disc_recipe_file, workers, first)
        for (image, label), (other, its_label) in zip(alone[first:], several, strict=True):
            np.testing.assert_array_equal(image, other)
            np.testing.assert_array_equal(label, its_label)


def test_what_the_labels_hold_is_seen_by_the_survey_or_else_by_the_stream(disc_recipe_file, half_empty):
    recipe = load_recipe(disc_recipe_file, [SHARE])
    found = load_cases(recipe.train_dataset)
    surveyed = survey(found, recipe)
    assert surveyed.holds_foreground == (False, False, False, False, True, True)
    streams = [TrainingStream(found, recipe), TrainingStream(found, recipe, found=surveyed)]
    names = [[stream.case_at(position).id for position in range(600)] for stream in streams]
    assert names[0] == names[1]
    with_foreground = sum(name in ("images/train4", "images/train5") for name in names[0])
    assert with_foreground == 400  # 6 (1/2 + 1/2 * 2/6) = 4 of 6 in each of 100 passes


def test_a_label_of_ignored_pixels_holds_no_foreground(disc_recipe_file, half_empty):
    Image.fromarray(np.full((48, 48), 255, np.uint8)).save(half_empty / "labels" / "train4.png")
    recipe = load_recipe(disc_recipe_file, [SHARE])
    found = load_cases(recipe.train_dataset)
    assert survey(found, recipe).holds_foreground == (False,) * 5 + (True,)
    stream = TrainingStream(found, load_recipe(disc_recipe_file, ["train_dataset.sampling={foreground: 1}"]))
    assert {stream.case_at(position).id for position in range(30)} == {"images/train5"}


def test_a_resumed_training_ends_like_one_that_was_not_interrupted(disc_recipe_file, half_empty, tmp_path):
    first = train(disc_recipe_file, output=tmp_path / "first", overrides=["iters=2"])
    evaluate(first, split="train")
    path = first.evaluation_folder("train") / "summary.json"
    wanted = ["lr_scheduler.decay_steps=6", "num_workers=2", "save_interval=3", "iters=6",
              f"train_dataset.sampling={{foreground: 0.3, hard: 0.3, scores: {path}}}"]  # fmt: skip
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=wanted)
    train(disc_recipe_file, output=tmp_path / "parts", overrides=[*wanted, "iters=3"])
    parts = train(disc_recipe_file, output=tmp_path / "parts", overrides=wanted, resume=True)
    assert whole.history() == parts.history()
    import paddle

    weights = [paddle.load(str(run.checkpoints / "iter_6" / "model.pdparams")) for run in (whole, parts)]
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value.numpy(), weights[1][name].numpy())
    assert list(whole.provenance["files"]) == [str(path)]
    assert sum(whole.provenance["pixels_per_class"]) == 6 * 48 * 48
    path.write_text(path.read_text().replace("0.", "0.1", 1))
    with pytest.raises(DataError, match="reads beside its data are not as they were"):
        train(disc_recipe_file, output=tmp_path / "parts", overrides=[*wanted, "iters=9"], resume=True)


def test_scores_that_are_missing_leave_no_folder(disc_recipe_file, tmp_path):
    wanted = ["train_dataset.sampling={hard: 0.5, scores: nowhere.json}"]
    with pytest.raises(DataError, match=r"nowhere\.json is not there"):
        train(disc_recipe_file, output=tmp_path / "run", overrides=wanted)
    assert not (tmp_path / "run").exists()


def test_a_preview_shows_cases_that_are_seldom_drawn(disc_recipe_file, half_empty, tmp_path):
    wanted = ["train_dataset.sampling={foreground: 0.9}"]
    made = preview(
        disc_recipe_file, draws=2, cases=["images/train0"], output=tmp_path / "sheet.png", overrides=wanted
    )
    assert made.path.is_file()
    never = ["train_dataset.sampling={foreground: 1}"]
    preview(disc_recipe_file, draws=2, cases=["images/train0"], output=made.path, overrides=never)
    assert made.path.is_file()
