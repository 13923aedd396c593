"""Training images as the endless stream that the loop reads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from medseg_paddle.config import Recipe
from medseg_paddle.core import Case
from medseg_paddle.engine.paddleseg_adapter.transforms import TrainingTransform, sizes_after
from medseg_paddle.errors import DataError, MedsegError, RecipeError, SetupError
from medseg_paddle.io.images import read_image, read_label
from medseg_paddle.preprocess.augment import foreground_indices, mixup


@dataclass(frozen=True)
class Survey:
    """What the labels of a data set hold: pixels per class, and the sizes of the images."""

    pixels: tuple[int, ...]
    sizes: frozenset[tuple[int, int]]


def survey(
    cases: Sequence[Case], recipe: Recipe, progress: Callable[[int, int, str], None] | None = None
) -> Survey:
    """Read every image and label once before the training starts: better now than at iteration 900.

    Raises
    ------
    DataError
        A file is unreadable, a label is missing, of another size than its image, or holds a value that
        is no class.
    """
    pixels = np.zeros(recipe.num_classes, np.int64)
    sizes = set()
    for done, case in enumerate(cases, start=1):
        label = labelled(case, recipe)
        image = read_image(case.image, recipe.in_channels)
        if image.shape[:2] != label.shape:
            raise DataError(
                f"{case.image} is {image.shape[:2]} pixels (rows, columns), its label {case.label} {label.shape}",
                hint="export image and label at the same size; a stretched mask would teach the wrong border",
            )
        pixels += np.bincount(label.ravel(), minlength=recipe.num_classes)[: recipe.num_classes]
        sizes.add(label.shape)
        if progress is not None:
            progress(done, len(cases), "images and labels read")
    return Survey(tuple(int(n) for n in pixels), frozenset(sizes))


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
    wrong = label[(label >= recipe.num_classes) & (label != recipe.ignore_index)]
    if wrong.size:
        values, counts = np.unique(wrong, return_counts=True)
        listed = ", ".join(f"{v} ({n} pixels)" for v, n in zip(values[:5], counts[:5], strict=True))
        raise DataError(
            f"{case.label}: label value {listed} for {recipe.num_classes} classes (0..{recipe.num_classes - 1})",
            hint="correct num_classes, or map the values: `medseg prepare` with `label_map: {255: 1}`",
        )
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
    if recipe.batch_size == 1 or (sizes is not None and len(sizes) <= 1):
        return
    steps = ", ".join(t.type for t in transforms) or "no transform"
    many = "a random size" if sizes is None else f"{len(sizes)} different sizes"
    raise RecipeError(
        f"the training images have {many} after {steps} and cannot be stacked to a batch of {recipe.batch_size}",
        hint="end the changes of size in train_dataset.transforms with RandomAffinePatch, RandomPaddingCrop or "
        "Resize, or set batch_size: 1",
    )


def batch_bytes(recipe: Recipe, found: Survey) -> int:
    """Bytes of the largest batch that :class:`TrainingStream` serves: float32 images, int64 labels."""
    sizes = sizes_after(recipe.train_dataset.transforms, found.sizes) or found.sizes
    pixels = max(rows * columns for rows, columns in sizes)
    return recipe.batch_size * pixels * (4 * recipe.in_channels + 8)


@contextmanager
def errors_from_workers() -> Iterator[None]:
    """Let an error of a process that loads images arrive where the images are read.

    Paddle's DataLoader raises it in a thread of its own, as its type with the traceback as text, and
    the reader gets a SystemError about a queue that was killed.

    Raises
    ------
    MedsegError
        What the process raised, with its message and hint.
    SetupError
        The process was killed.
    """
    raised: list[MedsegError] = []
    seen = threading.Event()
    usual = threading.excepthook

    def keep(args: threading.ExceptHookArgs) -> None:
        if isinstance(args.exc_value, MedsegError):
            raised.append(args.exc_value)
        else:
            usual(args)
        seen.set()

    threading.excepthook = keep
    try:
        yield
    except SystemError as error:
        if "killed by signal" not in str(error):
            seen.wait(timeout=5)  # the queue is killed before the thread raises
        if raised:
            raise _as_raised(raised[0]) from None
        if seen.is_set():
            raise
        raise SetupError(  # the kernel does it where memory runs out
            "a process that loads images was killed",
            hint="give more memory, or set a lower num_workers or batch_size; then go on with --resume",
        ) from error
    finally:
        threading.excepthook = usual


def _as_raised(error: MedsegError) -> MedsegError:
    """The error without the traceback that Paddle put around its text."""
    kind = type(error)
    text = error.message.rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip()
    message, _, hint = text.rpartition("\nhint: ")
    return kind(message, hint=hint) if message else error


class TrainingStream(paddle.io.Dataset):  # type: ignore[misc]
    """Position in the stream -> augmented image and label.

    Each pass over the cases is in a fresh order. Everything drawn at a position depends on the seed and
    the position alone: not on workers, not on when the run was interrupted.
    """

    def __init__(self, cases: Sequence[Case], recipe: Recipe) -> None:
        self.num_classes, self.ignore_index = recipe.num_classes, recipe.ignore_index
        self._cases, self._recipe = tuple(cases), recipe
        self._transform = TrainingTransform(recipe.train_dataset.transforms, recipe.ignore_index)
        self._cache: OrderedDict[int, tuple[NDArray[Any], NDArray[Any], NDArray[np.int32]]] = OrderedDict()
        self._cached_bytes, self._limit = 0, recipe.train_dataset.cache_mb << 20
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))
        mixing = recipe.train_dataset.mixup
        self._mixup = None if mixing is None else mixup.Mixup(**mixing.model_dump())
        self._batch: OrderedDict[int, tuple[NDArray[np.float32], NDArray[np.int64]]] = OrderedDict()

    def __len__(self) -> int:
        """Images in one pass; the sampler goes beyond it."""
        return len(self._cases)

    def case_at(self, position: int) -> Case:
        """The case that stands at a position of the stream."""
        return self._cases[self._index(position)]

    def __getitem__(self, position: int) -> dict[str, NDArray[Any]]:
        """``img`` float32 CHW and ``label`` int64 HW; see `preprocess.augment.mixup` for a mixed one."""
        image, label = self._drawn(position)
        batch, place = divmod(position, self._recipe.batch_size)
        mixing = self._mixing(batch)
        if mixing is not None:
            partner = batch * self._recipe.batch_size + (place + mixing.step) % self._recipe.batch_size
            other, its_label = self._drawn(partner)
            image = mixup.mixed(image, other, mixing.weight)
            label = mixup.packed(label, its_label, mixing.weight, self.ignore_index)
        return {"img": image, "label": label}

    def _mixing(self, batch: int) -> mixup.Mixing | None:
        if self._mixup is None:
            return None
        return self._mixup.draw(np.random.default_rng([self._recipe.seed, 2, batch]), self._recipe.batch_size)

    def _drawn(self, position: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The augmented image and label of a position, before they are mixed; those of a batch are kept for mixup."""
        if position in self._batch:
            return self._batch[position]
        image, label, foreground = self._decoded(self._index(position))
        rng = np.random.default_rng([self._recipe.seed, 1, position])
        drawn = self._transform(image, label, rng, foreground)
        if self._mixup is not None:
            while len(self._batch) >= self._recipe.batch_size:
                self._batch.popitem(last=False)
            self._batch[position] = drawn
        return drawn

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, len(self._cases))
        if self._order[0] != epoch:
            rng = np.random.default_rng([self._recipe.seed, 0, epoch])
            self._order = (epoch, rng.permutation(len(self._cases)))
        return int(self._order[1][place])

    def _decoded(self, index: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int32]]:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        case = self._cases[index]
        image = read_image(case.image, self._recipe.in_channels)
        narrow = image.astype(np.uint8)
        # An 8-bit picture is kept as it is: a quarter of the memory.
        kept = narrow if np.array_equal(narrow, image) else image
        label = labelled(case, self._recipe)
        entry = (kept, label, foreground_indices(label, self.ignore_index).astype(np.int32))
        size = sum(array.nbytes for array in entry)
        if size <= self._limit:
            self._cache[index] = entry
            self._cached_bytes += size
            while self._cached_bytes > self._limit:
                _, old = self._cache.popitem(last=False)
                self._cached_bytes -= sum(array.nbytes for array in old)
        return entry
