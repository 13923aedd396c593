"""The drawing of a network for the dashboard."""

from __future__ import annotations

from pathlib import Path

from medseg_paddle.config import load_recipe
from medseg_paddle.engine import model_graph
from medseg_paddle.run import Run


def test_a_network_with_sigmoids_is_drawn(tmp_path: Path, disc_recipe_file: Path) -> None:
    recipe = load_recipe(disc_recipe_file, ["model={type: AttentionUNet}"])
    run = Run.create(tmp_path / "run", recipe, {})
    model_graph.wait(model_graph.start_drawing(tmp_path / "run"))
    assert model_graph.is_drawn(tmp_path / "run"), run.log.read_text()
