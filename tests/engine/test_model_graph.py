"""The drawing of a network for the dashboard."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_paddle.config import load_recipe
from medseg_paddle.engine import model_graph
from medseg_paddle.run import Run


@pytest.mark.parametrize(
    ("recipe", "model"),
    [
        ("disc_recipe_file", "{type: AttentionUNet}"),
        ("ball_recipe_file", "{type: AttentionUNet3D, width: 2, depth: 2}"),
    ],
)
def test_a_network_with_sigmoids_is_drawn(
    tmp_path: Path, recipe: str, model: str, request: pytest.FixtureRequest
) -> None:
    run = Run.create(tmp_path / "run", load_recipe(request.getfixturevalue(recipe), [f"model={model}"]), {})
    model_graph.wait(model_graph.start_drawing(tmp_path / "run"))
    assert model_graph.is_drawn(tmp_path / "run"), run.log.read_text()
