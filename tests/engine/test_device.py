"""Where Paddle computes, and what `deterministic` sets there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medseg_paddle.config import load_recipe
from medseg_paddle.engine.device import DETERMINISTIC_FLAGS, set_device
from medseg_paddle.errors import RecipeError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "reproduce.md"


def test_on_a_cpu_deterministic_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    assert set_device("cpu", deterministic=True) == "cpu"
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ


@pytest.mark.parametrize("flag", [*DETERMINISTIC_FLAGS, "NVIDIA_TF32_OVERRIDE"])
def test_every_flag_that_it_sets_on_a_gpu_is_documented(flag: str) -> None:
    assert f"`{flag}=" in PAGE.read_text(encoding="utf-8")


def test_the_recipe_s_key_is_true_or_false(disc_recipe_file: Path) -> None:
    assert not load_recipe(disc_recipe_file).deterministic
    assert load_recipe(disc_recipe_file, ["deterministic=true"]).deterministic
    with pytest.raises(RecipeError, match="deterministic"):
        load_recipe(disc_recipe_file, ["deterministic=sometimes"])
