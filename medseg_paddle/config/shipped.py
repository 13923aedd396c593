"""Where the recipes that come with the project lie."""

from __future__ import annotations

from pathlib import Path

from medseg_paddle.errors import SetupError


def shipped_recipes() -> tuple[Path, ...]:
    """Recipes of `configs/`, sorted by name; `_base_` parts are left out.

    In a checkout they lie beside the package; the wheel carries them inside it.

    Raises
    ------
    SetupError
        The installation is incomplete.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return tuple(
                path
                for path in sorted(folder.rglob("*.yml"))
                if not any(p.startswith("_") for p in path.relative_to(folder).parts)
            )
    raise SetupError(
        "the recipes that come with medseg-paddle are not there", hint="install the package again"
    )
