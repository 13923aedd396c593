"""Options that several commands share, so that each has one name and one wording."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer


class Device(str, Enum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"


class Weights(str, Enum):
    """Which weights of a run to use."""

    BEST = "best"
    LAST = "last"


class Split(str, Enum):
    """A part of a data set."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


RunFolders = Annotated[
    list[Path],
    typer.Argument(
        help="Run folder, as `medseg train` wrote it; of several, the mean of their probabilities is taken.",
        metavar="RUN",
    ),
]
OfCheckpoint = Annotated[
    Weights, typer.Option("--checkpoint", help="Weights to take: the best by validation, or the last.")
]
Config = Annotated[Path, typer.Option("--config", "-c", help="Recipe (YAML).", metavar="FILE")]


def set_option(help_text: str) -> Any:
    """The option that replaces values of a recipe."""
    return typer.Option("--set", "-s", help=help_text, metavar="KEY=VALUE")


Overrides = Annotated[list[str] | None, set_option("Replace a value of the recipe, as often as needed.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is already at the destination.")]
OnDevice = Annotated[
    Device | None,
    typer.Option(
        "--device",
        envvar="MEDSEG_DEVICE",
        help="Where to compute; as the recipe says where absent.",
        show_default=False,
    ),
]
