"""From a recipe's `prepare` section and a source folder to a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg_paddle.config import Recipe, load_recipe
from medseg_paddle.core import Manifest
from medseg_paddle.errors import RecipeError
from medseg_paddle.steps.dataset import write_dataset
from medseg_paddle.steps.progress import ProgressBar


def prepare(
    recipe: Path | str | Recipe,
    source: Path,
    *,
    output: Path | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
) -> Manifest:
    """Read a folder of annotated images as the recipe says, and write it as a data set.

    Parameters
    ----------
    recipe : Path or Recipe
        A YAML file with a `prepare` section, or what was loaded from one.
    source : Path
        Folder that holds images and annotations; only read.
    output : Path, optional
        The data set's folder; the training set's `dataset_root` where absent.
    overrides : sequence of str
        ``key=value`` changes of a recipe file.
    overwrite : bool
        Replace an earlier data set.

    Returns
    -------
    Manifest

    Raises
    ------
    RecipeError
        The recipe has no `prepare` section.
    DataError, SetupError
        As :func:`medseg_paddle.steps.dataset.write_dataset`.
    """
    if isinstance(recipe, Recipe) and overrides:
        raise RecipeError(
            "overrides change a recipe file, not a loaded Recipe", hint="give them to load_recipe"
        )
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    if resolved.prepare is None:
        raise RecipeError(
            f"the recipe {resolved.name} has no `prepare` section",
            hint="add one (docs/howto/own-images.md), or train at once if its data set has lists",
        )
    with ProgressBar("preparing", 1) as bar:
        return write_dataset(
            resolved.prepare,
            source=Path(source),
            destination=output or Path(resolved.train_dataset.dataset_root),
            labels=resolved.label_set,
            name=resolved.name,
            overwrite=overwrite,
            progress=bar.advance,
        )
