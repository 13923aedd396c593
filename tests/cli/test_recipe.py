"""`medseg recipe`: what a recipe says, without running it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from medseg_paddle.cli import main
from medseg_paddle.config import Recipe, load_recipe

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture
def recipe() -> Path:
    return next(
        path for path in sorted(CONFIGS.rglob("*.yml")) if not any(p.startswith("_") for p in path.parts)
    )


def said(capsys, *words) -> str:
    with pytest.raises(SystemExit) as left:
        main(["recipe", *map(str, words)])
    assert not left.value.code
    return capsys.readouterr().out


def test_show_prints_a_recipe_that_loads_to_the_same(capsys, recipe, tmp_path):
    (tmp_path / "again.yml").write_text(said(capsys, "show", recipe, "--set", "iters=7"))
    again = load_recipe(tmp_path / "again.yml")
    assert again.iters == 7
    assert again == load_recipe(recipe, ["iters=7"])


def test_check_says_ok_and_names_the_model(capsys, recipe):
    text = said(capsys, "check", recipe)
    assert text.startswith("OK ")
    assert load_recipe(recipe).model.type in text


def test_list_names_every_shipped_recipe(capsys, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    text = said(capsys, "list")
    shipped = [
        p.relative_to(CONFIGS.parent) for p in CONFIGS.rglob("*.yml") if not any(x[0] == "_" for x in p.parts)
    ]
    assert shipped
    assert all(str(path) in text for path in shipped)


def test_schema_is_json_and_knows_every_key(capsys):
    schema = json.loads(said(capsys, "schema"))
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert yaml.safe_load(json.dumps(schema["properties"]["iters"]))["exclusiveMinimum"] == 0
