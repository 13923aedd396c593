"""A recipe for a data set of volumes, after nnU-Net's rules: looked at, planned, and written with its reasons."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from medseg_paddle.config import Recipe, load_recipe
from medseg_paddle.errors import RecipeError, SetupError
from medseg_paddle.io.files import write_text
from medseg_paddle.steps.plan.choices import MODELS, Plan, choose
from medseg_paddle.steps.plan.document import recipe_text
from medseg_paddle.steps.plan.facts import look_at_training_set
from medseg_paddle.steps.plan.machine import parse_memory, this_machine
from medseg_paddle.steps.progress import ProgressBar

__all__ = ["MODELS", "Plan", "PlannedRecipe", "parse_memory", "plan"]

_ODD = re.compile(r"[^A-Za-z0-9._-]+|^[^A-Za-z0-9]")  # what a run's name cannot hold


@dataclass(frozen=True, eq=False)
class PlannedRecipe:
    """What was written.

    Attributes
    ----------
    path : Path
    recipe : Recipe
        What the file says.
    plan : Plan
        What it follows from.
    """

    path: Path
    recipe: Recipe
    plan: Plan


def plan(
    data: Path | str,
    *,
    output: Path | None = None,
    memory: int | None = None,
    model: str = "UNet3D",
    hours: float = 8.0,
    device: str = "auto",
    overwrite: bool = False,
    workers: int | None = None,
) -> PlannedRecipe:
    """Look at the training volumes of a data set and write a recipe for them, with the reason of each value.

    Parameters
    ----------
    data : Path
        A data set that ``medseg prepare`` made with ``volumes: whole``.
    output : Path, optional
        The recipe to write; ``outputs/plan-NAME.yml`` where absent.
    memory : int, optional
        Bytes that a training may take; nine tenths of what is free on the device where absent, at most 8 GB.
    model : str
        ``UNet3D``, ``ResUNet3D`` or ``AttentionUNet3D``.
    hours : float
        That a training on a CPU may take.
    device : {"auto", "cpu", "gpu"}
        That will train.
    overwrite : bool
        Replace what is at `output`.
    workers : int, optional
        Processes that read; as many as the work is worth and the memory holds where absent.

    Raises
    ------
    RecipeError
        A value is out of range.
    DataError
        As :func:`medseg_paddle.steps.plan.facts.look_at_training_set`, or the volumes are too small.
    SetupError
        `output` exists, the device is not there, or not even a small patch fits the memory.
    """
    root = Path(data)
    path = output or Path("outputs") / f"plan-{_ODD.sub('-', root.resolve().name)}.yml"
    if path.suffix not in (".yml", ".yaml") or _ODD.search(path.stem):
        raise RecipeError(
            f"{path} is no name for a recipe",
            hint="let it end in .yml, and use letters, digits, '.', '_' and '-': its run is called after it",
        )
    if path.exists() and not overwrite:
        raise SetupError(f"{path} exists already", hint="choose another --output, or pass --overwrite")
    machine = this_machine(device, memory)
    with ProgressBar("looking at volumes", 1) as bar:
        facts = look_at_training_set(root, workers=workers, progress=bar.advance)
    chosen = choose(facts, machine, model=model, hours=hours)
    write_text(path, recipe_text(chosen))
    return PlannedRecipe(path, load_recipe(path), chosen)
