"""From a recipe to a sheet of what its training will see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.config import Recipe, as_recipe
from medseg_paddle.config.base import did_you_mean
from medseg_paddle.config.transforms import Mixup, Normalize, RandomAffinePatch, Transform
from medseg_paddle.core import Case, LabelSet
from medseg_paddle.engine.startup import start_paddle
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.images import read_label, write_image
from medseg_paddle.io.neighbours import middle
from medseg_paddle.io.sheet import TILE_SIDE, Row, Tile, draw_sheet, draw_small
from medseg_paddle.preprocess.augment import foreground_indices, mixup
from medseg_paddle.steps.checks import class_names
from medseg_paddle.steps.progress import ProgressBar

if TYPE_CHECKING:
    from medseg_paddle.engine.data import TrainingStream

_COUNTED = 64  # training images that the shares are of
_CASES = 3  # cases shown where none are named
_PASSES = 20  # for each draw, in which a case that is seldom drawn is looked for
_LOOKED_AT = 24  # cases whose labels are read to find some with foreground
_LEAST_RANGE = 1e-3  # of intensities 0..255, below which an image is blank
_OF_SIZE = (
    "Resize", "ResizeByLong", "ResizeByShort", "LimitLong", "Padding", "PaddingByAspectRatio", "ScalePadding",
    "RandomPaddingCrop",
)  # fmt: skip


@dataclass(frozen=True)
class Preview:
    """What a sheet shows, and what was counted on the way.

    Attributes
    ----------
    path : Path
        The sheet.
    cases : tuple of str
        Those shown.
    counted : int
        Training images that the shares are of: the first ones of the training.
    shares : dict of str to float
        Share of these images with a pixel of the class, by name.
    problems : tuple of str
        What should not be: a class in no image, labels that are ignored altogether, blank images.
    """

    path: Path
    cases: tuple[str, ...]
    counted: int
    shares: dict[str, float]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Draw:
    """One image as the training gets it, ready to be shown: HWC 0..255, one label or the two of a mixture.

    Of a slice with `neighbours` it is the slice that is shown.
    """

    image: NDArray[np.float32]
    labels: tuple[NDArray[np.int64], ...]
    weight: float
    ignore_index: int
    neighbours: int = 0

    def cut(self, window: tuple[slice, slice]) -> _Draw:
        """A part of it."""
        labels = tuple(label[window] for label in self.labels)
        return replace(self, image=self.image[window], labels=labels)

    def tile(self, caption: str, labels: LabelSet) -> Tile:
        """Its picture for a sheet."""
        shown = middle(self.image, self.neighbours)
        shown = shown if shown.shape[2] in (1, 3) else shown[:, :, :1]
        picture = draw_small(
            np.clip(np.rint(shown), 0, 255).astype(np.uint8),
            self.labels[0],
            labels,
            ignore_index=self.ignore_index,
            second=self.labels[1] if len(self.labels) > 1 else None,
        )
        mixture = f"weight {self.weight:.2f}" if len(self.labels) > 1 else ""
        return Tile(picture, ", ".join(filter(None, (caption, mixture))))


def preview(
    recipe: Path | str | Recipe,
    *,
    draws: int = 6,
    cases: Sequence[str] = (),
    output: Path | str = "preview.png",
    overrides: Sequence[str] = (),
) -> Preview:
    """Draw a sheet of training images through the training's own pipeline.

    A row for each case: the prepared image with its labels, then what training gets of it the first times
    that it is drawn, bit for bit. Then a row for each transform by itself, which happens always there.

    Parameters
    ----------
    recipe : Path, str or Recipe
    draws : int
        Images drawn of each case.
    cases : sequence of str
        Cases to show, by their names in the data set; else some with foreground, from all over the set.
    output : Path or str
        PNG to write; one that is there is replaced.
    overrides : sequence of str
        ``key=value`` changes of a recipe file.

    Raises
    ------
    RecipeError, DataError, SetupError
    """
    resolved = as_recipe(recipe, overrides)
    if resolved.dimensions == 3:
        raise RecipeError(
            f"{resolved.model.type} learns patches of volumes, and preview draws pictures",
            hint="look at the volumes themselves in a viewer; there is no preview of their patches yet",
        )
    # The sheet is of images with labels; the others of a batch would be loaded for nothing.
    resolved = resolved.model_copy(update={"alignment": None})
    everything = load_cases(resolved.train_dataset, resolved.dimensions, resolved.neighbours)
    labels = class_names(resolved)
    chosen = _named(everything, cases) if cases else _some(everything, resolved)
    start_paddle()
    from medseg_paddle.engine.data import TrainingStream

    stream = TrainingStream(everything, resolved)
    tally = _Tally(labels)
    mixing = resolved.train_dataset.mixup
    numbers = [n for n, t in enumerate(resolved.train_dataset.transforms) if not isinstance(t, Normalize)]
    with ProgressBar("drawing", len(chosen) + _COUNTED + len(numbers)) as bar:
        positions = _positions(stream, chosen, draws)
        rows = []
        for case in chosen:
            prepared = _draw(TrainingStream((case,), _with(resolved, ())), 0, resolved)
            drawn = [_draw(stream, position, resolved) for position in positions[case.id]]
            captions = [f"pass {position // len(stream) + 1}" for position in positions[case.id]]
            rows.append(_row(case.id, "", prepared, drawn, captions, labels))
            bar.update(len(rows))
        for position in range(_COUNTED):
            tally.add(_draw(stream, position, resolved), stream.case_at(position))
            bar.update(len(rows) + position + 1)
        for done, number in enumerate(numbers, start=len(rows) + _COUNTED + 1):
            rows.append(_alone(number, chosen[0], resolved, labels, draws))
            bar.update(done)
        if mixing is not None:
            rows.append(_mixed(mixing, everything, resolved, labels, draws))
    picture = draw_sheet(
        f"{resolved.name}: what its training sees",
        _notes(resolved, len(everything)),
        rows,
        labels,
        mixed=mixing is not None,
    )
    write_image(Path(output), picture)
    return Preview(
        Path(output), tuple(case.id for case in chosen), _COUNTED, tally.shares, tuple(tally.problems())
    )


class _Tally:
    """Counts what is in the images of a training."""

    def __init__(self, labels: LabelSet) -> None:
        self._labels = labels
        self._with_class = dict.fromkeys((label.name for label in labels.foreground), 0)
        self._empty: list[str] = []
        self._blank: list[str] = []
        self.images = 0

    def add(self, draw: _Draw, case: Case) -> None:
        """Count one image."""
        self.images += 1
        for label in self._labels.foreground:
            self._with_class[label.name] += any((part == label.index).any() for part in draw.labels)
        if all((part == draw.ignore_index).all() for part in draw.labels):
            self._empty.append(case.id)
        if not np.ptp(draw.image) > _LEAST_RANGE:  # also true of what is not a number
            self._blank.append(case.id)

    @property
    def shares(self) -> dict[str, float]:
        """Share of the images that hold a class, by its name."""
        return {name: count / self.images for name, count in self._with_class.items()}

    def problems(self) -> Iterator[str]:
        """What should not be."""
        for name, count in self._with_class.items():
            if count == 0:
                yield (
                    f"none of the first {self.images} training images holds {name}; "
                    "raise `foreground` of RandomAffinePatch, or look at the labels"
                )
        for found, what in (
            (self._empty, "nothing to learn from: all their pixels are ignored"),
            (self._blank, "one intensity everywhere"),
        ):
            if found:
                yield f"{len(found)} of the first {self.images} training images have {what} (first: {found[0]})"


def _draw(stream: TrainingStream, position: int, recipe: Recipe) -> _Draw:
    """What the training gets at a position of its stream."""
    sample = stream[position]
    return _shown(sample["img"], sample["label"], recipe)


def _shown(planes: NDArray[np.float32], label: NDArray[np.int64], recipe: Recipe) -> _Draw:
    """CHW image and label of the training, without the normalisation."""
    image = planes.transpose(1, 2, 0)
    for transform in recipe.train_dataset.transforms:
        if isinstance(transform, Normalize):
            image = (image * np.array(transform.std) + np.array(transform.mean)) * 255
    mixture = mixup.unpacked(label, recipe.ignore_index)
    if mixture is None:
        return _Draw(image, (label,), 1.0, recipe.ignore_index, recipe.neighbours)
    return _Draw(image, mixture[:2], mixture[2], recipe.ignore_index, recipe.neighbours)


def _alone(number: int, case: Case, recipe: Recipe, labels: LabelSet, draws: int) -> Row:
    """A row that shows one transform, on an image of the size and scale that it gets in training."""
    from medseg_paddle.engine.data import TrainingStream
    from medseg_paddle.engine.paddleseg_adapter.transforms import TrainingTransform, sizes_after

    transform = recipe.train_dataset.transforms[number]
    always = _always(transform)
    said = transform.model_dump(mode="json", exclude={"type"}, exclude_unset=True)
    settings = ", ".join(f"{key}: {value}" for key, value in said.items())
    note = " ".join(filter(None, (settings, "(here always)" if always != transform else "")))
    title = f"{transform.type} alone"
    before = [_at_rest(t) for t in recipe.train_dataset.transforms[:number]]
    sized = _with(recipe, [t for t in before if t is not None])
    reference = _draw(TrainingStream((case,), sized), 0, sized)
    image, label = _as_read(reference.image), reference.labels[0]
    try:
        sizes_after((always,), [label.shape])
    except RecipeError as error:
        return _row(title, f"not without what stands before it: {error.message}", reference, [], [], labels)
    whole = _with(recipe, [always])
    apply = TrainingTransform(
        whole.train_dataset.transforms, recipe.ignore_index, channels=recipe.in_channels
    )
    foreground = foreground_indices(label, recipe.ignore_index)
    drawn = [
        _shown(*apply(image, label, np.random.default_rng([recipe.seed, 3, draw]), foreground), whole)
        for draw in range(draws)
    ]
    if all(draw.labels[0].shape == label.shape for draw in drawn):
        window = _window(reference)
        reference, drawn = reference.cut(window), [draw.cut(window) for draw in drawn]
    return _row(title, note, reference, drawn, [""] * draws, labels, first="before")


def _at_rest(transform: Transform) -> Transform | None:
    """What a transform does to the size and scale of an image, and nothing else; None where that is nothing."""
    if isinstance(transform, RandomAffinePatch):
        middle = float(np.sqrt(transform.scale[0] * transform.scale[1]))
        scale = (middle, middle)
        return RandomAffinePatch(
            type=transform.type, size=transform.size, scale=scale, foreground=1, border=transform.border
        )
    return transform if transform.type in _OF_SIZE else None


def _as_read(image: NDArray[np.float32]) -> NDArray[Any]:
    """An image 0..255 as the training decodes it: uint8 where it holds whole grey levels."""
    whole = np.rint(image)
    return whole.astype(np.uint8) if np.allclose(image, whole, atol=0.01) else image.astype(np.float32)


def _mixed(mixing: Mixup, everything: Sequence[Case], recipe: Recipe, labels: LabelSet, draws: int) -> Row:
    """A row that shows mixup, which needs other images and all transforms before it."""
    from medseg_paddle.engine.data import TrainingStream

    always = mixing.model_copy(update={"prob": 1.0})
    dataset = recipe.train_dataset.model_copy(update={"mixup": always})
    stream = TrainingStream(everything, recipe.model_copy(update={"train_dataset": dataset}))
    drawn = [_draw(stream, position, recipe) for position in range(draws + 1)]
    note = f"alpha: {mixing.alpha:g}, prob: {mixing.prob:g} (here always), after all transforms above"
    return _row("mixup", note, drawn[0], drawn[1:], [""] * draws, labels, first="")


def _with(recipe: Recipe, transforms: Sequence[Transform]) -> Recipe:
    """The recipe with these transforms of training images and its own normalisation, each image drawn as often."""
    normalize = tuple(t for t in recipe.train_dataset.transforms if isinstance(t, Normalize))
    changes = {"transforms": (*transforms, *normalize), "mixup": None, "sampling": None}
    dataset = recipe.train_dataset.model_copy(update=changes)
    return recipe.model_copy(update={"train_dataset": dataset})


def _always(transform: Transform) -> Transform:
    """The transform with each probability of its changes that is above 0 at 1."""
    probabilities = [key for key in type(transform).model_fields if key == "prob" or key.endswith("_prob")]
    certain = {key: 1.0 for key in probabilities if 0 < getattr(transform, key) < 1}
    return transform.model_copy(update=certain)


def _row(
    title: str,
    note: str,
    reference: _Draw,
    drawn: Sequence[_Draw],
    captions: Sequence[str],
    labels: LabelSet,
    first: str = "prepared",
) -> Row:
    tiles = [reference.tile(first, labels)]
    tiles += [draw.tile(caption, labels) for draw, caption in zip(drawn, captions, strict=True)]
    return Row(title, note, tuple(tiles))


def _window(draw: _Draw) -> tuple[slice, slice]:
    """The part of a large image that is shown pixel by pixel: about a foreground pixel, else the centre."""
    shape = np.array(draw.labels[0].shape)
    found = foreground_indices(draw.labels[0], draw.ignore_index)
    centre = found[len(found) // 2] if len(found) else shape // 2
    first = np.clip(centre - TILE_SIDE // 2, 0, np.maximum(0, shape - TILE_SIDE))
    return slice(first[0], first[0] + TILE_SIDE), slice(first[1], first[1] + TILE_SIDE)


def _positions(stream: TrainingStream, chosen: Sequence[Case], draws: int) -> dict[str, list[int]]:
    """Where each chosen case stands the first times; fewer times where it is hardly ever drawn."""
    found: dict[str, list[int]] = {case.id: [] for case in chosen}
    for position in range(_PASSES * draws * len(stream)):
        places = found.get(stream.case_at(position).id)
        if places is not None and len(places) < draws:
            places.append(position)
            if all(len(places) == draws for places in found.values()):
                break
    return found


def _named(everything: Sequence[Case], names: Sequence[str]) -> tuple[Case, ...]:
    known = {case.id: case for case in everything}
    for name in names:
        if name not in known:
            raise DataError(
                f"the training set has no case '{name}'", hint=did_you_mean(name, list(known)[:200])
            )
    return tuple(known[name] for name in names)


def _some(everything: Sequence[Case], recipe: Recipe) -> tuple[Case, ...]:
    """A few cases from all over the set; of those looked at, those with foreground come first."""
    spread = np.linspace(0, len(everything) - 1, min(_LOOKED_AT, len(everything))).astype(int)
    candidates = [everything[number] for number in spread]
    full = [
        case
        for case in candidates
        if case.label is not None and len(foreground_indices(read_label(case.label), recipe.ignore_index))
    ]
    pool = full if len(full) >= _CASES else candidates
    picked = np.linspace(0, len(pool) - 1, min(_CASES, len(pool))).astype(int)
    return tuple(pool[number] for number in picked)


def _notes(recipe: Recipe, count: int) -> list[str]:
    chain = " > ".join(t.type for t in recipe.train_dataset.transforms)
    mixing = " > mixup" if recipe.train_dataset.mixup is not None else ""
    notes = [
        f"{count} cases of {recipe.train_dataset.dataset_root}, seed {recipe.seed}",
        "Pass k is what the training gets of the case in its k-th pass, of as many images as there are cases.",
        f"{chain}{mixing}",
    ]
    if recipe.neighbours:
        notes.append(
            f"Shown is each slice without the {recipe.neighbours} on each side that the network sees, too."
        )
    if recipe.image_channels not in (1, 3):
        notes.append(f"Shown is channel 1 of {recipe.image_channels}.")
    return notes
