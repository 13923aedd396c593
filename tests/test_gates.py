"""What holds for the whole project: recipes load, docs are complete, help is quick and light."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from medseg_paddle.config import load_recipe
from medseg_paddle.config.shipped import shipped_recipes

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("paddle", "paddleseg", "visualdl", "cv2", "matplotlib", "scipy", "optuna", "sqlalchemy")


def reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = reference()
COMMANDS = dict(REFERENCE.commands())


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda p: p.name)
def test_every_shipped_recipe_loads_and_says_what_it_is_for(path):
    assert load_recipe(path).description


def test_every_file_in_configs_is_a_shipped_recipe_or_a_part_of_one():
    parts = set((ROOT / "configs").rglob("_*"))
    rest = {path for path in (ROOT / "configs").rglob("*.yml") if not parts & {path, *path.parents}}
    assert rest == set(shipped_recipes())


@pytest.mark.parametrize("path", REFERENCE.pages(), ids=lambda p: p.name)
def test_reference_is_what_the_code_says(path):
    assert path.read_text(encoding="utf-8") == REFERENCE.pages()[path], "run `make reference`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help_and_stands_in_the_reference(name):
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    command = COMMANDS[name]
    assert command.help
    assert " ".join(command.help.split()) in section
    for param in command.params:
        assert param.help, param.name
        for option in [*param.opts, *param.secondary_opts] if param.param_type_name == "option" else []:
            assert f"`{option}`" in section


@pytest.mark.parametrize("words", [[*name.split()[1:], "--help"] for name in COMMANDS], ids=" ".join)
def test_help_is_quick_and_loads_nothing_heavy(words):
    used, loaded = in_a_fresh_process(f"from medseg_paddle.cli import main\nmain({words})")
    assert loaded == []
    assert used < 1.5


@pytest.mark.parametrize(
    "words", [["check", "{recipe}"], ["show", "{recipe}"], ["list"], ["schema"]], ids=" ".join
)
def test_recipe_commands_are_quick_and_load_nothing_heavy(words):
    words = ["recipe", *(word.format(recipe=shipped_recipes()[0]) for word in words)]
    used, loaded = in_a_fresh_process(f"from medseg_paddle.cli import main\nmain({words})")
    assert loaded == []
    assert used < 1.5


@pytest.mark.parametrize(
    "module", ["steps.prepare", "steps.check", "steps.phantom", "steps.board", "io", "metrics.report", "core"]
)
def test_data_and_metrics_need_no_paddle(module):
    _, loaded = in_a_fresh_process(f"import medseg_paddle.{module}")
    assert not {"paddle", "paddleseg", "visualdl"} & set(loaded)


@pytest.mark.parametrize("name", ["prepare", "train", "evaluate", "export", "predict"])
def test_tools_are_the_same_call_as_the_command(name):
    tool = subprocess.run(
        [sys.executable, ROOT / "tools" / f"{name}.py", "--help"], capture_output=True, text=True, check=True
    )
    command = subprocess.run(
        [sys.executable, "-m", "medseg_paddle", name, "--help"], capture_output=True, text=True, check=True
    )
    assert tool.stdout == command.stdout
    assert f"medseg {name}" in tool.stdout


def in_a_fresh_process(code: str) -> tuple[float, list[str]]:
    """CPU seconds that `code` took in a new interpreter, and which heavy packages it loaded."""
    program = (
        "import json, sys, time\n"
        f"try:\n    exec({code!r})\nexcept SystemExit as left:\n    assert not left.code, left.code\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print('\\n' + json.dumps([time.process_time(), loaded]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    used, loaded = json.loads(done.stdout.splitlines()[-1])
    return used, loaded
