"""`medseg recipe ...`: look at recipes, and at what they make of the images, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg_paddle.cli.console import out
from medseg_paddle.cli.options import Overrides

app = typer.Typer(help="Look at recipes: show, check, list, schema, preview.", no_args_is_help=True)

Recipe = Annotated[Path, typer.Argument(help="Recipe (YAML).", metavar="FILE")]


@app.command()
def show(recipe: Recipe, overrides: Overrides = None) -> None:
    """Print a recipe as it will be run: inheritance resolved, defaults written out."""
    from rich.syntax import Syntax

    from medseg_paddle.config import dump_recipe, load_recipe

    text = dump_recipe(load_recipe(recipe, overrides or ()))
    if out.is_terminal:
        out.print(Syntax(text, "yaml", theme="ansi_dark", background_color="default", word_wrap=True))
    else:
        typer.echo(text, nl=False)


@app.command()
def check(recipe: Recipe, overrides: Overrides = None) -> None:
    """Say whether a recipe is valid; if not, which line is wrong and what to write instead."""
    from rich.text import Text

    from medseg_paddle.config import load_recipe

    resolved = load_recipe(recipe, overrides or ())
    out.print(
        Text.assemble(
            ("OK", "green"),
            f" {recipe}: {resolved.model.type}, {resolved.num_classes} classes, "
            f"{resolved.iters} iterations of {resolved.batch_size} images",
        ),
        soft_wrap=True,
    )


@app.command("list")
def list_() -> None:
    """List the recipes that come with the project."""
    from rich import box
    from rich.table import Table

    from medseg_paddle.config import load_recipe
    from medseg_paddle.config.shipped import shipped_recipes

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("recipe", no_wrap=True, style="bold")
    table.add_column("model", no_wrap=True)
    table.add_column("iterations", justify="right")
    table.add_column("what for")
    for path in shipped_recipes():
        recipe = load_recipe(path)
        table.add_row(_shortest(path), recipe.model.type, str(recipe.iters), recipe.description)
    out.print(table)


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors that check YAML while you type."""
    import json

    from medseg_paddle.config import Recipe as RecipeModel

    typer.echo(json.dumps(RecipeModel.model_json_schema(), indent=2))


@app.command()
def preview(
    recipe: Recipe,
    draws: Annotated[
        int, typer.Option("-n", "--draws", help="Images drawn of each case.", min=1, max=20)
    ] = 6,
    cases: Annotated[
        str | None,
        typer.Option(
            help="Cases to show, separated by commas; three with foreground where absent.", metavar="IDS"
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Picture (PNG) to write.", metavar="FILE")
    ] = Path("preview.png"),
    overrides: Overrides = None,
) -> None:
    """Draw what the training will see: a sheet of images and labels through its own pipeline."""
    from rich.text import Text

    from medseg_paddle.cli.console import err
    from medseg_paddle.steps.preview import preview as step

    names = tuple(name.strip() for name in (cases or "").split(",") if name.strip())
    made = step(recipe, draws=draws, cases=names, output=output, overrides=overrides or ())
    shares = ", ".join(f"{name} {share:.0%}" for name, share in made.shares.items())
    out.print(f"of the first {made.counted} training images hold: {shares}", soft_wrap=True)
    for problem in made.problems:
        err.print(Text.assemble(("warning: ", "bold yellow"), problem), soft_wrap=True)
    out.print(f"cases shown: {', '.join(made.cases)}", soft_wrap=True)
    out.print(f"preview: {made.path}", soft_wrap=True)


def _shortest(path: Path) -> str:
    """Print the path as one would type it from here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
