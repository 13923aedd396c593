"""The command line translates: words to one call of a step, errors to a line, a hint and an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from medseg_paddle.cli import main
from medseg_paddle.core import LabelSet
from medseg_paddle.errors import DataError, ModelError, RecipeError, SetupError
from medseg_paddle.metrics.overlap import CaseCounts
from medseg_paddle.metrics.report import Report
from medseg_paddle.steps.predict_summary import ClassExtent, PredictionSummary, Result


@pytest.fixture
def step(monkeypatch):
    """Put a stand-in in a step's place; it notes how it was called and does as told."""
    calls = []

    def replace(name, result=None, error=None, **others):
        def stand_in(*args, **kwargs):
            calls.append((args, kwargs))
            if error is not None:
                raise error
            return result

        module = ModuleType(f"medseg_paddle.steps.{name}")
        vars(module).update({name: stand_in, **others})
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
    assert run(*words, "--resume", "--devices", "0, 1") == 0
    assert calls == [
        (
            (Path("a.yml"),),
            {
                "output": Path("out"),
                "overrides": ["iters=3", "batch_size=1"],
                "resume": True,
                "overwrite": False,
                "device": "cpu",
                "max_time": None,
                "nproc": None,
                "devices": [0, 1],
            },
        )
    ]
    assert "outputs/x" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--devices", "0,gpu1"], ["--verify-determinism", "--nproc", "2"]])
def test_train_refuses_words_for_processes_that_make_no_sense(words, capsys):
    assert run("train", "--config", "a.yml", *words) == 2
    assert "hint:" in capsys.readouterr().err


def test_prepare_hands_its_words_to_the_step(step, capsys):
    made = SimpleNamespace(root=Path("data/x"))
    calls = step("prepare", made, summary=lambda of: [f"train: 3 images in {of.root}"])
    assert run("prepare", "own", "--config", "a.yml", "-o", "out", "-s", "name=b", "--overwrite") == 0
    assert run("prepare", "--config", "a.yml", "--keep", "--workers", "3") == 0
    assert calls == [
        (
            (Path("a.yml"), Path("own")),
            {
                "output": Path("out"),
                "overrides": ["name=b"],
                "overwrite": True,
                "keep": False,
                "workers": None,
            },
        ),
        (
            (Path("a.yml"), None),
            {"output": None, "overrides": (), "overwrite": False, "keep": True, "workers": 3},
        ),
    ]
    assert capsys.readouterr().out == 2 * "train: 3 images in data/x\ndata set: data/x\n"


def test_export_hands_its_words_to_the_step(step):
    calls = step("export", SimpleNamespace(path=Path("run/bundle"), id="0123"))
    assert run("export", "run", "--overwrite") == 0
    assert run("export", "run", "--set", "export.tolerance=1e-3", "-s", "device=cpu") == 0
    options = {"checkpoint": "best", "output": None, "overwrite": True, "device": None, "overrides": ()}
    changed = {**options, "overwrite": False, "overrides": ["export.tolerance=1e-3", "device=cpu"]}
    assert calls == [(([Path("run")],), options), (([Path("run")],), changed)]


def test_evaluate_hands_its_words_to_the_step(step, capsys):
    counts = CaseCounts(2)
    counts.add(np.eye(4, dtype=np.uint8), np.eye(4, dtype=np.uint8), None, None)
    labels = LabelSet.from_names(["background", "[b]x[/y]"])
    calls = step("evaluate", Report.from_counts({"a": counts}, labels))
    assert run("evaluate", "run", "--split", "val", "--set", "inference.divisor=32") == 0
    options = {"split": "val", "checkpoint": "best", "output": None, "overlays": 8, "device": None}
    assert calls == [(([Path("run")],), {**options, "overrides": ["inference.divisor=32"]})]
    assert "[b]x[/y]" in capsys.readouterr().out


ODD = "br[bold]/c[/y]:cat:[1]"


def test_paths_are_printed_as_they_are(step, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    step("train", SimpleNamespace(path=Path(ODD)))
    assert run("train", "--config", "a.yml") == 0
    step("export", SimpleNamespace(path=Path(ODD), id="0123"))
    assert run("export", "run") == 0
    step("phantom")
    assert run("phantom", ODD) == 0
    extent = ClassExtent("organ", 7, None)
    result = Result("a", Path("a.png"), ("a_mask.png",), (extent,), 1.0)
    step("predict", PredictionSummary(Path(ODD), "0123", (result,), ()))
    assert run("predict", "bundle", "a.png", "-o", ODD) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"run: {ODD}",
        f"bundle: {ODD} (id 0123)",
        f"12 patients: {ODD}",
        f"1 segmented by bundle 0123, results in {ODD}",
        "  a: organ 7 px",
    ]
    step("train", error=DataError(f"{ODD} is gone", hint=f"look for {ODD}"))
    assert run("train", "--config", "a.yml") == 3
    assert capsys.readouterr().err == f"error: {ODD} is gone\nhint:  look for {ODD}\n"


def test_recipes_at_odd_paths_are_printed_as_they_are(capsys, tmp_path):
    folder = tmp_path / "br[bold]" / "c[" / "y]:cat:"
    folder.mkdir(parents=True)
    recipe = folder / "mine.yml"
    recipe.write_text((Path(__file__).resolve().parents[2] / "configs" / "unet_drive.yml").read_text())
    assert run("recipe", "check", recipe) == 0
    assert capsys.readouterr().out.startswith(f"OK {recipe}: ScalableUNet")


def test_predict_hands_over_many_inputs_and_fails_after_a_bad_one(step, capsys):
    def incomplete():
        raise DataError("1 of 2 inputs could not be segmented", hint="mend it")

    summary = SimpleNamespace(require_complete=incomplete)
    calls = step("predict", summary)
    assert run("predict", "bundle", "a.png", "b", "-o", "out", "--no-overlays") == 3
    (arguments, options), *_ = calls
    assert arguments == (Path("bundle"), [Path("a.png"), Path("b")], Path("out"))
    assert options == {
        "formats": ["nifti"],
        "labelmap": False,
        "report": False,
        "key_images": False,
        "mesh": None,
        "probabilities": False,
        "overlays": False,
        "series": (),
        "resample_channels": False,
        "max_memory": None,
        "device": "auto",
        "overwrite": False,
    }
    words = (
        "--format",
        "seg",
        "--format",
        "rtstruct",
        "--labelmap",
        "--report",
        "--key-images",
        "--mesh",
        "obj",
    )
    assert run("predict", "bundle", "ct", "-o", "out", *words) == 3
    assert {name: calls[1][1][name] for name in ("formats", "labelmap", "report", "key_images", "mesh")} == {
        "formats": ["seg", "rtstruct"],
        "labelmap": True,
        "report": True,
        "key_images": True,
        "mesh": "obj",
    }
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


@pytest.mark.parametrize(
    "words",
    [
        ["convert", "case.nii.gz", "x" * 300 + ".mha"],
        ["convert", "case.nii.gz", "x" * 300 + ".dcm", "--reference", "ct", "--drawn-by", "manual"],
        ["predict", "bundle", "case.nii.gz", "-o", "x" * 300],
        ["predict", "bundle", "x" * 300, "-o", "out"],
        ["check", "x" * 300],
        ["evaluate", "x" * 300],
    ],
)
def test_a_name_that_no_file_can_have_is_refused_with_a_hint(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("case.nii.gz").touch()
    Path("ct").mkdir()
    assert run(*words) == 5
    said = capsys.readouterr().err
    assert "x" * 300 in said.replace("\n", "")
    assert "at most 255 bytes" in said
    assert {path.name for path in tmp_path.iterdir()} == {"case.nii.gz", "ct"}


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


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python knows PYTHONSAFEPATH since 3.11")
def test_nothing_is_imported_from_the_folder_that_it_is_called_in(tmp_path):
    program = Path(sys.executable).with_name("medseg")
    if not program.is_file():
        pytest.skip("medseg is not installed beside this Python")
    for name in ("numpy.py", "paddle.py"):
        (tmp_path / name).write_text("from pathlib import Path; Path('imported').touch()")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    subprocess.run(
        [program, "doctor"], cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=240
    )
    assert not (tmp_path / "imported").exists()
