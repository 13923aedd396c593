"""From a recipe's `prepare` section and a source folder to a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from medseg_paddle.config import Recipe, as_recipe
from medseg_paddle.config.prepare import SyntheticSpec
from medseg_paddle.core import SPLITS, Acquisition, Case, Manifest
from medseg_paddle.core.acquisition import SpacingRange
from medseg_paddle.errors import RecipeError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.nifti import nifti_grid
from medseg_paddle.io.volumes import is_volume
from medseg_paddle.steps.dataset import require_place, write_dataset
from medseg_paddle.steps.dataset_origin import earlier_dataset, is_synthetic, require_same_origin
from medseg_paddle.steps.dataset_suspicions import alone, lone_patients, suspicions
from medseg_paddle.steps.dry_run import DryRun, dry_run
from medseg_paddle.steps.phantom import phantom
from medseg_paddle.steps.progress import ProgressBar
from medseg_paddle.steps.volumes import ready_volumes

_USUAL_SPREAD = 1.5
_AXES, _AXES_TOLD = "SPL", "feet to head, front to back, right to left"


def prepare(
    recipe: Path | str | Recipe,
    source: Path | str | None = None,
    *,
    output: Path | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    keep: bool = False,
    workers: int | None = None,
) -> Manifest:
    """Read a folder of annotated images as the recipe says, and write it as a data set.

    Of whole volumes those to learn from are also brought to the grid of the recipe's network, see
    :func:`medseg_paddle.steps.volumes.ready_volumes`.

    Parameters
    ----------
    recipe : Path or Recipe
        A YAML file with a `prepare` section, or what was loaded from one.
    source : Path, optional
        Folder that holds images and annotations; only read. Where absent, the recipe's synthetic patients
        are written beside the data set, to ``<data set>-cohort``, and read from there.
    output : Path, optional
        The data set's folder; the training set's `dataset_root` where absent.
    overrides : sequence of str
        ``key=value`` changes of a recipe file.
    overwrite : bool
        Replace an earlier data set (and synthetic cohort).
    keep : bool
        Leave an earlier data set (and synthetic cohort) as it is, if it was made the same way. Its source files
        are compared if `source` is named. A data set with lists of its own is left as it is, too.
    workers : int, optional
        Processes that read and write; as many as the machine has cores where the work is worth it.

    Returns
    -------
    Manifest

    Raises
    ------
    RecipeError
        The recipe has no `prepare` section; there is no source and no synthetic one; `overwrite` and `keep`.
    DataError
        As :func:`medseg_paddle.steps.dataset.write_dataset`; what shall be kept was made otherwise.
    SetupError
        As :func:`medseg_paddle.steps.dataset.write_dataset`.
    """
    if keep and overwrite:
        raise RecipeError("--keep and --overwrite exclude each other", hint="give one of them")
    resolved = as_recipe(recipe, overrides)
    spec = resolved.prepare
    if spec is None and keep:
        return _with_lists_of_its_own(resolved)
    if spec is None:
        raise RecipeError(
            f"the recipe {resolved.name} has no `prepare` section",
            hint="add one (docs/howto/own-images.md), or train at once if its data set has lists",
        )
    destination = output or Path(resolved.train_dataset.dataset_root)
    earlier = earlier_dataset(destination) if keep else None
    folder = None if source is None else Path(source)
    if folder is None and (earlier is None or is_synthetic(earlier)):
        folder = _synthetic(resolved, spec.synthetic, destination, overwrite=overwrite, keep=keep)
    else:
        spec = spec.model_copy(update={"synthetic": None})  # the data set is not made of them
    with ProgressBar("preparing", 1) as bar:
        if earlier is not None:
            require_same_origin(earlier, spec, folder, resolved.label_set)
            unseen = (
                "" if folder is not None else "; where its images lie was not said, so they were not compared"
            )
            bar.say(f"{destination} is prepared already{unseen}")
            manifest = earlier
        else:
            manifest = write_dataset(
                spec,
                source=cast("Path", folder),  # only an earlier data set leaves it open
                destination=destination,
                labels=resolved.label_set,
                name=resolved.name,
                overwrite=overwrite,
                workers=workers,
                progress=bar.advance,
                say=bar.say,
            )
    if destination == Path(resolved.train_dataset.dataset_root):
        # Here, since a training in a container cannot write to the data set.
        ready_volumes(resolved, _learned_from(manifest), workers=workers)
    return manifest


def _learned_from(manifest: Manifest) -> list[Case]:
    """The cases that a training learns from, whichever fold it leaves out."""
    folded = [case for case in manifest.splits.get("val", ()) if case.fold is not None]
    return [*manifest.splits.get("train", ()), *folded]


def proposal(source: Path | str) -> str:
    """What layout a folder seems to have, and the lines of a recipe that read it.

    Raises
    ------
    DataError
        There is no such folder, or its layout is not recognised.
    """
    from medseg_paddle.steps.recognise import recognise  # loads the readers of every layout

    return "\n\nor, less likely:\n\n".join(map(str, recognise(Path(source))))


def preview(
    recipe: Path | str | Recipe,
    source: Path | str,
    *,
    overrides: Sequence[str] = (),
    workers: int | None = None,
) -> DryRun:
    """Look what :func:`prepare` would do, and write nothing.

    Parameters
    ----------
    recipe, source, overrides, workers
        As for :func:`prepare`.

    Returns
    -------
    DryRun
        Its ``problems`` are all that is wrong.

    Raises
    ------
    RecipeError
        The recipe has no `prepare` section.
    DataError
        There is no such folder.
    """
    resolved = as_recipe(recipe, overrides)
    if resolved.prepare is None:
        raise RecipeError(
            f"the recipe {resolved.name} has no `prepare` section",
            hint=f"see what {source} holds with `medseg prepare {source} --dry-run`, and add the lines it shows",
        )
    with ProgressBar("reading", 1) as bar:
        return dry_run(
            resolved.prepare,
            source=Path(source),
            labels=resolved.label_set,
            workers=workers,
            progress=bar.advance,
        )


def summary(manifest: Manifest) -> list[str]:
    """What a data set holds, line by line, with warnings of what makes training on it doubtful."""
    settings = manifest.source.get("prepare", {})
    lone = bool(alone(settings))
    lines = []
    for split, cases in manifest.splits.items():
        patients = 0 if lone else len({case.patient for case in cases if case.patient})
        lines.append(f"{split:>5}: {len(cases)} images" + (f" of {patients} patients" if patients else ""))
    lines += lone_patients(settings, ())
    lines += [*_folds(manifest, settings, alone=lone), *suspicions(manifest)]
    every = [case for cases in manifest.splits.values() for case in cases]
    found = Acquisition.of(case.slicing for case in every)
    if found is None:
        return lines
    whole = [case for case in every if is_volume(case.image)]
    return [*lines, *(_volumes(whole) if whole else _slices(found)), *_mixed_units(found)]


def _folds(manifest: Manifest, settings: Mapping[str, Any], *, alone: bool) -> list[str]:
    lines = []
    for fold in manifest.folds:
        cases = manifest.cases("val", fold)
        of = "" if alone else f" of {len({case.patient for case in cases})} patients"
        center = f", centre {cases[0].center}" if settings.get("folds") == "centers" else ""
        lines.append(f"fold {fold}: {len(cases)} images{of}{center}")
    return [*lines, "val is fold 0; `fold` in the data sets of the recipe picks another"] if lines else []


def _slices(found: Acquisition) -> list[str]:
    planes, units = " and ".join(found.planes), " and ".join(found.units)
    lines = [f"slices: {planes}, pixels of {found.rows} x {found.columns} (rows x columns), units {units}"]
    if any(one.largest > _USUAL_SPREAD * one.smallest for one in (found.rows, found.columns)):
        lines.append(
            "warning: the spacings differ by more than half; a model learns the same organ at very different sizes: "
            "resample the volumes to one spacing, or train on those of one protocol"
        )
    if len(found.planes) > 1:
        lines.append(
            f"warning: slices in {len(found.planes)} planes look like different organs; prepare those of one plane"
        )
    return lines


def _volumes(cases: Sequence[Case]) -> list[str]:
    """Voxels of whole volumes as :class:`VolumePreprocessing` turns them by default, by their headers."""
    grids = []
    for case in cases:
        grid, _ = nifti_grid(case.image)
        grids.append(grid.transposed(grid.turn_to(_AXES)[0]))
    shapes = [sorted(sides) for sides in zip(*(grid.shape for grid in grids), strict=True)]
    sides = " x ".join(f"{side[0]}" if side[0] == side[-1] else f"{side[0]} to {side[-1]}" for side in shapes)
    spacings = [SpacingRange.of(steps) for steps in zip(*(grid.spacing for grid in grids), strict=True)]
    medians = ", ".join(f"{one.median:.3g}" for one in spacings)
    units = " and ".join(dict.fromkeys(case.slicing.units for case in cases if case.slicing is not None))
    steps = f"{' x '.join(map(str, spacings))}, the median [{medians}]"
    return [f"volumes: {sides} voxels of {steps} ({_AXES_TOLD}), units {units}"]


def _mixed_units(found: Acquisition) -> list[str]:
    if len(set(found.units) - {"unknown"}) > 1:
        return ["warning: one window cannot serve CT (HU) and other scans; prepare those of one kind"]
    return []


def _with_lists_of_its_own(recipe: Recipe) -> Manifest:
    """The data set that a recipe without `prepare` section names, as a manifest."""
    specs = {split: recipe.dataset(split) for split in SPLITS}
    return Manifest(
        name=recipe.name,
        labels=recipe.label_set,
        splits={
            split: load_cases(spec, recipe.dimensions, recipe.neighbours)
            for split, spec in specs.items()
            if spec is not None
        },
        root=Path(recipe.train_dataset.dataset_root),
    )


def _synthetic(
    recipe: Recipe, spec: SyntheticSpec | None, destination: Path, *, overwrite: bool, keep: bool
) -> Path:
    """Write or keep the recipe's synthetic patients beside the data set; give back their folder."""
    if spec is None:
        raise RecipeError(
            f"the recipe {recipe.name} says how to read images, not where they are",
            hint="name the folder that holds them: medseg prepare FOLDER --config ... (in a container: MEDSEG_SOURCE)",
        )
    cohort = Path(f"{destination}-cohort")
    require_place(cohort, destination, overwrite=overwrite or keep)
    phantom(cohort, patients=spec.patients, seed=spec.seed, overwrite=overwrite, keep=keep)
    return cohort
