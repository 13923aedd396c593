"""From a run to a bundle."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg_paddle.bundle import Bundle
from medseg_paddle.config import Recipe
from medseg_paddle.config.prepare import ALWAYS_VOLUMES
from medseg_paddle.core import Acquisition, VolumeAcquisition
from medseg_paddle.description import Description, Window
from medseg_paddle.engine import cpu
from medseg_paddle.engine.startup import start_paddle
from medseg_paddle.errors import ModelError, RecipeError
from medseg_paddle.io.case_volumes import case_grid, case_units
from medseg_paddle.io.cases import acquisition_of, channels_of, load_cases
from medseg_paddle.preprocess import InferencePlan, Preprocessing, VolumePreprocessing
from medseg_paddle.run import Checkpoint, Run
from medseg_paddle.steps.checks import class_names, require_same_window
from medseg_paddle.steps.export_samples import patches, pictures
from medseg_paddle.steps.members import Runs, open_members, require_one_task
from medseg_paddle.steps.provenance import versions, without_files

# What of a recipe an export reads that the training did not.
_MAY_CHANGE = ("inference", "postprocessing", "codes", "colors", "export", "device")


def export(
    run: Runs,
    *,
    checkpoint: Checkpoint = "best",
    output: Path | str | None = None,
    overwrite: bool = False,
    device: str | None = None,
    overrides: Sequence[str] = (),
) -> Bundle:
    """Freeze a checkpoint of a run, or of several that answer together, into a self-contained bundle.

    The exported graph, loaded as it will be in use, must give the trained model's probabilities on
    validation pictures (patches of volumes, for a 3-D model), else nothing is written.

    Parameters
    ----------
    run : Path, str, Run or a sequence of these
        Folder that :func:`medseg_paddle.train` made. Of several, the bundle's probabilities are the mean of the
        members'; its graph computes one after the other.
    checkpoint : {"best", "last"}
        Weights to freeze: the best by validation, or those at the end.
    output : Path or str, optional
        The bundle's folder; ``bundle`` inside the run where absent. Several runs need one.
    overwrite : bool
        Replace an older bundle there.
    device : str, optional
        Where the comparison is computed, in place of the recipe's.
    overrides : sequence of str
        ``key=value`` changes of the recipe for this export: of ``inference``, ``postprocessing``, ``codes``,
        ``colors``, ``export`` and ``device``. The run stays as it is; the bundle says what was used.

    Returns
    -------
    Bundle
        As read back from the disk. It holds a part (at most 320 x 320 pixels) of the first
        validation picture as its sample; of a 3-D model a patch (at most 64 x 64 x 64 voxels) of a validation volume.

    Raises
    ------
    ParityError
        The graph differs beyond ``export.tolerance``.
    ModelError
        No run, no checkpoint, or one of another model; runs that cannot answer together.
    RecipeError, DataError
        The validation images are not there; several runs, and no `output`.
    SetupError
        The folder is taken or cannot be written, or the device is not there.
    """
    members = [member.changed(overrides, _MAY_CHANGE) for member in open_members(run)]
    require_one_task(members, windows=lambda member: _windows(member.recipe))
    first = members[0]
    if output is None and len(members) > 1:
        raise RecipeError(
            f"{len(members)} runs are exported together, into none of their folders",
            hint="add --output FOLDER",
        )
    weights = [member.weights(checkpoint) for member in members]
    for member in members:
        require_same_window(member.recipe)
    description = _describe(members, checkpoint)
    preprocessing, plan = description.preprocessing, description.plan
    if isinstance(preprocessing, VolumePreprocessing):
        images = patches(first.recipe, description.labels, preprocessing, plan)
    else:
        images = pictures(first.recipe)
    destination = first.bundle_folder if output is None else Path(output)
    with Bundle.create(destination, description, overwrite=overwrite) as draft:
        # Loaded here, not before: a destination that is taken costs no waiting.
        start_paddle()
        from medseg_paddle.engine.device import set_device
        from medseg_paddle.engine.models import ForwardFunction, load_model, mean_of
        from medseg_paddle.engine.static_graph import compare, compare_patches, load_static, save_static

        chosen = set_device(device or first.recipe.device)
        models = [load_model(member.recipe, path) for member, path in zip(members, weights, strict=True)]
        save_static(
            models if len(models) > 1 else models[0],
            draft.graph_prefix,
            description.in_channels,
            description.dimensions,
        )
        static = load_static(draft.graph_prefix, chosen, threads=cpu.maths_threads())
        trained = mean_of([ForwardFunction(model) for model in models])
        if isinstance(preprocessing, VolumePreprocessing):
            parity = compare_patches(trained, static, images.images)
        else:
            parity = compare(trained, static, images.images, preprocessing, plan)
        draft.accept(parity, images.sample, description.answer_to_sample(static, images.sample))
    return Bundle.open(destination)


def _describe(members: Sequence[Run], checkpoint: Checkpoint) -> Description:
    run, recipe = members[0], members[0].recipe
    return Description(
        name=recipe.name,
        created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        labels=class_names(recipe),
        in_channels=recipe.in_channels,
        neighbours=recipe.neighbours,
        trained_on=_trained_on(members),
        preprocessing=_preprocessing(recipe),
        plan=InferencePlan(**recipe.inference.model_dump()),
        postprocessing=tuple(recipe.postprocessing_specs),
        tolerance=recipe.export.tolerance,
        provenance=without_files(_origin(members, checkpoint) if len(members) > 1 else run.provenance),
        recipe=recipe.model_dump(mode="json"),
        versions=versions(),
        members=len(members),
        **_windows(recipe),
    )


def _origin(members: Sequence[Run], checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "members": [
            {
                "run": member.path.name,
                "checkpoint": checkpoint,
                "recipe": member.recipe.model_dump(mode="json"),
                **member.provenance,
            }
            for member in members
        ]
    }


def _preprocessing(recipe: Recipe) -> Preprocessing | VolumePreprocessing:
    specs = recipe.preprocessing_specs
    return (
        VolumePreprocessing.from_spec(specs[0]) if recipe.dimensions == 3 else Preprocessing.from_specs(specs)
    )


def _trained_on(members: Sequence[Run]) -> Acquisition | VolumeAcquisition | None:
    try:
        if members[0].recipe.dimensions == 3:
            return VolumeAcquisition.together([_volumes_of(member.recipe) for member in members])
        return Acquisition.together([acquisition_of(member.recipe.train_dataset) for member in members])
    except ValueError as error:
        raise ModelError(
            f"{', '.join(str(member.path) for member in members)} cannot answer together: {error}",
            hint="export runs together that were trained on one kind of images",
        ) from error


def _volumes_of(recipe: Recipe) -> VolumeAcquisition:
    """What the volumes of a training set are like, by their files."""
    cases = load_cases(recipe.train_dataset, recipe.dimensions)
    (spec,) = recipe.preprocessing_specs
    grids = (case_grid(case, recipe.in_channels) for case in cases)
    return VolumeAcquisition.of(zip(grids, map(case_units, cases), strict=True), spec["axes"])


def _windows(recipe: Recipe) -> dict[str, Any]:
    """How volumes, or pictures of 16 bits, become what the model learned from, and how many files a case has."""
    spec = recipe.prepare
    volumes, files = channels_of(recipe.train_dataset)
    if spec is None or not spec.windows:
        return {"window": None, "files_per_case": files}
    cut = (
        acquisition_of(recipe.train_dataset) is not None
    )  # from volumes, in slices: whole ones have no window
    if not (cut or spec.reader in ALWAYS_VOLUMES):
        deep = tuple(Window(one.level, one.width, spec.bits or 16) for one in spec.windows)
        return {"window": None, "picture_windows": deep, "files_per_case": files}
    grey = tuple(Window(one.level, one.width, spec.bits or 8) for one in spec.windows)
    if volumes == 1:
        return {"window": grey[0]}
    return {
        "window": None,
        "channel_windows": grey * volumes if len(grey) == 1 else grey,
        "files_per_case": files,
    }
