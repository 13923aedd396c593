"""The command line translates: words to one call of a step, errors to a line, a hint and an exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from medseg_paddle.cli import main
from medseg_paddle.errors import DataError, ModelError, RecipeError, SetupError


@pytest.fixture
def step(monkeypatch):
    """Put a stand-in in a step's place; it notes how it was called and does as told."""
    calls = []

    def replace(name, result=None, error=None):
        def stand_in(*args, **kwargs):
            calls.append((args, kwargs))
            if error is not None:
                raise error
            return result

        module = ModuleType(f"medseg_paddle.steps.{name}")
        setattr(module, name, stand_in)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return calls

    return replace


def run(*words) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code or 0


def test_train_hands_its_words_to_the_step(step, capsys):
    calls = step("train", SimpleNamespace(path=Path("outputs/x")))
    words = [
        "train",
        "--config",
        "a.yml",
        "-o",
        "out",
        "--set",
        "iters=3",
        "-s",
        "batch_size=1",
        "--device",
        "cpu",
    ]
    assert run(*words, "--resume") == 0
    assert calls == [
        (
            (Path("a.yml"),),
            {
                "output": Path("out"),
                "overrides": ["iters=3", "batch_size=1"],
                "resume": True,
                "overwrite": False,
                "device": "cpu",
            },
        )
    ]
    assert "outputs/x" in capsys.readouterr().out


def test_prepare_hands_its_words_to_the_step(step, capsys):
    cases = [SimpleNamespace(patient=patient) for patient in "aab"]
    calls = step("prepare", SimpleNamespace(splits={"train": cases}, root=Path("data/x")))
    assert run("prepare", "own", "--config", "a.yml", "-o", "out", "-s", "name=b", "--overwrite") == 0
    assert run("prepare", "--config", "a.yml", "--keep") == 0
    assert calls == [
        (
            (Path("a.yml"), Path("own")),
            {"output": Path("out"), "overrides": ["name=b"], "overwrite": True, "keep": False},
        ),
        (
            (Path("a.yml"), None),
            {"output": None, "overrides": (), "overwrite": False, "keep": True},
        ),
    ]
    assert "train: 3 images of 2 patients" in capsys.readouterr().out


def test_export_hands_its_words_to_the_step(step):
    calls = step("export", SimpleNamespace(path=Path("run/bundle"), id="0123"))
    assert run("export", "run", "--overwrite") == 0
    assert calls == [((Path("run"),), {"output": None, "overwrite": True, "device": None})]


def test_predict_hands_over_many_inputs_and_fails_after_a_bad_one(step, capsys):
    def incomplete():
        raise DataError("1 of 2 inputs could not be segmented", hint="mend it")

    summary = SimpleNamespace(require_complete=incomplete)
    calls = step("predict", summary)
    assert run("predict", "bundle", "a.png", "b", "-o", "out", "--no-overlays") == 3
    (arguments, options), *_ = calls
    assert arguments == (Path("bundle"), [Path("a.png"), Path("b")], Path("out"))
    assert options == {"probabilities": False, "overlays": False, "device": "auto", "overwrite": False}
    assert "error: 1 of 2 inputs" in capsys.readouterr().err


def test_board_and_demo_hand_their_words_to_the_step(step):
    calls = step("board")
    assert run("board", "outputs", "--port", "9000", "--host", "0.0.0.0") == 0
    assert calls[0][0] == (Path("outputs"),)
    assert (calls[0][1]["host"], calls[0][1]["port"], calls[0][1]["wait"]) == ("0.0.0.0", 9000, False)
    step("demo")
    assert run("demo", "--quick") == 0
    assert calls[1] == ((Path("outputs/demo"),), {"quick": True})


@pytest.mark.parametrize(
    ("error", "code"),
    [(RecipeError, 2), (DataError, 3), (ModelError, 4), (SetupError, 5)],
    ids=str,
)
def test_user_errors_are_two_lines_and_an_exit_code(step, capsys, error, code):
    step("train", error=error("a [bold]thing[/] is wrong " + "/very/long/path" * 20, hint="do [that]"))
    assert run("train", "--config", "a.yml") == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "error: a [bold]thing[/] is wrong " + "/very/long/path" * 20,
        "hint:  do [that]",
    ]


def test_interrupt_exits_130_without_a_traceback(step, capsys):
    step("train", error=KeyboardInterrupt())
    assert run("train", "--config", "a.yml") == 130
    assert "Traceback" not in capsys.readouterr().err


def test_our_own_defects_keep_their_traceback(step):
    step("train", error=ZeroDivisionError("a defect"))
    with pytest.raises(ZeroDivisionError):
        main(["train", "--config", "a.yml"])


@pytest.mark.parametrize(
    "words",
    [
        ["train"],
        ["nonsense"],
        ["train", "--config", "a.yml", "--divice", "cpu"],
        ["board", "x", "--port", "0"],
    ],
)
def test_wrong_words_exit_2_before_anything_runs(step, capsys, words):
    calls = [*step("train"), *step("board")]
    assert run(*words) == 2
    assert calls == []
    assert "Usage" in capsys.readouterr().err


def test_missing_recipe_is_an_error_with_a_hint(capsys, tmp_path):
    (tmp_path / "unet.yml").touch()
    assert run("recipe", "check", tmp_path / "unett.yml") == 2
    assert f"hint:  did you mean {tmp_path / 'unet.yml'}?" in capsys.readouterr().err
