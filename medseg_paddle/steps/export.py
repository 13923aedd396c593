"""From a run to a bundle."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.bundle import Bundle, Description, Window
from medseg_paddle.config import Recipe
from medseg_paddle.config.prepare import ALWAYS_VOLUMES
from medseg_paddle.core import Acquisition, Case
from medseg_paddle.engine import cpu
from medseg_paddle.engine.startup import start_paddle
from medseg_paddle.errors import ModelError, RecipeError
from medseg_paddle.io.cases import acquisition_of, channels_of, load_cases
from medseg_paddle.io.images import read_image
from medseg_paddle.preprocess import InferencePlan, Preprocessing, segment
from medseg_paddle.run import Checkpoint, Run
from medseg_paddle.steps.checks import class_names, require_same_window
from medseg_paddle.steps.members import Runs, open_members, require_one_task
from medseg_paddle.steps.provenance import versions, without_files

# Validation pictures are compared in parts of at most this side: differences do not grow with the
# size, the time does, and less of a patient's picture travels in the bundle.
_SIDE = 320

# What of a recipe an export reads that the training did not.
_MAY_CHANGE = ("inference", "postprocessing", "export", "device")


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
    validation pictures, else nothing is written.

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
        ``key=value`` changes of the recipe for this export: of ``inference``, ``postprocessing``, ``export`` and
        ``device``. The run stays as it is; the bundle says what was used.

    Returns
    -------
    Bundle
        As read back from the disk. It holds a part (at most 320 x 320 pixels) of the first
        validation picture as its sample.

    Raises
    ------
    ParityError
        The graph differs beyond ``export.tolerance``.
    ModelError
        No run, no checkpoint, or one of another model; runs that cannot answer together.
    RecipeError, DataError
        The validation pictures are not there; several runs, and no `output`.
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
    pictures = _pictures(first.recipe)
    for member in members:
        require_same_window(member.recipe)
    description = _describe(members, checkpoint)
    preprocessing, plan = description.preprocessing, description.plan
    destination = first.bundle_folder if output is None else Path(output)
    with Bundle.create(destination, description, overwrite=overwrite) as draft:
        # Loaded here, not before: a destination that is taken costs no waiting.
        start_paddle()
        from medseg_paddle.engine.device import set_device
        from medseg_paddle.engine.models import ForwardFunction, load_model, mean_of
        from medseg_paddle.engine.static_graph import compare, load_static, save_static

        chosen = set_device(device or first.recipe.device)
        models = [load_model(member.recipe, path) for member, path in zip(members, weights, strict=True)]
        trained = mean_of([ForwardFunction(model) for model in models])
        save_static(models if len(models) > 1 else models[0], draft.graph_prefix, description.in_channels)
        static = load_static(draft.graph_prefix, chosen, threads=cpu.maths_threads())
        parity = compare(trained, static, pictures, preprocessing, plan)
        draft.accept(parity, pictures[0], segment(static, pictures[0], preprocessing, plan))
    return Bundle.open(destination)


def _describe(members: Sequence[Run], checkpoint: Checkpoint) -> Description:
    run, recipe = members[0], members[0].recipe
    return Description(
        name=recipe.name,
        created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        labels=class_names(recipe),
        in_channels=recipe.in_channels,
        trained_on=_trained_on(members),
        preprocessing=Preprocessing.from_specs(recipe.preprocessing_specs),
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


def _trained_on(members: Sequence[Run]) -> Acquisition | None:
    try:
        return Acquisition.together([acquisition_of(member.recipe.train_dataset) for member in members])
    except ValueError as error:
        raise ModelError(
            f"{', '.join(str(member.path) for member in members)} cannot answer together: {error}",
            hint="export runs together that were trained on one kind of images",
        ) from error


def _windows(recipe: Recipe) -> dict[str, Any]:
    """How volumes, or pictures of 16 bits, become what the model learned from, and how many files a case has."""
    spec = recipe.prepare
    volumes, files = channels_of(recipe.train_dataset)
    if spec is None or not spec.windows:
        return {"window": None, "files_per_case": files}
    cut = acquisition_of(recipe.train_dataset) is not None  # from volumes
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


def _pictures(recipe: Recipe) -> list[NDArray[np.float32]]:
    """Parts of validation pictures, spread over the set, and one more of an awkward size."""
    if recipe.val_dataset is None:
        raise RecipeError(
            "the recipe has no val_dataset, on which the exported graph is compared with the trained model",
            hint="add val_dataset to the recipe and train again",
        )
    cases = _spread(load_cases(recipe.val_dataset), recipe.export.samples)
    pictures = [_centre(read_image(case.image, recipe.in_channels), _SIDE) for case in cases]
    height, width = pictures[0].shape[:2]
    # Odd, unequal sides: no multiple of any network's divisor, so that padding takes part.
    odd = pictures[0][: height * 3 // 4 | 1, : width * 3 // 5 | 1]
    return [*pictures, np.ascontiguousarray(odd)]


def _spread(cases: Sequence[Case], count: int) -> list[Case]:
    places = np.linspace(0, len(cases) - 1, min(count, len(cases))).round().astype(int)
    return [cases[place] for place in places]


def _centre(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])
