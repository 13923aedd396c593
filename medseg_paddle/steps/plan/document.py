"""A plan as a recipe that a person can read and change: above each value why it is what it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from medseg_paddle.core.planning import LEAST_SIDE, THICK, more_than_seen, supervision_weights
from medseg_paddle.steps.plan.choices import LEAST_ITERS, LEAST_WHOLE, MAX_WIDTH, NNUNET_ITERS, WIDTHS, Plan
from medseg_paddle.steps.plan.facts import AXES
from medseg_paddle.steps.plan.machine import GB
from medseg_paddle.steps.plan.yaml_lines import Alias, Item, Line, comment, yaml_lines

_DIRECTIONS = ("slices", "rows", "columns")
_TURNS = 30.0  # degrees, nnU-Net's
_FLAT_TURNS = 180.0  # its way with thin patches
_EVALUATIONS = 20  # in a training
_GRID = "to_the_grid"


def recipe_text(plan: Plan) -> str:
    """The recipe of a plan.

    Parameters
    ----------
    plan : Plan

    Returns
    -------
    str
        YAML with a comment above each value that was chosen.
    """
    head = (
        f"Planned by `medseg plan` from {len(plan.data.cases)} training volumes of {plan.data.root.as_posix()}; "
        "nothing of its validation and test set was read. The rules are nnU-Net's (Isensee et al. 2021, "
        "https://doi.org/10.1038/s41592-020-01008-z) where nothing else is said. Every value may be changed: "
        "`medseg recipe check` tells whether they still fit each other."
    )
    parts = [
        [Line("labels", list(plan.data.labels.names), "As the data set names them.")],
        list(_data_sets(plan)),
        [Line("model", tuple(_model(plan)))],
        list(_training(plan)),
        list(_after_training(plan)),
    ]
    text = comment(head)
    for part in parts:
        text += ["", *yaml_lines(part)]
    return "\n".join(text) + "\n"


def _data_sets(plan: Plan) -> Iterator[Line]:
    items: dict[str, list[Any]] = {
        "train": [
            Item(tuple(_preprocessing(plan)), anchor=_GRID),
            Item(tuple(_patches(plan))),
            Item(tuple(_changes_of_intensity(plan))),
        ]
    }
    if plan.data.has_val:
        items["val"] = [Alias(_GRID)]
    elif plan.data.has_test:  # else a test set is where the validation set is
        items["test"] = [Alias(_GRID)]
    for split, transforms in items.items():
        lines = (
            Line("type", "Manifest"),
            Line("dataset_root", plan.data.root.as_posix()),
            Line("img_channels", plan.data.channels, "As many as the data set holds of each volume."),
            Line("mode", split),
            Line("transforms", transforms),
        )
        yield Line(f"{split}_dataset", lines)


def _preprocessing(plan: Plan) -> Iterator[Line]:
    yield Line("type", "VolumePreprocessing")
    yield Line(
        "axes", AXES, "Slices run to the head, rows to the back, columns to the left, whatever a file says."
    )
    yield Line("spacing", list(plan.spacing), f"mm. {_why_spacing(plan)}")
    if plan.intensities is not None:
        yield Line("crop", "none", "CT: a value of 0 is water, and nothing to crop by.")
        found = plan.intensities
        ranged = (
            Line("type", "ForegroundRange"),
            Line(
                "low",
                _four(found.low),
                "0.5th percentile of the values in the classes, of as many voxels of each case.",
            ),
            Line("high", _four(found.high), "99.5th percentile: metal does not set the scale."),
            Line("mean", _four(found.mean), "Mean of these voxels."),
            Line("std", _four(found.std), "Their standard deviation."),
        )
        why = "CT: Hounsfield units mean the same in every patient, so all volumes are treated alike."
        yield Line("normalization", ranged, why)
        return
    if plan.data.units == "HU":
        yield Line("crop", "none", "CT: a value of 0 is water, and nothing to crop by.")
        why = (
            "Each channel of each volume by itself: their values in the classes are too unlike, as those of CT and "
            "PET, for one range."
        )
        yield Line(
            "normalization", (Line("type", "ZScore"), Line("region", "all", "0 is no mark here.")), why
        )
        return
    kept = f"the box around what is not 0 holds {plan.kept:.0%} of the voxels of the median volume"
    yield Line("crop", "nonzero", f"What is 0 around the image is no image; {kept}.")
    region = "nonzero" if plan.masked else "all"
    why = (
        "That is less than 75 %: the zeros that are left would set the scale, so only the other voxels count."
        if plan.masked
        else "That is 75 % or more: all voxels of the box count."
    )
    lines = (Line("type", "ZScore"), Line("region", region, why))
    yield Line(
        "normalization",
        lines,
        f"Each volume by itself: its units are {plan.data.units}, not Hounsfield units.",
    )


def _why_spacing(plan: Plan) -> str:
    if plan.coarse is None:
        return "The median of each axis."
    return (
        f"The median of each axis, but for {_DIRECTIONS[plan.coarse]}, which lie more than {THICK:g} times farther "
        "apart and are less than a third as many: the 10th percentile there, or finer volumes would be blurred."
    )


def _patches(plan: Plan) -> Iterator[Line]:
    network, thin = plan.network, plan.thin
    shape, share = _times(plan.shape), plan.share
    if network.patch == network.first:
        how = f"The median volume has {shape} voxels at this spacing; it fits the memory as a whole."
        if share < 1:
            how = (
                f"As long in mm along all axes as a cube of 256 voxels allows; the median volume has {shape}."
            )
    else:
        how = (
            f"The median volume has {shape} voxels at this spacing. From {_times(network.first)} on, the axis that is "
            f"the longest in comparison was shortened until a batch of 2 fitted the memory: {share:.0%} of that volume."
        )
    sides = f" Multiples of {_times(network.topology.divisors)}, which the network divides them by."
    yield Line("type", "RandomVolumePatch")
    yield Line("size", list(network.patch), how + sides)
    yield Line("foreground", 0.33, "nnU-Net's: a third of the patches lies around a voxel of a class.")
    if thin is None:
        yield Line("rotation", [_TURNS] * 3, "Degrees; nnU-Net's.")
    else:
        others = [axis for axis in range(3) if axis != thin]
        turns = [_FLAT_TURNS if axis == thin else 0.0 for axis in range(3)]
        why = f"The patch is more than {THICK:g} times shorter along {_DIRECTIONS[thin]}"
        yield Line("rotation", turns, f"Degrees. {why}: it is turned about that axis only.")
        yield Line("scale_axes", others, f"{why}: it is magnified along the others only.")
    yield Line("mirror", list(plan.mirror), _why_mirror(plan))


def _why_mirror(plan: Plan) -> str:
    if plan.side:
        return (
            f"nnU-Net mirrors all axes; here not left and right (2), since the class '{plan.side}' names a side, which "
            "a mirrored volume would show at the other."
        )
    return (
        "All axes, as nnU-Net: no class names a side. Take 2 (left and right) out where a side tells a class all the "
        "same, as with one kidney of two."
    )


def _changes_of_intensity(plan: Plan) -> Iterator[Line]:
    yield Line("type", "RandomVolumeIntensity", "Its defaults are nnU-Net's.")
    if plan.thin is not None:
        others = [axis for axis in range(3) if axis != plan.thin]
        yield Line(
            "low_resolution_axes", others, f"{_DIRECTIONS[plan.thin].capitalize()} are coarse as they are."
        )


def _model(plan: Plan) -> Iterator[Line]:
    network = plan.network.topology
    yield Line("type", plan.model, "As `--model` says; UNet3D is nnU-Net's own.")
    why = f"Channels of the first level, doubled at each below; nnU-Net's {WIDTHS['gpu']}."
    if plan.machine.device == "cpu":
        why = (
            f"Channels of the first level, doubled at each below. nnU-Net has {WIDTHS['gpu']}; half as many are a "
            "quarter of the work, and on a CPU time is what lacks."
        )
    yield Line("width", plan.width, why)
    yield Line("max_width", MAX_WIDTH, "nnU-Net's limit of the channels.")
    yield Line(
        "depth",
        network.depth,
        f"Steps down, until fewer than {2 * LEAST_SIDE} voxels are left of each axis of the patch, or 12 of one alone.",
    )
    yield Line(
        "strides",
        [list(stride) for stride in network.strides],
        "Each step halves the axes whose spacing is by then less than twice the finest one.",
    )
    yield Line(
        "kernels",
        [list(kernel) for kernel in network.kernels],
        "3 voxels along an axis from where its spacing is less than twice the finest one, 1 before: across thick "
        "slices neighbours are far. The deepest level always has 3.",
    )
    yield Line(
        "deep_supervision",
        len(supervision_weights(network.depth)) - 1,
        "All levels of the decoder but the deepest learn to segment, each at its own size.",
    )


def _training(plan: Plan) -> Iterator[Line]:
    forecast = f"forecast: {plan.memory / GB:.1f} GB of {plan.machine.why}; `medseg batch-find` measures it"
    why = f"As many patches as fit the memory, two at least ({forecast})."
    if plan.limited_by_data:
        why = (
            f"More would fit, but 5 % of the training set's voxels, and two patches, are enough ({forecast})."
        )
    yield Line("batch_size", plan.batch_size, why)
    yield Line("iters", plan.iters, _why_iters(plan))
    every = max(1, plan.iters // _EVALUATIONS)
    why = f"{_EVALUATIONS} evaluations; each predicts all validation volumes."
    if not plan.data.has_val:
        why = (
            f"{_EVALUATIONS} checkpoints; the data set has no validation case to choose the best of them by."
        )
    yield Line("save_interval", every, why)
    yield Line("device", plan.machine.device, "Planned for it: memory, width and iterations depend on it.")
    parts = (
        Item((Line("type", "CrossEntropyLoss"),)),
        Item(
            (
                Line("type", "DiceLoss"),
                Line("background", False, "nnU-Net's: the background is large, and its Dice says little."),
                Line("batch", not plan.large_patch, _why_batch_dice(plan)),
            )
        ),
    )
    mixed = Item(
        (Line("type", "MixedLoss"), Line("losses", parts), Line("coef", [1, 1], "Equal weights, as nnU-Net."))
    )
    weights = list(supervision_weights(plan.network.topology.depth))
    lines = (
        Line("types", [mixed]),
        Line(
            "coef",
            weights,
            "Of each level of the decoder, the finest first: half of the level above, 1 together.",
        ),
    )
    yield Line("loss", lines)
    optimizer = (
        Line("type", "Momentum"),
        Line("momentum", 0.99, "nnU-Net's."),
        Line("use_nesterov", True, "nnU-Net's."),
        Line("weight_decay", 3e-5, "nnU-Net's."),
        Line(
            "grad_clip_cfg",
            (
                Line("name", "ClipGradByGlobalNorm"),
                Line("clip_norm", 12.0, "nnU-Net's: a rare wild batch does not undo what was learned."),
            ),
        ),
    )
    yield Line("optimizer", optimizer)
    schedule = (
        Line("type", "PolynomialDecay"),
        Line("learning_rate", 0.01, "nnU-Net's; `medseg lr-find` looks for another."),
        Line("end_lr", 0.0, "nnU-Net's."),
        Line("power", 0.9, "nnU-Net's."),
    )
    yield Line("lr_scheduler", schedule)


def _why_batch_dice(plan: Plan) -> str:
    if plan.large_patch:
        return f"A patch holds {plan.share:.0%} of the median volume: enough for a Dice of each by itself."
    return f"A patch holds {plan.share:.0%} of the median volume, often none of a class: one Dice of the whole batch."


def _why_iters(plan: Plan) -> str:
    if plan.seconds is None:
        return (
            f"nnU-Net's {NNUNET_ITERS:,}. Their time on a GPU is not estimated; `medseg profile` measures it."
        )
    takes = plan.seconds * plan.iters / 3600
    one = (
        f"about {_three(plan.seconds)} s each, estimated within a factor of two from {plan.machine.measured}; "
        "`medseg profile` measures it"
    )
    if takes > plan.hours:
        return (
            f"{LEAST_ITERS} at least, though they take about {_three(takes)} hours on this CPU ({one}). A GPU, or "
            "smaller patches by a smaller `--memory`, would be better."
        )
    return (
        f"About {_three(takes)} of the {plan.hours:g} hours that `--hours` gives ({one}). nnU-Net makes "
        f"{NNUNET_ITERS:,}, on a GPU."
    )


def _after_training(plan: Plan) -> Iterator[Line]:
    mirror: list[int] = list(plan.mirror) if plan.machine.device == "gpu" else []
    why = (
        "As in training: the mean over the mirror images, each axis twice the time."
        if mirror
        else f"nnU-Net averages over mirror images; {list(plan.mirror)} takes {2 ** len(plan.mirror)} times as long."
    )
    inference = (
        Line("mode", "tiles"),
        Line("tile", list(plan.network.patch), "The patch that the network learned from."),
        Line("overlap", 0.5, "nnU-Net's: tiles share half of their side."),
        Line("mirror", mirror, why),
    )
    yield Line("inference", inference)
    rules, why = [], f"None: no class is one part in each of {LEAST_WHOLE} training cases or more."
    if plan.whole_classes:
        lines = (Line("type", "KeepLargest"), Line("classes", list(plan.whole_classes)))
        rules = [Item(lines)]
        why = (
            f"In each of the {len(plan.data.cases)} training cases these classes are one part; in up to "
            f"{more_than_seen(len(plan.data.cases)):.0%} of patients (95 % confidence) they may be more, and all parts "
            "but the largest would be lost. nnU-Net keeps such a rule only where it made the scores of a "
            "cross-validation better: compare them with and without it."
        )
    yield Line("postprocessing", rules, why)


def _times(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides))


def _four(value: float) -> float:
    return float(f"{value:.4g}")


def _three(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"
