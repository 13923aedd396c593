"""Training images as the endless stream that the loop reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.config import Recipe
from medseg_paddle.config.losses import single_losses
from medseg_paddle.core import Case, class_weights
from medseg_paddle.engine.loading import Allocate
from medseg_paddle.engine.paddleseg_adapter.transforms import TrainingTransform, foreground_kind, sizes_after
from medseg_paddle.engine.sampling import Order, order_of
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.io.decoded import DecodedImages
from medseg_paddle.io.images import read_image, read_label
from medseg_paddle.io.label_values import require_classes
from medseg_paddle.io.neighbours import read_stacked
from medseg_paddle.io.unlabelled import target_cases
from medseg_paddle.preprocess.augment import mixup
from medseg_paddle.preprocess.foreground import Foreground, ForegroundClasses
from medseg_paddle.volume_cache import VolumeFacts


@dataclass(frozen=True)
class Survey:
    """What the labels of a data set hold: pixels per class, those ignored left out, and the sizes of the images."""

    pixels: tuple[int, ...]
    """Of whole volumes, voxels."""
    sizes: frozenset[tuple[int, int]]
    """Rows and columns, those of the images without labels included; none of whole volumes: patches are cut of them."""
    only_ignored: tuple[Path, ...] = ()
    """Labels with ignored pixels and none of a class."""
    holds_foreground: tuple[bool, ...] = ()
    """Of each case, whether it has a pixel that is neither background nor ignored."""
    kept: Mapping[str, VolumeFacts] = field(default_factory=dict)
    """Of whole volumes, by id of the case, what was noted of each when it was preprocessed."""


def survey(
    cases: Sequence[Case],
    recipe: Recipe,
    progress: Callable[[int, int, str], None] | None = None,
    decoded: DecodedImages | None = None,
    targets: Sequence[Case] = (),
) -> Survey:
    """Read every image and label once before the training starts: better now than at iteration 900.

    Parameters
    ----------
    cases : sequence of Case
    recipe : Recipe
    progress : callable, optional
        Told after each case: done, in all, what.
    decoded : DecodedImages, optional
        Keeps what is read, as far as it has room, for :class:`TrainingStream`.
    targets : sequence of Case
        Images without labels that are trained with them, see :func:`targets_of`.

    Raises
    ------
    DataError
        A file is unreadable, a label is missing, of another size than its image, or holds a value that
        is no class.
    """
    pixels = np.zeros(recipe.num_classes, np.int64)
    sizes, only_ignored, full = set(), [], []
    for done, case in enumerate(cases, start=1):
        label = labelled(case, recipe)
        image = read_image(case.image, recipe.image_channels)
        if image.shape[:2] != label.shape:
            raise DataError(
                f"{case.image} is {image.shape[:2]} pixels (rows, columns), its label {case.label} {label.shape}",
                hint="export image and label at the same size; a stretched mask would teach the wrong border",
            )
        counts = np.bincount(label.ravel(), minlength=recipe.num_classes)[: recipe.num_classes]
        if 0 <= recipe.ignore_index < recipe.num_classes:
            counts[recipe.ignore_index] = 0
        pixels += counts
        full.append(bool(counts[1:].any()))
        no_class = recipe.ignore_index > 0 and not full[-1]
        if case.label is not None and no_class and (label == recipe.ignore_index).any():
            only_ignored.append(case.label)
        sizes.add(label.shape)
        if decoded is not None:
            decoded.keep(*_packed(case, image, label, recipe))
        if progress is not None:
            progress(done, len(cases) + len(targets), "images and labels read")
    for done, case in enumerate(targets, start=len(cases) + 1):
        image = read_image(case.image, recipe.image_channels)
        sizes.add((image.shape[0], image.shape[1]))
        if decoded is not None:
            decoded.keep(*_packed(case, image, _unlabelled(image), recipe))
        if progress is not None:
            progress(done, len(cases) + len(targets), "images and labels read")
    return Survey(tuple(int(n) for n in pixels), frozenset(sizes), tuple(only_ignored), tuple(full))


def targets_of(recipe: Recipe) -> tuple[Case, ...]:
    """Images without labels whose features the recipe aligns with those of the training; none where it does not.

    Raises
    ------
    DataError
        Their folder is not there or holds none.
    """
    return () if recipe.alignment is None else target_cases(Path(recipe.alignment.target))


def labelled(case: Case, recipe: Recipe) -> NDArray[Any]:
    """The label of a case, HW integers, every value a class or the ignored one.

    Raises
    ------
    DataError
        No label, unreadable, or a value that is no class.
    """
    if case.label is None:
        raise DataError(
            f"{case.image} has no label", hint="training and evaluation need a label for every image"
        )
    label = read_label(case.label)
    require_classes(label, case.label, recipe.num_classes, recipe.ignore_index, "pixels")
    return label


def require_stackable(recipe: Recipe, found: Survey) -> None:
    """See that images of a batch will have one size.

    Raises
    ------
    RecipeError
        They would not, or a Padding is smaller than an image it gets.
    """
    transforms = recipe.train_dataset.transforms
    sizes = sizes_after(transforms, found.sizes)
    images = _images_of_a_batch(recipe)
    if images == 1 or (sizes is not None and len(sizes) <= 1):
        return
    steps = ", ".join(t.type for t in transforms) or "no transform"
    many = "a random size" if sizes is None else f"{len(sizes)} different sizes"
    raise RecipeError(
        f"the training images have {many} after {steps} and cannot be stacked to a batch of {images}",
        hint="end the changes of size in train_dataset.transforms with RandomAffinePatch, RandomPaddingCrop or "
        "Resize" + ("" if recipe.alignment else ", or set batch_size: 1"),
    )


def balanced_weights(recipe: Recipe, found: Survey) -> tuple[float, ...] | None:
    """What ``weight: balanced`` of a loss stands for; None where no loss says so. An ignored class weighs nothing.

    Raises
    ------
    DataError
        A class has no pixel in the training set.
    """
    if not any(getattr(loss, "weight", None) == "balanced" for _, loss in single_losses(recipe.loss)):
        return None
    pixels, names, ignored = list(found.pixels), list(recipe.label_set.names), recipe.ignore_index
    if not 0 <= ignored < len(pixels):
        return class_weights(pixels, names)
    del pixels[ignored], names[ignored]
    weights = class_weights(pixels, names)
    return (*weights[:ignored], 0.0, *weights[ignored:])


def batch_bytes(recipe: Recipe, found: Survey) -> int:
    """Bytes of the largest batch that :class:`TrainingStream` serves: float32 images, and labels."""
    sizes = sizes_after(recipe.train_dataset.transforms, found.sizes) or found.sizes
    pixels = max(rows * columns for rows, columns in sizes)
    mixed = recipe.train_dataset.mixup is not None
    label = np.dtype(np.int64) if mixed else label_dtype(recipe.ignore_index)
    images = 4 * recipe.in_channels * _images_of_a_batch(recipe)
    return pixels * (images + label.itemsize * recipe.batch_size) + ROUNDING


def _images_of_a_batch(recipe: Recipe) -> int:
    """With an alignment there is an image without label after each of the labelled ones."""
    return recipe.batch_size * (1 if recipe.alignment is None else 2)


ROUNDING = 256  # arrays of a batch begin at round addresses


def label_dtype(ignore_index: int) -> np.dtype[Any]:
    """The narrowest type for labels of a batch: 256 classes and the ignored value; the loss widens them."""
    return np.dtype(np.uint8 if 0 <= ignore_index <= 255 else np.int32)


def _foreground(recipe: Recipe) -> type[Foreground | ForegroundClasses]:
    steps = recipe.train_dataset.transforms
    return foreground_kind(steps[0] if steps else None)


def _packed(case: Case, image: NDArray[np.float32], label: NDArray[Any], recipe: Recipe) -> tuple[Any, ...]:
    """Key and arrays of a case as they are kept: 8 bits where the picture has no more, a quarter of the room."""
    return (
        (case.image, case.label),
        _narrow(image),
        label,
        *_foreground(recipe)(label, recipe.ignore_index).kept,
    )


def _narrow(image: NDArray[np.float32]) -> NDArray[Any]:
    narrow = image.astype(np.uint8)
    return narrow if np.array_equal(narrow, image) else image


def _unlabelled(image: NDArray[Any]) -> NDArray[np.uint8]:
    """What stands in for the label that an image has not; nobody learns from it."""
    return np.zeros(image.shape[:2], np.uint8)


# What is drawn with one seed: 0 is the order of the images, 3 what the network draws (`randomness`).
DRAWS, _MIXTURES, _TARGET_ORDER, _TARGET_DRAWS = 1, 2, 4, 5


def anywhere(_name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An array of its own."""
    return np.empty(shape, dtype)


class TrainingStream:
    """Position in the stream -> augmented image and label.

    Each pass over the cases is in a fresh order, see :class:`medseg_paddle.engine.sampling.Order`. Everything drawn
    at a position depends on the seed and the position alone: not on workers, not on when the run was interrupted.

    With an `alignment` there is an unlabelled image at each position, too, drawn for itself and augmented alike.

    Parameters
    ----------
    cases : sequence of Case
    recipe : Recipe
    decoded : DecodedImages, optional
        Cases that need not be decoded again; see :func:`survey`.
    found : Survey, optional
        Of these cases; without it labels are read where their foreground decides how often a case is drawn.

    Raises
    ------
    DataError
        What the recipe names for sampling, as a style or to be aligned cannot be read, or does not fit.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        recipe: Recipe,
        decoded: DecodedImages | None = None,
        found: Survey | None = None,
    ) -> None:
        self.num_classes, self.ignore_index = recipe.num_classes, recipe.ignore_index
        self._cases, self._recipe, self._decoded = tuple(cases), recipe, decoded
        # Under which key the slices lie that are neighbours of others, too: each is held once.
        self._kept = {case.image: (case.image, case.label) for case in self._cases if case.stack}
        self._transform = TrainingTransform(
            recipe.train_dataset.transforms, recipe.ignore_index, channels=recipe.in_channels
        )
        self._foreground = _foreground(recipe)
        self._order = order_of(
            recipe.train_dataset.sampling,
            self._cases,
            recipe.seed,
            lambda: found.holds_foreground if found is not None else self._found_foreground(),
        )
        self._targets = targets_of(recipe)
        self._target_order = Order(len(self._targets), recipe.seed, stream=_TARGET_ORDER)
        self._step = 2 if self._targets else 1  # from one image of a batch that has a label to the next
        mixing = recipe.train_dataset.mixup
        self._mixup = None if mixing is None else mixup.Mixup(**mixing.model_dump())

    def __len__(self) -> int:
        """Images in one pass; the sampler goes beyond it."""
        return len(self._cases)

    def case_at(self, position: int) -> Case:
        """The case that stands at a position of the stream."""
        return self._cases[self._order[position]]

    def names(self, positions: Sequence[int]) -> list[str]:
        """The files of the images at these positions."""
        cases = [self.case_at(position) for position in positions]
        if self._targets:
            cases += [self._targets[self._target_order[position]] for position in positions]
        return [str(case.image) for case in cases]

    def __getitem__(self, position: int) -> dict[str, NDArray[Any]]:
        """``img`` float32 CHW and ``label`` int64 HW, with label; see `preprocess.augment.mixup` for a mixed one."""
        batch = self.batch([position])
        return {"img": batch["img"][0], "label": batch["label"][0].astype(np.int64)}

    def batch(self, positions: Sequence[int], allocate: Allocate = anywhere) -> dict[str, NDArray[Any]]:
        """Images and labels of several positions.

        Parameters
        ----------
        positions : sequence of int
            Neighbours in one of the training's batches; without mixup, any.
        allocate : callable
            Gives the arrays to write to, by name, shape and dtype.

        Returns
        -------
        dict
            ``img`` float32 NCHW; ``label`` NHW of :func:`label_dtype`, or int64 where it is mixed. With an
            `alignment`, 2 N images: one without label after each of the labelled ones.
        """
        mixing = self._mixing(positions)
        if mixing is None:
            return self._loaded(positions, allocate, label_dtype(self.ignore_index))
        batch = self._loaded(positions, allocate, np.dtype(np.int64))
        # The images to mix with are of the whole batch, which is more than these where several processes share it.
        size = self._recipe.batch_size
        start = positions[0] // size * size
        others = [start + (position - start + mixing.step) % size for position in positions]
        absent = [position for position in others if position not in positions]
        more = self._loaded(absent, anywhere, np.dtype(np.int64)) if absent else {}
        places = [(*positions, *absent).index(position) for position in others]
        for name, values in batch.items():
            every = np.concatenate([values, more[name]]) if absent else values
            if name == "img":
                step = self._step  # images without label stay as they are
                values[::step] = mixup.mixed(values[::step], every[::step][places], mixing.weight)
            else:
                values[...] = mixup.packed(values, every[places], mixing.weight, self.ignore_index)
        return batch

    def _loaded(
        self, positions: Sequence[int], allocate: Allocate, label_type: np.dtype[Any]
    ) -> dict[str, NDArray[Any]]:
        batch: dict[str, NDArray[Any]] = {}
        step = self._step
        for number, position in enumerate(positions):
            image, label = self._augmented(position)
            if not batch:
                rows, columns, channels = image.shape
                batch["img"] = allocate("img", (step * len(positions), channels, rows, columns), np.float32)
                batch["label"] = allocate("label", (len(positions), rows, columns), label_type)
            self._transform.write(image, batch["img"][step * number])
            batch["label"][number] = label
            if self._targets:
                target = self._targets[self._target_order[position]]
                image, _ = self._changed(target, [self._recipe.seed, _TARGET_DRAWS, position], labels=False)
                self._transform.write(image, batch["img"][step * number + 1])
        return batch

    def _mixing(self, positions: Sequence[int]) -> mixup.Mixing | None:
        if self._mixup is None:
            return None
        size = self._recipe.batch_size
        number = positions[0] // size
        if list(positions) != list(range(positions[0], positions[0] + len(positions))) or (
            positions[-1] // size != number
        ):
            raise ValueError(f"{positions} is no part of one batch, which mixup needs")
        return self._mixup.draw(np.random.default_rng([self._recipe.seed, _MIXTURES, number]), size)

    def _augmented(self, position: int) -> tuple[NDArray[Any], NDArray[Any]]:
        return self._changed(self.case_at(position), [self._recipe.seed, DRAWS, position])

    def _changed(
        self, case: Case, seeds: Sequence[int], *, labels: bool = True
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Image and label of a case, or what stands in for a label, through the transforms; the seeds draw."""
        held = None if self._decoded is None else self._decoded.get((case.image, case.label))
        if held is None:
            read = read_image(case.image, self._recipe.image_channels)
            label = labelled(case, self._recipe) if labels else _unlabelled(read)
            _, image, label, *found = _packed(case, read, label, self._recipe)
        else:
            image, label, *found = held
        if self._recipe.neighbours:
            image = self._with_neighbours(case, image)
        foreground = self._foreground(label, self.ignore_index, *found)
        return self._transform.augmented(image, label, np.random.default_rng(seeds), foreground)

    def _with_neighbours(self, case: Case, image: NDArray[Any]) -> NDArray[Any]:
        """A slice that was read, between its neighbours."""

        def read(path: Path, channels: int) -> NDArray[Any]:
            if path == case.image:
                return image
            held = None if self._decoded is None else self._decoded.get(self._kept.get(path))
            return _narrow(read_image(path, channels)) if held is None else held[0]

        return read_stacked(case, self._recipe.image_channels, self._recipe.neighbours, read)

    def _found_foreground(self) -> list[bool]:
        ignored = self.ignore_index
        labels = (labelled(case, self._recipe) for case in self._cases)
        return [bool(((label != 0) & (label != ignored)).any()) for label in labels]
