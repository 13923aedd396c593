"""Trainings by two processes on the CPU: what one process learns, exact resumption, and what happens to a lost one."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from medseg_paddle.config import change_recipe, load_recipe
from medseg_paddle.core import Case
from medseg_paddle.engine.data import TrainingStream
from medseg_paddle.engine.interruption import StopSignals
from medseg_paddle.engine.paddleseg_adapter.loop import StreamSampler
from medseg_paddle.engine.ranks import Ranks
from medseg_paddle.engine.states import arrays_in
from medseg_paddle.engine.validation import Validation, shares
from medseg_paddle.errors import DataError, RecipeError, SetupError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.run import Run
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.member import RemoteListener
from medseg_paddle.steps.together import processes_wanted
from medseg_paddle.steps.train import train
from tests.conftest import RECIPE, write_discs

REPOSITORY = Path(__file__).resolve().parents[2]
LAST = 15
_LONG = 600  # seconds: only what hangs takes longer
# A loss over the batch of each kind: a mean over pixels that are not ignored, the hardest pixels, regions, ranks.
LOSS = (
    "{types: [{type: MixedLoss, losses: [{type: CrossEntropyLoss, weight: balanced}, "
    "{type: CrossEntropyLoss, top_k_percent_pixels: 0.3}, {type: DiceLoss}, {type: LovaszSoftmaxLoss}], "
    "coef: [1, 0.5, 1, 0.5]}], coef: [1]}"
)
SETTINGS = [
    "batch_size=4", "gradient_accumulation=4", f"iters={LAST}", "save_interval=3", "log_iters=1", "use_ema=true",
    "keep_checkpoint_max=100", "overlays=2", f"loss={LOSS}", "optimizer={type: SGD, momentum: 0.9}",
    "train_dataset.mixup={prob: 0.5}", "selection.metric=hd95", "lr_scheduler.decay_steps=100",
]  # fmt: skip


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose training images ignore each another share of their pixels."""
    folder = tmp_path_factory.mktemp("together")
    discs = write_discs(folder / "discs")
    for number in range(6):
        path = discs / "labels" / f"train{number}.png"
        label = np.array(Image.open(path))
        label[: 7 * number] = 255
        Image.fromarray(label).save(path)
    (folder / "discs.yml").write_text(RECIPE.format(root=discs))
    return folder / "discs.yml"


@pytest.fixture(scope="module")
def alone(recipe: Path) -> Run:
    return train(recipe, output=recipe.parent / "alone", overrides=SETTINGS)


@pytest.fixture(scope="module")
def together(recipe: Path) -> Run:
    return train(recipe, output=recipe.parent / "together", overrides=SETTINGS, nproc=2)


def losses(run: Run) -> list[tuple[int, float]]:
    found = re.findall(r"iter: (\d+)/\d+, loss: ([\d.]+)", run.log.read_text())
    return [(int(iteration), float(loss)) for iteration, loss in found]


def learned(run: Run, iteration: int) -> dict[str, np.ndarray]:
    """What a checkpoint holds, but running statistics: they follow each part of a batch, and processes have fewer."""
    found = arrays_in(run.checkpoint_at(iteration))
    return {name: value for name, value in found.items() if not name.endswith(("_mean", "_variance"))}


def test_two_processes_learn_what_one_learns(alone: Run, together: Run) -> None:
    # Batch norms see one image at a time in both: gradient_accumulation is as great as the batch.
    np.testing.assert_allclose(losses(together)[:6], losses(alone)[:6], atol=2e-4)
    expected, found = learned(alone, 3), learned(together, 3)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_batch_norms_see_the_whole_batch(recipe: Path, tmp_path: Path) -> None:
    settings = [*SETTINGS, "gradient_accumulation=1", "iters=3", "use_ema=false", "overlays=0"]
    runs = [train(recipe, output=tmp_path / f"{nproc}", overrides=settings, nproc=nproc) for nproc in (1, 2)]
    np.testing.assert_allclose(losses(runs[1]), losses(runs[0]), atol=2e-4)
    expected, found = (arrays_in(run.checkpoint_at(3)) for run in runs)
    assert sum(name.endswith("_mean") for name in expected) > 3
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_scores_of_shared_cases_are_those_of_one_process(together: Run) -> None:
    assert [entry["iter"] for entry in together.history() if entry["weights"] == "ema"] == [
        *range(3, LAST + 1, 3)
    ]
    report = evaluate(together, split="val", checkpoint="last")
    assert together.history()[-1]["weights"] == "ema"  # what `last` stands for with use_ema
    assert together.history()[-1]["dice"] == {"disc": report.summary["disc"]["dice"].mean}
    assert together.history()[-1]["score"] == report.summary["disc"]["hd95"].mean


def test_only_the_first_process_writes(alone: Run, together: Run) -> None:
    def names(run: Run) -> set[str]:
        found = {str(path.relative_to(run.path)) for path in run.path.rglob("*")}
        return {name for name in found if not name.startswith("evaluation")}

    assert names(together) == names(alone)
    assert [iteration for iteration, _ in losses(together)] == [*range(1, LAST + 1)]
    assert (alone.provenance["processes"], together.provenance["processes"]) == (1, 2)


def started(recipe: Path, output: Path, *options: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "medseg_paddle", "train", "--config", str(recipe), "--output", str(output)]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    return subprocess.Popen(
        [*words, *options],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(found: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + _LONG
    while not found():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.02)


def members(parent: int) -> dict[str, int]:
    """Processes below `parent` that train, by rank; those that load images are below them."""
    below: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        below.setdefault(int(fields[1]), []).append(int(folder.name))
    (launcher,) = below[parent]
    found = {}
    for child in below[launcher]:
        settings = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        (rank,) = (value[18:] for value in settings if value.startswith(b"PADDLE_TRAINER_ID="))
        found[rank.decode()] = child
    return found


def runs(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the processes in /proc")
def test_a_killed_process_ends_all_and_the_run_goes_on_exactly_until_it_is_stopped_and_then_by_one(
    recipe: Path, together: Run, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", together.recipe)
    process = started(recipe, run.path, "--nproc", "2", "--set", "iters=2000")
    wait_for(lambda: run.is_sealed(run.checkpoint_at(3)), process)
    ranks = members(process.pid)
    os.kill(ranks["1"], signal.SIGKILL)
    said, _ = process.communicate(timeout=_LONG)
    assert process.returncode == 5, said
    assert "error: process 2 of 2 was killed or has crashed" in said
    assert "--resume" in said
    assert not any(runs(process_id) for process_id in ranks.values())

    process = started(recipe, run.path, "--nproc", "2", "--resume", "--set", "iters=2000")
    wait_for(lambda: len(losses(run)) > LAST, process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=_LONG)
    assert process.returncode == 143, said
    (last,) = map(int, re.findall(r"stopped at iteration (\d+) of 2000; go on with --resume", said))
    assert run.last_checkpoint == run.checkpoint_at(last)
    expected, found = (arrays_in(each.checkpoint_at(LAST)) for each in (together, run))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert losses(run)[:LAST] == losses(together)
    assert [entry for entry in run.history() if entry["iter"] <= LAST] == together.history()

    again = train(recipe, output=run.path, overrides=[*SETTINGS, f"iters={last + 2}"], resume=True)
    assert [iteration for iteration, _ in losses(again)] == [*range(1, last + 3)]
    assert [entry["processes"] for entry in again.provenance["resumed"]] == [2, 1]


def test_what_is_wrong_with_the_data_is_said_once_and_as_by_one_process(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(recipe.parent / "discs", tmp_path / "discs")
    label = data / "labels" / "train3.png"
    Image.fromarray(np.full((48, 48), 7, np.uint8)).save(label)
    found = []
    for nproc in (1, 2):
        with pytest.raises(DataError) as caught:
            train(
                recipe,
                output=tmp_path / "run",
                overrides=[*SETTINGS, f"train_dataset.dataset_root={data}"],
                nproc=nproc,
            )
        found.append((caught.value.message, caught.value.hint))
    assert found[0] == found[1]
    assert str(label) in found[0][0]
    assert not (tmp_path / "run").exists()
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("settings", "options", "told"),
    [
        (["batch_size=5"], {"nproc": 2}, r"a batch of 5 images .* 2 processes[\s\S]*batch_size to 4 or 6"),
        (
            ["batch_size=2", "device=auto"],
            {"devices": [0, 1, 2]},
            r"3 processes[\s\S]*batch_size to 3, or",
        ),
        (["device=gpu"], {"nproc": 2}, r"--nproc 2 trains on the CPU[\s\S]*--devices"),
        (["device=cpu"], {"devices": [0, 1]}, r"--devices 0,1 trains on the GPU[\s\S]*--nproc"),
        ([], {"nproc": 2, "devices": [0, 1]}, "give one of them"),
        ([], {"nproc": 0}, "needs a process"),
        ([], {"devices": [0, 0]}, "no list of different GPUs"),
        ([], {"nproc": 2, "watch": print}, "cannot be watched"),
        (["alignment={target: elsewhere}"], {"nproc": 2}, "trained by one process"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_started(
    recipe, tmp_path, settings, options, told
) -> None:
    with pytest.raises(RecipeError, match=told) as caught:
        train(recipe, output=tmp_path / "run", overrides=[*settings], **options)
    assert caught.value.hint
    assert not (tmp_path / "run").exists()


def test_processes_that_the_user_has_launched_are_refused(recipe, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    with pytest.raises(SetupError, match="--devices 0,1"):
        train(recipe, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_process_on_the_cpu_needs_no_other() -> None:
    assert processes_wanted(1, None) is processes_wanted(None, None) is None


@pytest.mark.parametrize("mixup", ["null", "{prob: 1}"])
@pytest.mark.parametrize("count", [2, 3])
def test_shares_of_a_batch_are_the_batch(recipe: Path, mixup: str, count: int) -> None:
    read = load_recipe(recipe, ["batch_size=6", f"train_dataset.mixup={mixup}"])
    stream = TrainingStream(load_cases(read.train_dataset), read)
    whole = [stream.batch(positions) for positions in StreamSampler(6, 6, 2, 5)]
    ranks = [Ranks(rank, count) for rank in range(count)]
    for batch, *orders in zip(whole, *(StreamSampler(6, 6, 2, 5, each) for each in ranks), strict=True):
        parts = [stream.batch(positions) for positions in orders]
        for name in ("img", "label"):
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), batch[name])


@pytest.mark.parametrize(
    "talk",
    [
        lambda ranks: ranks.any_of(True),
        lambda ranks: ranks.from_first("x"),
        lambda ranks: ranks.whole(paddle.ones([1])),
        lambda ranks: ranks.each(paddle.ones([1])),
        lambda ranks: ranks.add_gradients(paddle.nn.Linear(1, 1)),
        lambda ranks: ranks.require_equal(paddle.nn.Linear(1, 1), 3),
    ],
)
def test_nobody_talks_before_all_are_there(talk: Callable[[Ranks], object]) -> None:
    """Gloo gives up after 30 s: no time for a process to hash a data set or score a volume."""

    def meet() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        talk(Ranks(1, 2, meet))


def test_the_process_that_notes_scores_says_when_patience_is_spent(alone: Run) -> None:
    run = Run(alone.path, change_recipe(alone.recipe, ["early_stopping={patience: 1, min_delta: 1000}"]))
    stop, labels = StopSignals(), run.recipe.label_set

    def spent(ranks: Ranks) -> bool:
        log = io.StringIO()
        return Validation(
            run,
            (),
            labels,
            None,
            RemoteListener(None),
            LAST,
            paddle.nn.Linear(1, 1),
            stop,
            log=log,
            ranks=ranks,
        ).patience_spent

    # What is scored anew after a resumption may yet be better; the others would not hear of it.
    assert [spent(Ranks(rank, 2)) for rank in (0, 1)] == [True, False]


def test_slices_of_a_volume_are_scored_by_one_process() -> None:
    cases = [Case(f"{place}", Path("a.png"), volume=volume) for place, volume in enumerate("aaabbccccd")]
    found = shares(cases, 3)
    assert sorted(len(share) for share in found) == [3, 3, 4]
    assert [{each.group for each in share} for share in found] == [{"a"}, {"b", "d"}, {"c"}]
