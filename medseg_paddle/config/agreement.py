"""Rules that no part of a recipe can check alone: what one says must agree with what another says."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterator
from typing import TYPE_CHECKING

from medseg_paddle.config.base import did_you_mean, inconsistent
from medseg_paddle.config.codes import unknown_class
from medseg_paddle.config.datasets import DatasetSpec, ListDataset
from medseg_paddle.config.losses import MixedLoss, require_losses_that_know_the_classes
from medseg_paddle.config.neighbours import require_neighbours_that_fit
from medseg_paddle.config.search import value_at
from medseg_paddle.config.selection import OVER_CLASSES
from medseg_paddle.config.training_agreement import require_trainable
from medseg_paddle.config.transforms import (
    Normalize,
    RandomAffinePatch,
    RandomChannelDrop,
    RandomCutout,
    RandomFourierStyle,
    RandomHistogramMatch,
    StandardizeImage,
    Transform,
)
from medseg_paddle.config.volume_agreement import require_one_kind_of_image
from medseg_paddle.core import SPLITS

if TYPE_CHECKING:
    from medseg_paddle.config.recipe import Recipe

_At = tuple[str | int, ...]
_IGNORED_LABEL = 255
# They take intensities of 0..255: Normalize divides by 255, the others add to, clip, round or blank what they get.
_OF_INTENSITIES = (
    "Normalize", "RandomIntensity", "RandomGaussianBlur", "RandomLowResolution", "RandomChannelDrop", "RandomCutout",
    "RandomNoise", "RandomBlur", "RandomDistort", "RandomHistogramMatch", "RandomFourierStyle",
)  # fmt: skip
# PaddleSeg hands OpenCV one value per channel, and OpenCV takes four; of its median filter, the same.
_OF_FOUR_CHANNELS = (
    "Padding", "PaddingByAspectRatio", "RandomPaddingCrop", "RandomRotation", "RandomAffine", "RandomBlur",
)  # fmt: skip


def require_agreement(recipe: Recipe) -> None:
    """Check the parts of a recipe against each other.

    Raises
    ------
    PydanticCustomError
        Two parts contradict each other; names both.
    """
    _require_usable_class_names(recipe)
    _require_modes(recipe)
    _require_one_fold(recipe)
    _require_honest_scores(recipe)
    require_neighbours_that_fit(recipe)
    require_one_kind_of_image(recipe)
    _require_intensities_before_normalize(recipe)
    _require_whole_images_to_standardize(recipe)
    _require_one_preprocessing(recipe)
    _require_channels(recipe)
    _require_channels_to_change(recipe)
    _require_images_to_mix(recipe)
    _require_one_ignore_index(recipe)
    _require_a_loss_per_output(recipe)
    require_losses_that_know_the_classes(recipe.loss, recipe.num_classes, recipe.ignore_index)
    _require_kernels_that_train(recipe)
    _require_a_graph_that_casts(recipe)
    require_trainable(recipe)
    _require_a_score_to_select_by(recipe)
    _require_one_start(recipe)
    _require_layers_that_can_be_frozen(recipe)
    _require_scores_to_search_by(recipe)


def _datasets(recipe: Recipe) -> Iterator[tuple[str, DatasetSpec]]:
    for split in SPLITS:
        dataset = getattr(recipe, f"{split}_dataset")
        if dataset is not None:
            yield f"{split}_dataset", dataset


def _require_usable_class_names(recipe: Recipe) -> None:
    names = recipe.labels or ()
    if "mean" in names:
        raise inconsistent(
            "labels: a class cannot be named 'mean'; reports have a row of that name",
            at=("labels", names.index("mean")),
            hint="give the class another name",
        )
    for i, name in enumerate(names):
        if name in names[:i]:
            raise inconsistent(
                f"labels: two classes are named '{name}'",
                at=("labels", i),
                hint="give every class a name of its own",
            )
    unknown = unknown_class({"codes": recipe.codes, "colors": recipe.colors}, names)
    if unknown is not None:
        key, name, hint = unknown
        if not names:
            hint = "add `labels: [background, ...]`, the classes of the data set in their order"
        raise inconsistent(f"{key}: '{name}' is no class that is segmented", at=(key, name), hint=hint)


def _require_modes(recipe: Recipe) -> None:
    for name, dataset in _datasets(recipe):
        mode = name.removesuffix("_dataset")
        if dataset.mode != mode:
            said = "has" if "mode" in dataset.model_fields_set else "says no mode, so it has"
            raise inconsistent(
                f"{name} {said} mode {dataset.mode}; it must be {mode}",
                at=(name, "mode"),
                hint=f"write `mode: {mode}` in {name}",
            )


def _require_one_fold(recipe: Recipe) -> None:
    train, val, test = recipe.train_dataset, recipe.val_dataset, recipe.test_dataset
    if getattr(test, "fold", None) is not None:
        raise inconsistent(
            "test_dataset names a fold, but test cases are in none",
            at=("test_dataset", "fold"),
            hint="remove `fold` from test_dataset",
        )
    fold = getattr(train, "fold", None)
    if val is not None:
        its = getattr(val, "fold", None)
        same_data = (val.type, posixpath.normpath(val.dataset_root)) == (
            train.type,
            posixpath.normpath(train.dataset_root),
        )
        if its != fold or (fold is not None and not same_data):
            raise inconsistent(
                f"train_dataset leaves out {_folded(fold)}, val_dataset validates on {_folded(its)}"
                + ("" if same_data else " of other data"),
                at=("val_dataset", "fold") if its is not None else ("val_dataset",),
                hint="name one data set and one `fold` in train_dataset and val_dataset",
            )
    count = recipe.prepare.folds if recipe.prepare is not None else None
    if fold is not None and isinstance(count, int) and fold >= count:
        raise inconsistent(
            f"there is no fold {fold}: `prepare` makes {count}, numbered from 0",
            at=("train_dataset", "fold"),
            hint=f"use 0 to {count - 1}, or more `folds`",
        )


def _folded(fold: int | None) -> str:
    return "no named fold" if fold is None else f"fold {fold}"


def _require_honest_scores(recipe: Recipe) -> None:
    given = [(split, dataset) for split in SPLITS if (dataset := recipe.dataset(split)) is not None]
    for (first, one), (second, other) in itertools.combinations(given, 2):
        if _images(one) == _images(other):
            at: _At = (f"{second}_dataset",) if getattr(recipe, f"{second}_dataset") else ("val_dataset",)
            raise inconsistent(
                f"the {second} set is the {first} set; a score on it would be too good",
                at=(*at, f"{second}_path"),
                hint=f"name other images for the {second} set",
            )


def _images(dataset: DatasetSpec) -> tuple[str, ...]:
    """What says which images a data set has, whatever else differs."""
    root = posixpath.normpath(dataset.dataset_root)
    if isinstance(dataset, ListDataset):
        path = getattr(dataset, f"{dataset.mode}_path")
        return (root, dataset.type, posixpath.normpath(path) if path else f"mode {dataset.mode}")
    return (root, dataset.type, f"mode {dataset.mode}")


def _require_one_preprocessing(recipe: Recipe) -> None:
    kinds = (Normalize, StandardizeImage)
    learned = [t for t in recipe.train_dataset.transforms if isinstance(t, kinds)]
    for name, dataset in _datasets(recipe):
        if [t for t in dataset.transforms if isinstance(t, kinds)] != learned:
            raise inconsistent(
                f"train_dataset and {name} normalise differently; "
                "the model would see other numbers than it learned",
                at=(name, "transforms"),
            )
    val, test = recipe.val_dataset, recipe.test_dataset
    if val and test and val.transforms != test.transforms:
        raise inconsistent(
            "val_dataset and test_dataset have different transforms; one preprocessing travels in the bundle",
            at=("test_dataset", "transforms"),
        )


def _require_channels(recipe: Recipe) -> None:
    channels = recipe.in_channels
    for name, dataset in _datasets(recipe):
        for i, transform in enumerate(dataset.transforms):
            if not isinstance(transform, Normalize):
                continue
            for key, values in (("mean", transform.mean), ("std", transform.std)):
                if len(values) not in (1, channels):
                    raise inconsistent(
                        f"{name}.transforms.{i}.{key} has {len(values)} values for {channels} channel(s)",
                        at=(name, "transforms", i, key),
                        hint="give one value for all channels, or one per channel",
                    )


def _require_channels_to_change(recipe: Recipe) -> None:
    channels = recipe.in_channels
    for i, transform in enumerate(recipe.train_dataset.transforms):
        at: _At = ("train_dataset", "transforms", i)
        if isinstance(transform, RandomChannelDrop) and transform.channels >= channels:
            raise inconsistent(
                f"RandomChannelDrop blanks up to {transform.channels} of {channels} channel(s); one must stay",
                at=(*at, "channels"),
                hint=f"write `channels: {channels - 1}`" if channels > 1 else "remove RandomChannelDrop",
            )
        if transform.type == "RandomDistort" and channels not in (1, 3):
            raise inconsistent(
                f"RandomDistort takes grey or colour, not {channels} channels",
                at=at,
                hint="use RandomIntensity, which takes any number",
            )
        if transform.type in _OF_FOUR_CHANNELS and channels > 4:
            raise inconsistent(
                f"{transform.type} takes at most 4 channels, not {channels}",
                at=at,
                hint="use RandomAffinePatch or RandomGaussianBlur, which take any number",
            )


def _require_images_to_mix(recipe: Recipe) -> None:
    if recipe.train_dataset.mixup is not None and recipe.batch_size < 2:
        raise inconsistent(
            "mixup mixes the images of a batch, and batch_size is 1",
            at=("train_dataset", "mixup"),
            hint="write a larger `batch_size`, or remove `mixup`",
        )


def _require_intensities_before_normalize(recipe: Recipe) -> None:
    for name, dataset in _datasets(recipe):
        normalized: Normalize | None = None
        for i, transform in enumerate(dataset.transforms):
            if normalized is not None:
                _require_right_after(normalized, transform, (name, "transforms", i))
            elif isinstance(transform, Normalize):
                normalized = transform


def _require_whole_images_to_standardize(recipe: Recipe) -> None:
    """Its mean and deviation of a patch, or of another size, would not be those of the image that is predicted."""
    for i, transform in enumerate(recipe.train_dataset.transforms):
        styled = isinstance(transform, RandomHistogramMatch | RandomFourierStyle)
        if styled and isinstance(recipe.train_dataset.transforms[0], StandardizeImage):
            raise inconsistent(
                f"{transform.type} after StandardizeImage would bring back what that takes away, and in training only",
                at=("train_dataset", "transforms", i),
                hint="use one of the two",
            )
    for name, dataset in _datasets(recipe):
        for i, transform in enumerate(dataset.transforms):
            if isinstance(transform, StandardizeImage) and i > 0:
                raise inconsistent(
                    f"StandardizeImage stands after {dataset.transforms[i - 1].type}, but takes the whole image as it "
                    "was read",
                    at=(name, "transforms", i),
                    hint="make it the first transform, in training and validation",
                )


def _require_right_after(normalized: Normalize, transform: Transform, at: _At) -> None:
    if transform.type in _OF_INTENSITIES:
        raise inconsistent(
            f"{transform.type} stands after Normalize, but takes intensities of 0..255",
            at=at,
            hint="normalise once"
            if transform.type == "Normalize"
            else f"move {transform.type} above Normalize",
        )
    padding = getattr(transform, "im_padding_value", ())
    values = padding if isinstance(padding, tuple) else (padding,)
    least = min((0 - mean) / std for mean in normalized.mean for std in normalized.std)
    greatest = max((1 - mean) / std for mean in normalized.mean for std in normalized.std)
    beyond = [value for value in values if not least <= value <= greatest]
    if beyond:
        raise inconsistent(
            f"{transform.type} stands after Normalize and pads with {beyond[0]:g}, "
            f"but intensities are {least:g} to {greatest:g} there",
            at=(*at, "im_padding_value"),
            hint=f"move {transform.type} above Normalize, or write `im_padding_value: 0`",
        )


def _require_one_ignore_index(recipe: Recipe) -> None:
    ignored = recipe.ignore_index
    if 0 < ignored < recipe.num_classes:  # PaddleSeg's recipes may ignore the background
        free = _IGNORED_LABEL if recipe.num_classes <= _IGNORED_LABEL else -1
        raise inconsistent(
            f"label {ignored} is ignored, but is one of {recipe.num_classes} classes (0..{recipe.num_classes - 1})",
            at=("train_dataset", "ignore_index"),
            hint=f"write `ignore_index: {free}` in the data sets, or fewer `num_classes`",
        )
    for name, dataset in _datasets(recipe):
        its = getattr(dataset, "ignore_index", 255)
        if its != ignored:
            raise inconsistent(
                f"{name} ignores label {its}, train_dataset {ignored}", at=(name, "ignore_index")
            )
        for i, transform in enumerate(dataset.transforms):
            at = (name, "transforms", i)
            padded = getattr(transform, "label_padding_value", ignored)
            if padded != ignored:
                raise inconsistent(
                    f"{transform.type} pads labels with {padded}, but label {ignored} is what is ignored",
                    at=(*at, "label_padding_value"),
                    hint=f"write `label_padding_value: {ignored}`",
                )
            marks = _marked_as_ignored(transform)
            if marks is not None and ignored != _IGNORED_LABEL:
                key, what, instead = marks
                raise inconsistent(
                    f"{transform.type} marks {what} with {_IGNORED_LABEL}, but label {ignored} is ignored",
                    at=(*at, key),
                    hint=f"write `{key}: {instead}`, or `ignore_index: {_IGNORED_LABEL}` in the data sets",
                )


def _marked_as_ignored(transform: Transform) -> tuple[str, str, str] | None:
    """The key that lets a transform write the ignored label, where to, and what else the key may be."""
    if isinstance(transform, RandomAffinePatch) and transform.border == "ignore":
        return "border", "the border", "reflect"
    if isinstance(transform, RandomCutout) and transform.label == "ignore":
        return "label", "what it cuts out", "keep"
    return None


def _require_a_loss_per_output(recipe: Recipe) -> None:
    model, loss = recipe.model, recipe.loss
    outputs = {"U2Net": 7, "U2Netp": 7}.get(model.type, 1)
    if getattr(model, "is_deepsup", False):
        outputs = 5
    outputs += getattr(model, "deep_supervision", 0)
    coefficients = len(loss.coef)
    if coefficients != outputs:
        raise inconsistent(
            f"{model.type} has {outputs} output(s), but loss.coef has {coefficients} value(s)",
            at=("loss", "coef"),
        )
    if len(loss.types) not in (1, coefficients):
        raise inconsistent(
            f"loss.types has {len(loss.types)} entries for {coefficients} coefficients", at=("loss", "types")
        )
    for i, part in enumerate(loss.types):
        if isinstance(part, MixedLoss) and len(part.losses) != len(part.coef):
            raise inconsistent(
                f"MixedLoss has {len(part.losses)} losses and {len(part.coef)} coefficients",
                at=("loss", "types", i, "coef"),
            )


def _require_kernels_that_train(recipe: Recipe) -> None:
    if recipe.to_static_training and recipe.cpu_kernels == "onednn":
        raise inconsistent(
            "cpu_kernels: onednn with to_static_training: a static graph has Paddle's own kernels",
            at=("cpu_kernels",),
            hint="train without `to_static_training`, or set `cpu_kernels: auto`",
        )


def _require_a_graph_that_casts(recipe: Recipe) -> None:
    if recipe.to_static_training and recipe.precision == "bf16":
        raise inconsistent(
            "precision: bf16 with to_static_training: only the dynamic graph is put under bf16",
            at=("precision",),
            hint="train without `to_static_training`, or set `precision: fp16`",
        )


def _require_a_score_to_select_by(recipe: Recipe) -> None:
    label, classes = recipe.selection.label, (recipe.labels or ())[1:]
    if recipe.labels is not None and label not in (OVER_CLASSES, *classes):
        raise inconsistent(
            f"selection.label is '{label}'; scored are {', '.join(classes)}",
            at=("selection", "label"),
            hint=f"name one of them, or write `label: {OVER_CLASSES}`",
        )
    if recipe.val_dataset is None:
        for key, given in (
            ("selection", recipe.selection != type(recipe.selection)()),
            ("early_stopping", recipe.early_stopping is not None),
        ):
            if given:
                raise inconsistent(
                    f"{key} goes by scores of the validation, and there is no val_dataset",
                    at=(key,),
                    hint=f"name a `val_dataset`, or remove `{key}`",
                )


def _require_one_start(recipe: Recipe) -> None:
    if recipe.initialise is None:
        return
    for at, part in (
        (("model",), recipe.model),
        (("model", "backbone"), getattr(recipe.model, "backbone", None)),
    ):
        if getattr(part, "pretrained", None) is not None:
            raise inconsistent(
                f"{'.'.join(at)}.pretrained and initialise both say what weights to start from",
                at=(*at, "pretrained"),
                hint="remove one of the two",
            )


def _require_layers_that_can_be_frozen(recipe: Recipe) -> None:
    freeze = recipe.freeze
    if freeze is None:
        return
    if recipe.to_static_training:
        raise inconsistent(
            "freeze with to_static_training: a static graph goes on learning what it learned when it was traced",
            at=("freeze",),
            hint="train without `to_static_training`",
        )
    if freeze.until is None:
        return
    if freeze.until >= recipe.iters:
        raise inconsistent(
            f"the layers are frozen until iteration {freeze.until}, and the training has {recipe.iters}",
            at=("freeze", "until"),
            hint="leave out `until`, and they stay frozen, or write a smaller number",
        )
    if recipe.precision != "fp32" and recipe.amp_level == "O2":
        raise inconsistent(
            "freeze.until with amp_level O2: the optimiser cannot take in layers later there",
            at=("freeze", "until"),
            hint="write `amp_level: O1`, or leave out `until`",
        )


def _require_scores_to_search_by(recipe: Recipe) -> None:
    if recipe.search is None:
        return
    if recipe.val_dataset is None:
        raise inconsistent(
            "a search goes by validation scores, and there is no val_dataset",
            at=("search",),
            hint="add val_dataset, or remove `search`",
        )
    for key in recipe.search.parameters:
        try:
            value_at(recipe.model_dump(mode="json"), key)
        except KeyError as missing:
            part, known = missing.args
            raise inconsistent(
                f"search.parameters: the recipe has no value at '{key}'",
                at=("search", "parameters", key),
                hint=did_you_mean(part, known) if known else "name a key that `medseg recipe show` prints",
            ) from None
