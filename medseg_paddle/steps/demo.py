"""The whole job in one go, on synthetic patients."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from medseg_paddle.config import Recipe, load_recipe
from medseg_paddle.config.shipped import shipped_recipes
from medseg_paddle.errors import SetupError
from medseg_paddle.metrics.report import Report
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.export import export
from medseg_paddle.steps.phantom import phantom
from medseg_paddle.steps.predict import predict
from medseg_paddle.steps.prepare import prepare
from medseg_paddle.steps.train import train

_UNSEEN_SEED = 4242
_QUICK = ("prepare.synthetic.patients=8", "iters=20", "save_interval=10", "log_iters=5")


@dataclass(frozen=True)
class DemoResult:
    """What the demo made."""

    folder: Path
    report: Report
    seconds: float


def demo(output: Path = Path("outputs/demo"), *, quick: bool = False) -> DemoResult:
    """Write patients, prepare, train, evaluate, export, and segment a patient nobody has seen.

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
    console = Console(markup=False, emoji=False, highlight=False)
    started = time.monotonic()
    cohort, unseen = output / "cohort", output / "unseen"
    dataset, run_folder, answers = output / "dataset", output / "run", output / "prediction"
    recipe_file = _recipe()
    overrides = [f"{part}.dataset_root={_yaml(dataset)}" for part in ("train_dataset", "val_dataset")]
    overrides += _QUICK if quick else ()
    recipe = load_recipe(recipe_file, overrides)
    patients, seed = _patients(recipe)
    changes = [word for override in overrides for word in ("--set", override)]

    def step(number: int, title: str, command: list[object]) -> None:
        words = shlex.join(["medseg", *map(str, command)])
        console.print()
        console.print(Text.assemble((f"{number}/6", "bold cyan"), " ", (title, "bold")))
        console.print(Text(f"    $ {words}", style="dim"), soft_wrap=True)

    step(
        1,
        "synthetic chest-CT patients, as DICOM",
        ["phantom", cohort, "--patients", patients, "--seed", seed],
    )
    phantom(cohort, patients=patients, seed=seed, overwrite=True)
    phantom(unseen, patients=1, seed=_UNSEEN_SEED, overwrite=True)

    step(
        2,
        "a data set, split by patient",
        ["prepare", cohort, "--config", recipe_file, "--output", dataset, *changes],
    )
    manifest = prepare(recipe, cohort, output=dataset, overwrite=True)
    for split, cases in manifest.splits.items():
        console.print(f"    {split}: {len({c.patient for c in cases})} patients, {len(cases)} slices")

    step(3, "training", ["train", "--config", recipe_file, "--output", run_folder, *changes])
    run = train(recipe, output=run_folder, overwrite=True)

    step(4, "scores on held-out patients", ["evaluate", run_folder])
    report = evaluate(run)
    console.print(_scores(report))

    step(5, "a bundle to take elsewhere", ["export", run_folder])
    bundle = export(run.path, overwrite=True)

    patient = next(path for path in sorted(unseen.iterdir()) if path.is_dir())
    step(
        6,
        "a patient nobody has seen, straight from DICOM",
        ["predict", bundle.path, patient, "--output", answers],
    )
    predict(bundle.path, [patient], answers, overwrite=True)

    seconds = time.monotonic() - started
    console.print()
    console.print(_where_to_look(output, run_folder, bundle.path, answers, report, seconds))
    return DemoResult(output, report, seconds)


def _yaml(path: Path) -> str:
    """The path as a YAML value: in quotes where it needs them."""
    text: str = yaml.safe_dump(str(path), allow_unicode=True, width=float("inf"))
    return text.removesuffix("...\n").strip()


def _recipe() -> Path:
    for path in shipped_recipes():
        if path.stem == "unet_medical":
            return _short(path)
    raise SetupError("the recipe unet_medical.yml is not there", hint="install the package again")


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


def _where_to_look(
    output: Path, run: Path, bundle: Path, answers: Path, report: Report, seconds: float
) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    for what, where in (
        ("held-out patients", f"mean tumour Dice {report.mean_foreground_dice:.3f}"),
        ("pictures: truth, prediction", f"{run / 'evaluation' / 'test' / 'overlays'}"),
        ("all scores", f"{run / 'evaluation' / 'test' / 'cases.csv'}"),
        ("the unseen patient", f"{answers}"),
        ("the bundle", f"{bundle}"),
        ("curves in a browser", shlex.join(["medseg", "board", str(output)])),
    ):
        table.add_row(what, where)
    return Panel(table, title=f"done in {seconds / 60:.1f} minutes", border_style="green", expand=False)
