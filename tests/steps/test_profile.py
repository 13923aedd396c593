"""A training is measured: a slow loader is told from a fast one, the shares add up, the trace opens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medseg_paddle.cli import main
from medseg_paddle.errors import SetupError
from medseg_paddle.steps.profile import profile


def test_a_training_that_computes_is_measured_and_traced(
    disc_recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    pace: Callable[..., None],
) -> None:
    pace(slow_loading=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(SystemExit) as left:
        main(["profile", "--config", str(disc_recipe_file), "--iters", "4", "--set", "model.width=16"])
    assert not left.value.code
    said = capsys.readouterr().out
    (folder,) = (tmp_path / "here" / "outputs").iterdir()
    assert folder.name == "profile-discs", "and no run beside it"
    assert sorted(path.name for path in folder.iterdir()) == ["profile.json", "trace.json"]

    found = json.loads((folder / "profile.json").read_text())
    measured, traced = found["measured"], found["traced"]
    assert "loader" not in [advice["topic"] for advice in found["advice"]]
    assert 0 <= measured["waiting"] < 0.2
    assert found["images_per_second"] == pytest.approx(2 / measured["seconds"])
    assert found["memory_peak"] > 100 * 2**20
    assert traced["iterations"] == 10
    assert 0.5 < sum(measured["shares"].values()) <= 1
    assert all(one["seconds"] >= 0 for one in traced["operators"])
    assert all(seconds > 0 for seconds in traced["parts"].values())
    assert sum(traced["parts"].values()) <= traced["seconds"]
    calls = {one["name"]: one["calls"] for one in traced["operators"]}
    # A network of two levels has 11 convolutions; the image itself needs no gradient.
    assert calls["conv2d (oneDNN)"] == calls["conv2d_grad (oneDNN)"] == 110
    assert "conv2d (oneDNN)" in said

    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert len([event for event in events if "conv2d (oneDNN)" in event.get("name", "")]) >= 110


def test_a_training_that_waits_for_images_is_told_so(
    disc_recipe_file: Path, tmp_path: Path, pace: Callable[..., None]
) -> None:
    pace(slow_loading=True)
    found = profile(
        disc_recipe_file, overrides=["train_dataset.cache_mb=0"], iterations=3, output=tmp_path / "slow"
    )
    assert found.measured.waiting > 0.5
    advice = {one.topic: one.text for one in found.advice}
    assert "num_workers" in advice["loader"]
    assert advice["cache"].startswith("0 of 6 images are kept decoded")

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(SetupError, match="holds something else"):
        profile(disc_recipe_file, iterations=1, output=tmp_path / "mine")
