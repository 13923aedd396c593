"""Trainings that are stopped by a signal, and go on."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import paddle
import pytest

from medseg_paddle.config import Recipe
from medseg_paddle.engine import training, validation
from medseg_paddle.engine.data import TrainingStream
from medseg_paddle.engine.interruption import StopSignals
from medseg_paddle.engine.paddleseg_adapter.loop import Hooks
from medseg_paddle.errors import DataError, SetupError
from medseg_paddle.run import Run
from medseg_paddle.steps.train import train


def digests(folder: Path) -> dict[str, str]:
    """Of the values in each file of a checkpoint."""
    found = {}
    for path in sorted(folder.glob("*.pd*")):
        state = paddle.load(str(path), return_numpy=True)
        found[path.name] = hashlib.sha256(
            b"".join(
                name.encode() + (value.tobytes() if hasattr(value, "tobytes") else repr(value).encode())
                for name, value in sorted(state.items())
            )
        ).hexdigest()
    assert found
    return found


def saved(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob("*"))


SIGNAL_ITSELF = """
import itertools, multiprocessing, os, sys
from dataclasses import replace
from importlib.abc import MetaPathFinder

kill, number, moment, *words = sys.argv[1:]

def strike():
    if kill == "loader":
        multiprocessing.active_children()[-1].kill()
    elif kill == "group":
        os.killpg(0, int(number))
    else:
        os.kill(os.getpid(), int(number))

class AtImport(MetaPathFinder):
    def find_spec(self, name, *_):
        if name == moment:
            sys.meta_path.remove(self)
            strike()

sys.meta_path.insert(0, AtImport())
if moment.isdecimal():
    from medseg_paddle.engine.startup import start_paddle
    start_paddle()
    from medseg_paddle.engine import training
    run_train, calls = training.run_train, itertools.count(1)

    def counted(hook):
        def call(*words, **options):
            if next(calls) == int(moment):
                strike()
            return hook(*words, **options)
        return call

    def replaced(*words, hooks, **options):
        names = ("before_iteration", "after_step", "loss", "evaluate", "save")
        counting = {name: counted(getattr(hooks, name)) for name in names}
        return run_train(*words, hooks=replace(hooks, **counting), **options)

    training.run_train = replaced
from medseg_paddle.cli import main
main(words)
"""
"""A program that sends a signal as a module is asked for, or at so many calls of a training's hooks."""


class Command:
    """`medseg train --resume` in a process group of its own.

    `signalling` has it signal itself, its group, or one of its processes that load images: whom, by what, when.
    """

    def __init__(
        self,
        recipe: Path,
        output: Path,
        overrides: list[str],
        signalling: tuple[str, int, object] | None = None,
    ) -> None:
        words = [sys.executable, "-u"]
        words += (
            ["-m", "medseg_paddle"] if signalling is None else ["-c", SIGNAL_ITSELF, *map(_word, signalling)]
        )
        words += ["train", "--resume", "--config", str(recipe), "--output", str(output)]
        words += [word for override in overrides for word in ("--set", override)]
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def end(self) -> tuple[int, str]:
        """Exit code, and what was said; no process of the group is left."""
        said, _ = self.process.communicate(timeout=300)
        with pytest.raises(ProcessLookupError):
            os.killpg(self.process.pid, 0)
        return self.process.returncode, said


def _word(value: object) -> str:
    return str(int(value) if isinstance(value, signal.Signals) else value)


def test_a_run_that_is_stopped_at_any_time_ends_like_one_that_was_not(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    length = ["iters=60", "save_interval=20", "log_iters=7"]
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=length)
    # A terminal's Ctrl-C reaches every process of the group; so does a stop of all processes of a service.
    for number, kill, workers in (
        (signal.SIGTERM, "itself", 0),
        (signal.SIGINT, "group", 2),
        (signal.SIGTERM, "group", 2),
    ):
        # An iteration calls hooks four times: the stop falls into one of the next 18 iterations.
        moment = random.randrange(2, 72)  # noqa: S311
        command = Command(
            disc_recipe_file, tmp_path / "run", [*length, f"num_workers={workers}"], (kill, number, moment)
        )
        code, said = command.end()
        print(number, moment, said)  # noqa: T201  (shown where the test fails)
        assert code == 128 + number
        stopped = re.findall(r"^stopped at iteration (\d+) of 60; go on with --resume$", said, re.MULTILINE)
        assert len(stopped) == 1
        assert "Traceback" not in said
        assert Run.open(tmp_path / "run").last_checkpoint == tmp_path / f"run/checkpoints/iter_{stopped[0]}"
        assert len([name for name in saved(tmp_path / "run") if name != "best_model"]) <= 2
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=length, resume=True)
    for name in ("iter_60", "best_model"):
        assert digests(run.checkpoints / name) == digests(whole.checkpoints / name)
    assert (run.path / "validation.jsonl").read_text() == (whole.path / "validation.jsonl").read_text()
    assert len(saved(run.path)) == 3


def test_a_run_that_loses_a_loader_process_keeps_all_it_has_learned(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    length = ["iters=60", "save_interval=60", "log_iters=10"]
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=length)
    loses_one = ("loader", signal.SIGKILL, 50)
    code, said = Command(disc_recipe_file, tmp_path / "run", [*length, "num_workers=2"], loses_one).end()
    print(said)  # noqa: T201  (shown where the test fails)
    assert code == 5
    assert "was killed (signal 9)" in said
    assert ".png" in said
    assert "Traceback" not in said
    (done,) = re.findall(r"^stopped at iteration (\d+) of 60; go on with --resume$", said, re.MULTILINE)
    assert saved(tmp_path / "run") == [f"iter_{done}"]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=length, resume=True)
    assert digests(run.checkpoints / "iter_60") == digests(whole.checkpoints / "iter_60")


def test_an_image_that_is_lost_amid_a_training_costs_nothing_that_was_learned(
    disc_recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, read = TrainingStream.batch, []

    def lose(stream: TrainingStream, positions: Any, *rest: Any) -> Any:
        read.append(positions)
        if len(read) == 9:
            raise DataError("scan.png is cut off", hint="copy it again")
        return batch(stream, positions, *rest)

    monkeypatch.setattr(TrainingStream, "batch", lose)
    with pytest.raises(DataError, match="cut off"):
        train(disc_recipe_file, output=tmp_path / "run", overrides=["num_workers=0"])
    assert "iter_8" in saved(tmp_path / "run")


def test_a_run_that_is_killed_goes_on_from_its_checkpoint_as_if_nothing_had_been(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    length = ["iters=30", "save_interval=10", "log_iters=10"]
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=length)
    killed = ("itself", signal.SIGKILL, random.randrange(50, 100))  # noqa: S311  (after the checkpoint at 10)
    command = Command(disc_recipe_file, tmp_path / "run", [*length, "num_workers=4"], killed)
    # Its output ends with the last of its processes: those that load images end by themselves.
    said, _ = command.process.communicate(timeout=300)
    assert command.process.returncode == -signal.SIGKILL, said
    assert next(name for name in saved(tmp_path / "run") if name.startswith("iter_")) == "iter_10"
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[*length, "num_workers=1"], resume=True)
    assert digests(run.checkpoints / "iter_30") == digests(whole.checkpoints / "iter_30")


def test_trainings_that_are_killed_again_and_again_end_like_one_that_was_not() -> None:
    repository = Path(__file__).resolve().parents[2]
    script = repository / "benchmarks" / "kills.py"
    done = subprocess.run(
        [sys.executable, str(script), "--minutes", "0", "--kills", "3", "--seed", str(seed := random.randrange(10**6))],  # noqa: S311
        env={**os.environ, "PYTHONPATH": str(repository)}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (seed, done.stdout, done.stderr)
    assert re.search(r"killed [1-3] times", done.stdout), done.stdout


def test_a_stop_before_the_training_begins_leaves_nothing_half_done(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    # Paddle takes SIGTERM and others amid its import.
    for number, kill, module in (
        (signal.SIGTERM, "itself", "paddle.nn"),
        (signal.SIGINT, "group", "paddle.vision"),
        (signal.SIGTERM, "group", "paddleseg.core"),
    ):
        command = Command(disc_recipe_file, tmp_path / "run", [], (kill, number, module))
        assert command.end() == (128 + number, "")
        assert not (tmp_path / "run").exists()


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Let something happen when an iteration of the next training is done."""
    run_train = training.run_train

    def at(wanted: int, happens: Callable[[], None]) -> None:
        def replaced(*words: Any, hooks: Hooks, **options: Any) -> bool:
            def step(iteration: int) -> None:
                if iteration == wanted:
                    happens()
                hooks.after_step(iteration)

            return run_train(*words, hooks=replace(hooks, after_step=step), **options)

        monkeypatch.setattr(training, "run_train", replaced)

    return at


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_validation_that_a_stop_prevented_is_made_up_for(
    disc_recipe_file: Path, tmp_path: Path, stop_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(disc_recipe_file, output=tmp_path / "whole")
    stop_at(6, terminate)
    with pytest.raises(SystemExit, match="143"):
        train(disc_recipe_file, output=tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert saved(run.path) == ["iter_6"]
    assert run.history() == []

    stop_at(0, terminate)
    score = validation.score_cases

    def told_while_scoring(*words: Any, **options: Any) -> Iterator[Any]:
        if words[1] and Run.open(run.path).history():  # the validation at the end
            terminate()
        yield from score(*words, **options)

    monkeypatch.setattr(validation, "score_cases", told_while_scoring)
    with pytest.raises(SystemExit, match="143"):
        train(disc_recipe_file, output=run.path, resume=True)
    assert saved(run.path) == ["best_model", "iter_12", "iter_6"]
    assert [entry["iter"] for entry in run.history()] == [6]

    monkeypatch.setattr(validation, "score_cases", score)
    train(disc_recipe_file, output=run.path, resume=True)
    assert run.history() == whole.history()
    for name in ("iter_12", "best_model"):
        assert digests(run.checkpoints / name) == digests(whole.checkpoints / name)


def test_the_curve_of_the_loss_has_no_dip_where_a_run_was_stopped(
    disc_recipe_file: Path, tmp_path: Path, stop_at: Any
) -> None:
    from visualdl import LogReader

    def losses(run: Path) -> dict[int, float]:
        records = LogReader(file_path=str(run / "vdlrecords.train.log")).get_data("scalar", "Train/loss")
        assert len(records) == 3
        return {record.id: record.value for record in records}

    every = ["log_iters=4"]
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=every)
    stop_at(7, terminate)
    with pytest.raises(SystemExit):
        train(disc_recipe_file, output=tmp_path / "run", overrides=every)
    assert not [thread for thread in threading.enumerate() if "_thread_loop" in thread.name], "of the loader"
    assert saved(tmp_path / "run") == ["best_model", "iter_6", "iter_7"]
    # A kill amid a write leaves a part of a record, which no reader gets past.
    with (tmp_path / "run" / "vdlrecords.train.log").open("ab") as stream:
        stream.write((1000).to_bytes(8, "little") + b"part")
    train(disc_recipe_file, output=tmp_path / "run", overrides=every, resume=True)
    one, other = losses(tmp_path / "run"), losses(whole.path)
    assert one == other


def test_a_loader_process_leaves_a_signal_to_the_training(
    disc_recipe_file: Path, tmp_path: Path, stop_at: Any
) -> None:
    def signal_to_all() -> None:
        worker = multiprocessing.active_children()[0]
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker.pid or 0, number)

    stop_at(2, signal_to_all)
    # More batches than are loaded ahead; without the process they would not come.
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["num_workers=1", "iters=20"])
    assert run.last_checkpoint == run.checkpoints / "iter_20"


def test_a_killed_loader_process_is_an_error_that_says_what_to_do(
    disc_recipe_file: Path, tmp_path: Path, stop_at: Any
) -> None:
    def kill_one() -> None:
        multiprocessing.active_children()[0].kill()

    stop_at(3, kill_one)
    with pytest.raises(SetupError, match="was killed") as caught:
        train(disc_recipe_file, output=tmp_path / "run", overrides=["num_workers=1", "iters=100"])
    assert "memory" in caught.value.hint
    assert multiprocessing.active_children() == []


def test_a_python_program_keeps_its_handlers_and_may_train_in_a_thread(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    done: list[Run] = []
    thread = threading.Thread(
        target=lambda: done.append(train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=1"]))
    )
    thread.start()
    thread.join()
    assert done[0].best_checkpoint.is_file()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_signals_raise_at_once_or_when_the_deferring_block_has_ended() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"), StopSignals():  # noqa: PT012
        terminate()
        pytest.fail("the signal was not raised at once")
    reached = False
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop, stop.deferred():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        reached = stop.wanted
    assert reached
    with pytest.raises(SystemExit, match="143"), StopSignals():  # noqa: PT012
        try:
            terminate()
        except SystemExit as error:
            raise SetupError("Paddle cannot be loaded", hint="as its extension module tells it") from error
    with pytest.raises(SetupError, match="no room to stop"), StopSignals() as stop, stop.deferred():  # noqa: PT012
        terminate()
        raise SetupError("no room to stop", hint="make room")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(number: int) -> None:
    program = f"""
import os, time
from medseg_paddle.engine.dashboard import Dashboard
from medseg_paddle.engine.interruption import StopSignals
with StopSignals() as stop, stop.deferred():
    for _ in range(2):
        os.kill(os.getpid(), {int(number)})
    time.sleep(600)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, b"", b"")


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.wanted
    finally:
        signal.signal(signal.SIGINT, before)


def test_checkpoints_that_are_old_or_not_whole_are_removed(disc_recipe: Recipe, tmp_path: Path) -> None:
    run = Run(tmp_path, disc_recipe)
    for name in ("iter_3", "iter_20", "iter_100", "iter_120", "best_model", ".iter_7.ab12.tmp"):
        (run.checkpoints / name).mkdir(parents=True)
        (run.checkpoints / name / ".model.pdparams.ab12.tmp").touch()
        for file in ("model.pdparams", "model.pdopt")[: 1 if name == "iter_120" else 2]:
            (run.checkpoints / name / file).touch()
    run.tidy_checkpoints()
    assert saved(run.path) == ["best_model", "iter_100", "iter_20"]
    assert not (run.checkpoints / ".iter_7.ab12.tmp").exists()
    assert not (run.checkpoints / "best_model" / ".model.pdparams.ab12.tmp").exists()


def test_a_run_that_was_killed_as_its_folder_was_made_begins_anew(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".recipe.yml.1a2b3c4d.tmp").touch()
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=1"], resume=True)
    assert run.best_checkpoint.is_file()
    assert not list(run.path.glob(".*"))
