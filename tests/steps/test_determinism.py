"""Two trainings in fresh processes are the same; where they are not, the report says where and by how much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg_paddle.cli import main
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.steps.determinism import Trained, compare, verify_determinism


def medseg(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code or 0


def test_fresh_processes_train_the_same_with_and_without_loader_processes(
    disc_recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = ["train", "--config", disc_recipe_file, "--verify-determinism"]
    assert medseg(*words, "--verify-iters", 3, "--verify-workers", 2) == 0
    said = capfd.readouterr().out
    assert "compared: 3 losses, " in said
    assert "num_workers 0 and 2, cpu with " in said
    assert "the same, bit for bit" in said
    assert not list((tmp_path / "here").iterdir()), "no run folder is made"


UNSEEDED = """
import os

import numpy

seeded = numpy.random.default_rng
numpy.random.default_rng = lambda seed=None: seeded(int.from_bytes(os.urandom(8), "big"))
"""


def test_a_training_that_draws_what_no_seed_says_is_found_out(
    disc_recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(UNSEEDED)  # the processes that train import it
    monkeypatch.syspath_prepend(tmp_path / "broken")
    assert medseg("train", "--config", disc_recipe_file, "--verify-determinism", "--verify-iters", 1) == 1
    said = capfd.readouterr().out
    assert "the losses differ from iteration 1 on" in said
    assert "the first loss already differs: other images" in said


def test_what_it_cannot_do_is_refused_before_a_process_starts(disc_recipe_file: Path, discs: Path) -> None:
    words = ["train", "--config", disc_recipe_file, "--verify-determinism"]
    assert medseg(*words, "--output", "somewhere") == RecipeError.exit_code
    with pytest.raises(RecipeError, match="0 iterations"):
        verify_determinism(disc_recipe_file, iterations=0)


def test_an_error_in_the_other_process_is_an_error_here(disc_recipe_file: Path, discs: Path) -> None:
    (discs / "train_list.txt").write_text("images/none.png labels/none.png\n")
    with pytest.raises(DataError, match=r"none\.png"):
        verify_determinism(disc_recipe_file, iterations=1)


def trained(losses: list[float], *weights: float, device: str = "cpu", workers: int = 0) -> Trained:
    arrays = {f"layer{n}.weight": np.array([value, 1.0], np.float32) for n, value in enumerate(weights)}
    arrays["optimizer: moment"] = np.zeros(2, np.float32)
    facts = {"device": device, "cpu_kernels": "" if device != "cpu" else "oneDNN 3.6.2"}
    return Trained(dict(enumerate(losses, 1)), arrays, facts, "2", workers)


def test_the_first_iteration_and_layer_that_differ_are_named() -> None:
    found = compare(
        trained([3.0, 2.0, 1.0], 0.5, 0.25), trained([3.0, 2.0, 1.5], 0.5, 0.75), deterministic=False
    )
    assert not found.same
    assert (found.losses.first, found.losses.greatest) == (3, 0.5)
    assert [(one.name, one.greatest) for one in found.arrays] == [("layer1.weight", 0.5)]
    said = "\n".join(found.lines())
    assert "the losses differ from iteration 3 on: 1 and 1.5" in said
    assert "1 of 3 arrays differ" in said
    assert "the first loss is the same" in said
    assert "more than the order of additions explains" in said


def test_rounding_is_called_rounding_and_a_gpu_is_told_of_the_key() -> None:
    one, other = trained([1.0], 0.5, device="gpu:0"), trained([1.0 + 1e-7], 0.5, device="gpu:0")
    causes = "\n".join(compare(one, other, deterministic=False).causes)
    assert "the first loss already differs" in causes
    assert "is rounding" in causes
    assert "deterministic: true" in causes
    assert "deterministic: true" not in "\n".join(compare(one, other, deterministic=True).causes)


def test_loader_processes_are_suspected_only_where_their_number_differs() -> None:
    one, other = trained([1.0], 0.5), trained([2.0], 0.5, workers=2)
    assert "by 0 and by 2 processes" in "\n".join(compare(one, other, deterministic=False).causes)
    same = trained([2.0], 0.5)
    assert "processes" not in "\n".join(compare(one, same, deterministic=False).causes)


def test_equal_trainings_have_no_causes() -> None:
    found = compare(trained([1.0], 0.5), trained([1.0], 0.5), deterministic=False)
    assert found.same
    assert found.causes == ()
    assert found.lines()[-1] == "the same, bit for bit"
