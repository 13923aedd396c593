"""The whole job in one go, on synthetic patients: slice by slice in 2-D, and as whole volumes in 3-D."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from medseg_paddle.config import Recipe, load_recipe
from medseg_paddle.config.shipped import shipped_recipes
from medseg_paddle.errors import SetupError
from medseg_paddle.io.dicom import load_series
from medseg_paddle.io.dicom_seg import read_segmentation
from medseg_paddle.io.images import read_label
from medseg_paddle.metrics.overlap import CaseCounts, ClassScores
from medseg_paddle.metrics.report import Report
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.export import export
from medseg_paddle.steps.phantom import phantom
from medseg_paddle.steps.predict import predict
from medseg_paddle.steps.predict_summary import PredictionSummary
from medseg_paddle.steps.prepare import prepare
from medseg_paddle.steps.train import train

_UNSEEN_SEED = 4242
_STEPS = 11
# The recipe for volumes trains for the better part of an hour; this is what two minutes on two cores are enough for.
_SHORT_VOLUMES = (
    "model.width=8",
    "train_dataset.transforms.1.size=[20, 48, 48]",
    "iters=450",
    "save_interval=225",
)
_QUICK = ("prepare.synthetic.patients=8", "iters=20", "save_interval=10", "log_iters=5")
_QUICK_VOLUMES = ("model.width=4", "iters=6", "save_interval=6", "log_iters=2")


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Attributes
    ----------
    folder : Path
    report : Report
        Of the network that sees slices.
    volumes : Report
        Of the one that sees volumes, on the same patients.
    seg : Path
        The DICOM segmentation of a patient that neither has seen.
    seconds : float
    """

    folder: Path
    report: Report
    volumes: Report
    seg: Path
    seconds: float


def demo(output: Path = Path("outputs/demo"), *, quick: bool = False) -> DemoResult:
    """Write patients; prepare, train, evaluate, export and segment a patient nobody has seen, in 2-D and in 3-D.

    Parameters
    ----------
    output : Path
        Folder to work in; what an earlier demo left there is replaced.
    quick : bool
        Fewer patients and iterations, to see that everything runs; the scores mean little.

    Returns
    -------
    DemoResult
    """
    started = time.monotonic()
    tour = _Tour(output)
    slices = _Network.of("unet_medical", output, "", _QUICK if quick else ())
    volumes = _Network.of("unet3d_phantom", output, "-3d", _QUICK_VOLUMES if quick else _SHORT_VOLUMES)
    patients, seed = _patients(slices.recipe)

    tour.step(
        "synthetic chest-CT patients, as DICOM",
        ["phantom", tour.cohort, "--patients", patients, "--seed", seed],
    )
    phantom(tour.cohort, patients=patients, seed=seed, overwrite=True)
    (unseen,) = phantom(output / "unseen", patients=1, seed=_UNSEEN_SEED, overwrite=True)

    tour.part("slice by slice: a network in 2-D")
    report = tour.train(slices, "a data set of slices, split by patient")
    tour.predict(slices, unseen)

    tour.part("whole volumes: a network in 3-D")
    in_volumes = tour.train(volumes, "the same patients as volumes, the same held out")
    answer = tour.predict(volumes, unseen, as_dicom=True)
    seg = answer.output / next(name for name in answer.results[0].files if name.endswith("_seg.dcm"))
    found = read_back(seg, unseen)

    result = DemoResult(output, report, in_volumes, seg, time.monotonic() - started)
    tour.console.print()
    tour.console.print(_where_to_look(result, slices, volumes, found))
    return result


def read_back(seg: Path, patient: Path) -> ClassScores:
    """Scores of a DICOM segmentation of a synthetic patient, read from its file, against what was drawn.

    Parameters
    ----------
    seg : Path
    patient : Path
        A folder as :func:`~medseg_paddle.steps.phantom.phantom` writes it.

    Raises
    ------
    DataError
        The segmentation is not one of these images.
    """
    series = load_series(sorted((patient / "ct").iterdir()))
    found = read_segmentation(seg, series).array
    drawn = np.stack([read_label(patient / "mask" / f"{path.stem}.png") for path in series.paths])
    counts = CaseCounts(2, voxel_ml=math.prod(series.volume.geometry.spacing) / 1000)
    counts.add(drawn, found)
    return counts.scores()[0]


@dataclass(frozen=True)
class _Network:
    """A recipe as the demo trains it, and where what becomes of it lies."""

    file: Path
    recipe: Recipe
    changes: tuple[str, ...]
    dataset: Path
    run: Path
    answers: Path

    @classmethod
    def of(cls, name: str, output: Path, suffix: str, overrides: Sequence[str]) -> _Network:
        """By the name of a recipe that comes with the project."""
        file, dataset = _recipe(name), output / f"dataset{suffix}"
        of_data = [f"{part}.dataset_root={_yaml(dataset)}" for part in ("train_dataset", "val_dataset")]
        every = (*of_data, *overrides)
        return cls(
            file,
            load_recipe(file, every),
            tuple(word for override in every for word in ("--set", override)),
            dataset,
            output / f"run{suffix}",
            output / f"prediction{suffix}",
        )

    @property
    def bundle(self) -> Path:
        """Where `medseg export` puts it."""
        return self.run / "bundle"


class _Tour:
    """Takes the steps one after another, and shows each as the command that would take it."""

    def __init__(self, output: Path) -> None:
        self.console = Console(markup=False, emoji=False, highlight=False)
        self.cohort = output / "cohort"
        self._taken = 0

    def part(self, title: str) -> None:
        """Begin a part."""
        self.console.print()
        self.console.rule(Text(title, style="bold"), align="left")

    def step(self, title: str, command: Sequence[object]) -> None:
        """Begin a step."""
        self._taken += 1
        words = shlex.join(["medseg", *map(str, command)])
        self.console.print()
        self.console.print(Text.assemble((f"{self._taken}/{_STEPS}", "bold cyan"), " ", (title, "bold")))
        self.console.print(Text(f"    $ {words}", style="dim"), soft_wrap=True)

    def train(self, network: _Network, data: str) -> Report:
        """Prepare, train, evaluate and export."""
        config = ["--config", network.file]
        self.step(data, ["prepare", self.cohort, *config, "--output", network.dataset, *network.changes])
        manifest = prepare(network.recipe, self.cohort, output=network.dataset, overwrite=True)
        for split, cases in manifest.splits.items():
            people, images = len({case.patient for case in cases}), len(cases)
            of_slices = f", {images} slices" if images > people else ""
            self.console.print(f"    {split}: {people} patients{of_slices}")

        self.step("training", ["train", *config, "--output", network.run, *network.changes])
        run = train(network.recipe, output=network.run, overwrite=True)

        self.step("scores on held-out patients", ["evaluate", network.run])
        report = evaluate(run)
        self.console.print(_scores(report))

        self.step("a bundle to take elsewhere", ["export", network.run])
        export(run.path, overwrite=True)
        return report

    def predict(self, network: _Network, patient: Path, *, as_dicom: bool = False) -> PredictionSummary:
        """Segment a patient with the bundle."""
        title = "a patient nobody has seen, straight from DICOM" + (" to a DICOM SEG" if as_dicom else "")
        words = ["--format", "seg", "--report", "--key-images"] if as_dicom else []
        self.step(title, ["predict", network.bundle, patient, "--output", network.answers, *words])
        answer = predict(
            network.bundle,
            [patient],
            network.answers,
            formats=("seg",) if as_dicom else ("nifti",),
            report=as_dicom,
            key_images=as_dicom,
            overwrite=True,
        )
        answer.require_complete()
        return answer


def _yaml(path: Path) -> str:
    """The path as a YAML value: in quotes where it needs them."""
    text: str = yaml.safe_dump(str(path), allow_unicode=True, width=float("inf"))
    return text.removesuffix("...\n").strip()


def _recipe(name: str) -> Path:
    for path in shipped_recipes():
        if path.stem == name:
            return _short(path)
    raise SetupError(f"the recipe {name}.yml is not there", hint="install the package again")


def _patients(recipe: Recipe) -> tuple[int, int]:
    """How many synthetic patients the recipe asks for, and of which seed."""
    synthetic = recipe.prepare.synthetic if recipe.prepare else None
    if synthetic is None:
        raise SetupError(f"the recipe {recipe.name} makes no patients", hint="install the package again")
    return synthetic.patients, synthetic.seed


def _short(path: Path) -> Path:
    """The path as one would type it here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _scores(report: Report) -> Table:
    table = Table("patient", "Dice", "IoU", "precision", "recall", "AUC", box=None, padding=(0, 2, 0, 4))
    for row in report.rows:
        s = row.scores
        table.add_row(row.case, *(f"{value:.3f}" for value in (s.dice, s.iou, s.precision, s.recall, s.auc)))
    mean = next(iter(report.summary.values()))
    table.add_row(
        "mean",
        *(f"{mean[key].mean:.3f}" for key in ("dice", "iou", "precision", "recall", "auc")),
        style="bold",
    )
    return table


def _where_to_look(result: DemoResult, slices: _Network, volumes: _Network, found: ClassScores) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    scored = Path("evaluation") / "test"
    amounts = f"{found.predicted_ml:.1f} ml of tumour, {found.truth_ml:.1f} drawn; Dice {found.dice:.3f}"
    for what, where in (
        ("held-out patients", f"mean tumour Dice {result.report.mean_foreground_dice:.3f} slice by slice,"),
        ("", f"{result.volumes.mean_foreground_dice:.3f} as volumes, after a short training"),
        ("pictures: truth, prediction", slices.run / scored / "overlays"),
        ("", volumes.run / scored / "overlays"),
        ("all scores", slices.run / scored / "cases.csv"),
        ("", volumes.run / scored / "cases.csv"),
        ("the unseen patient, 2-D", slices.answers),
        ("3-D, as DICOM", volumes.answers),
        ("its SEG", result.seg.name),
        ("read back", amounts),
        ("the bundles", slices.bundle),
        ("", volumes.bundle),
        ("curves in a browser", shlex.join(["medseg", "board", str(result.folder)])),
    ):
        table.add_row(what, str(where))
    return Panel(
        table, title=f"done in {result.seconds / 60:.1f} minutes", border_style="green", expand=False
    )
