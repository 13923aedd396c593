"""How a data set is written: by several processes, interrupted and gone on with, and looked at before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_paddle.cli import main
from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import LabelSet, Manifest
from medseg_paddle.errors import DataError, SetupError
from medseg_paddle.io.files import resumable_folder
from medseg_paddle.io.images import read_label
from medseg_paddle.steps.dataset import write_dataset
from medseg_paddle.steps.dry_run import dry_run
from medseg_paddle.steps.parallel import in_order

TWO = LabelSet.generic(2)
SECTION = {"sets": [{"images": "img/*", "labels": "lab/*"}], "label_map": {0: 0, 255: 1}, "val_fraction": 0.2}


def pictures(root: Path, count: int, size: int = 16) -> Path:
    for folder in ("img", "lab"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for number in range(count):
        image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(image).save(root / "img" / f"p{number:03d}.png")
        label = np.zeros((size, size), np.uint8)
        label[: number % size, 3:7] = 255
        Image.fromarray(label).save(root / "lab" / f"p{number:03d}.png")
    return root


def run(source: Path, destination: Path, **options) -> Manifest:
    rules = PrepareSpec.model_validate(SECTION | options.pop("rules", {}))
    return write_dataset(rules, source=source, destination=destination, labels=TWO, name="set", **options)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


# --- several processes ------------------------------------------------------------------------------------


def test_the_data_set_does_not_depend_on_the_number_of_workers(tmp_path):
    source = pictures(tmp_path / "in", 12)
    seen = []
    run(source, tmp_path / "one", workers=1)
    run(source, tmp_path / "three", workers=3, progress=lambda *what: seen.append(what))
    assert content(tmp_path / "one") == content(tmp_path / "three")
    assert len(content(tmp_path / "one")) == 12 * 2 + 4
    assert seen == [(n + 1, 12, f"p{n:03d}.png") for n in range(12)]


def test_an_error_in_a_worker_is_the_first_in_order_and_the_user_s(tmp_path):
    source = pictures(tmp_path / "in", 12)
    for number in (4, 9):
        (source / "img" / f"p{number:03d}.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError) as caught:
        run(source, tmp_path / "out", workers=2)
    assert "p004.png" in caught.value.message
    assert caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_undeclared_values_found_by_a_worker_keep_their_hint(tmp_path):
    source = pictures(tmp_path / "in", 6)
    with pytest.raises(DataError, match="255") as caught:
        run(source, tmp_path / "out", workers=2, rules={"label_map": None})
    assert "label_map: {0: 0, 255: 1}" in caught.value.hint


def test_results_come_in_order_whoever_is_ready_first():
    waits = [0.3, 0.0, 0.2, 0.0, 0.1, 0.0]
    started = time.monotonic()
    assert list(in_order(time.sleep, waits, workers=3)) == [None] * 6
    assert list(in_order(abs, [-3, 1, -2], workers=2)) == [3, 1, 2]
    assert time.monotonic() - started < 30


def test_a_worker_that_dies_is_an_error_with_the_file_s_name():
    with pytest.raises(
        DataError, match=r"the process that read 9 ended without an answer \(signal SIGKILL\)"
    ):
        list(in_order(partial(_signal_itself), [0, 9, 0, 0], workers=2))


_signal_itself = signal.raise_signal  # a function that a worker can find


def test_a_defect_in_a_worker_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(in_order(partial(divmod, 1), [1, 0], workers=2))


def test_preparing_with_workers_loads_no_paddle_and_runs_no_script_again(tmp_path):
    source = pictures(tmp_path / "in", 6)
    script = tmp_path / "mine.py"  # as users write them: without `if __name__ == "__main__"`
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from medseg_paddle.config.prepare import PrepareSpec\nfrom medseg_paddle.core import LabelSet\n"
        "from medseg_paddle.steps.dataset import write_dataset\nprint('began')\n"
        f"write_dataset(PrepareSpec.model_validate({SECTION!r}), source=Path({str(source)!r}), "
        f"destination=Path({str(tmp_path / 'out')!r}), labels=LabelSet.generic(2), name='set', workers=2)\n"
        "assert 'paddle' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, env=_environment()
    )
    assert done.stdout == "began\n"
    assert len(Manifest.load(tmp_path / "out").splits["train"]) == 5


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}


# --- interrupted and gone on with -------------------------------------------------------------------------


class Stop(BaseException):
    """As KeyboardInterrupt."""


def interrupted(source: Path, destination: Path, after: int, **options) -> None:
    def stop(done: int, _total: int, _name: str) -> None:
        if done == after:
            raise Stop

    with pytest.raises(Stop):
        run(source, destination, progress=stop, **options)
    assert not destination.exists()


def test_an_interrupted_preparation_goes_on_and_ends_like_one_that_was_not(tmp_path, monkeypatch):
    source = pictures(tmp_path / "in", 10)
    run(source, tmp_path / "whole")
    interrupted(source, tmp_path / "out", after=6)
    read, said = [], []
    import medseg_paddle.steps.sources.pictures as module

    original = module.read_samples
    monkeypatch.setattr(module, "read_samples", lambda path: read.append(path.name) or original(path))
    run(source, tmp_path / "out", say=said.append)
    assert read == [f"p{n:03d}.png" for n in range(6, 10)]
    assert said == ["going on with an interrupted preparation: 6 of 10 are written"]
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "whole"]


def test_what_changed_meanwhile_is_written_anew(tmp_path):
    source = pictures(tmp_path / "in", 6)
    interrupted(source, tmp_path / "out", after=5)
    partial_folder = tmp_path / ".out.partial"
    label = source / "lab" / "p001.png"
    Image.fromarray(np.full((16, 16), 255, np.uint8)).save(label)  # a source file
    os.utime(label, ns=(1, 1))
    (partial_folder / "images" / "p002.png").write_bytes(b"cut short")  # a written one
    with (partial_folder / ".journal").open("a") as journal:
        journal.write('{"source": "p0')  # the line that was being written
    (source / "img" / "p003.png").unlink()
    (source / "lab" / "p003.png").unlink()
    manifest = run(source, tmp_path / "out")
    run(source, tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    cases = {case.id: case for cases in manifest.splits.values() for case in cases}
    assert (read_label(cases["p001"].label) == 1).all()
    assert "p003" not in cases


def test_other_settings_begin_anew(tmp_path):
    source = pictures(tmp_path / "in", 6)
    interrupted(source, tmp_path / "out", after=5)
    said = []
    run(source, tmp_path / "out", rules={"label_map": {0: 1, 255: 0}}, say=said.append)
    run(source, tmp_path / "whole", rules={"label_map": {0: 1, 255: 0}})
    assert said == []
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_killed_program_goes_on(tmp_path):
    source = pictures(tmp_path / "in", 40)
    script = (
        "import os, sys, signal\nfrom pathlib import Path\n"
        "from medseg_paddle.config.prepare import PrepareSpec\nfrom medseg_paddle.core import LabelSet\n"
        "from medseg_paddle.steps.dataset import write_dataset\n"
        "def die(done, total, name):\n    if done == 20: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_dataset(PrepareSpec.model_validate({SECTION!r}), source=Path({str(source)!r}), "
        f"destination=Path({str(tmp_path / 'out')!r}), labels=LabelSet.generic(2), name='set', workers=2, "
        "progress=die)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, env=_environment())
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    said = []
    run(source, tmp_path / "out", say=said.append)
    run(source, tmp_path / "whole")
    assert said[0].startswith("going on with an interrupted preparation: ")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_two_at_a_time_do_not_write_one_data_set(tmp_path):
    source = pictures(tmp_path / "in", 3)
    with resumable_folder(tmp_path / "out", key="other"), pytest.raises(SetupError, match="another process"):
        run(source, tmp_path / "out")


def test_an_earlier_data_set_stays_until_the_new_one_is_whole(tmp_path):
    source = pictures(tmp_path / "in", 4)
    run(source, tmp_path / "out")
    before = content(tmp_path / "out")
    (source / "img" / "p002.png").write_bytes(b"")
    with pytest.raises(DataError):
        run(source, tmp_path / "out", overwrite=True)
    assert content(tmp_path / "out") == before


# --- looked at before -------------------------------------------------------------------------------------


def look(source: Path, **rules):
    return dry_run(PrepareSpec.model_validate(SECTION | rules), source=source, labels=TWO)


def test_a_dry_run_counts_images_classes_and_splits_and_writes_nothing(tmp_path):
    source = pictures(tmp_path / "in", 5)
    found = look(source)
    assert found.problems == ()
    share = sum(n * 4 for n in range(5)) / (5 * 16 * 16)
    assert list(found.lines) == [
        f"reader pairs: 5 cases below {source}",
        "  5 images of 16 x 16 pixels (rows x columns), 3 channels, 8 bits",
        f"  class 0 'background': {1 - share:.3%} of the pixels, in 5 of 5 cases",
        f"  class 1 'class 1': {share:.3%} of the pixels, in 4 of 5 cases",
        "train: 4 images of 4 cases",
        "  val: 1 images of 1 cases",
        " test: 0 images of 0 cases",
        "each image is counted as a patient of its own; set `patient` in `prepare` where several are of one",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_dry_run_tells_every_problem(tmp_path):
    source = pictures(tmp_path / "in", 8)
    (source / "lab" / "p000.png").unlink()
    (source / "img" / "p001.png").unlink()
    (source / "img" / "p002.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((16, 17), np.uint8)).save(source / "lab" / "p003.png")
    for number, value in ((4, 7), (5, 9), (6, 9)):
        Image.fromarray(np.full((16, 16), value, np.uint8)).save(source / "lab" / f"p{number:03d}.png")
    found = look(source)
    said = [one.message for one in found.problems]
    assert len(said) == 5
    assert "no label for img/p000.png" in said[0]
    assert "label without an image: lab/p001.png" in said[1]
    assert "p004.png and 2 more cases" in said[2]
    assert said[2].endswith(": 7 (256 pixels), 9 (512 pixels)")
    assert "label_map: {0: 0, 255: 1, 7: ?, 9: ?}" in found.problems[2].hint
    assert "p002.png" in said[3]
    assert "p003.png is 16 x 17" in said[4]


def test_a_real_run_says_how_many_problems_there_are(tmp_path):
    source = pictures(tmp_path / "in", 5)
    (source / "lab" / "p000.png").unlink()
    (source / "img" / "p001.png").unlink()
    with pytest.raises(DataError, match="no label for") as caught:
        run(source, tmp_path / "out")
    assert "1 more problem, all are listed by `medseg prepare --dry-run`" in caught.value.hint


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["prepare", *map(str, words)])
    return int(left.value.code or 0)


def test_the_command_proposes_what_its_own_dry_run_then_accepts(tmp_path, capsys, disc_recipe_file):
    source = pictures(tmp_path / "in" / "images_and_labels", 5)
    (source / "img").rename(source / "images")
    (source / "lab").rename(source / "labels")
    assert command(tmp_path / "in", "--dry-run") == 0
    said = capsys.readouterr().out
    assert said.startswith("found: a folder of images and one of labels: 5 images, 5 labels")
    section = said.split("\n\n", 1)[1]
    disc_recipe_file.write_text(disc_recipe_file.read_text() + section)
    assert command(tmp_path / "in", "--dry-run", "--config", disc_recipe_file) == 0
    said = capsys.readouterr().out
    assert "reader pairs: 5 cases" in said
    assert said.rstrip().endswith("nothing was written")


def test_the_command_ends_with_3_where_something_is_wrong(tmp_path, capsys, disc_recipe_file):
    source = pictures(tmp_path / "in", 5)
    (source / "lab" / "p000.png").unlink()
    section = {**SECTION, "label_map": None, "label_threshold": 1}  # JSON has no numbers for keys
    disc_recipe_file.write_text(disc_recipe_file.read_text() + f"\nprepare: {json.dumps(section)}\n")
    assert command(source, "--dry-run", "--config", disc_recipe_file) == 3
    said = capsys.readouterr()
    assert "problem 1:" in said.out
    assert "cannot be prepared: 1 problem, listed above" in said.err


@pytest.mark.parametrize(
    ("words", "message"), [((), "no recipe is named"), (("--dry-run",), "needs a folder")]
)
def test_the_command_without_recipe_or_folder_says_what_it_needs(words, message, tmp_path, capsys):
    folder = () if "--dry-run" in words else (tmp_path,)
    assert command(*folder, *words) == 2
    assert message in capsys.readouterr().err
