"""One case, measured: what the doctor judges afterwards. A few kilobytes at most, whatever the picture's size."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medseg_paddle.config.prepare import IGNORE_INDEX
from medseg_paddle.core import Slicing
from medseg_paddle.errors import DataError
from medseg_paddle.io.images import read_label, read_samples
from medseg_paddle.io.volumes import is_volume, read_label_volume, read_volume
from medseg_paddle.preprocess.duplicates import Appearance, appearance
from medseg_paddle.preprocess.shift import Fit, Shift, fit, mean_fit, shift_of, turn_of
from medseg_paddle.steps.check.exchanged import FEW_VALUES, are_exchanged, files_are_exchanged
from medseg_paddle.steps.check.findings import Finding, error
from medseg_paddle.steps.check.inputs import Look, Part, Unit
from medseg_paddle.steps.check.intensity import Intensity, Levels, counted

_MOST_VALUES = 256  # all of 8 bits; of numbered objects, the first
_MOST_COUNTED = 65535
_MOST_OUTLINED = 32  # a label map with more values numbers objects; their common outline is taken
_FITS_WELL = 0.4
_FITS_NEAR = 3.0
_VOLUME_SLICES = 24  # of a volume's slices with outline, these many are laid over their images


@dataclass(frozen=True, eq=False)
class Facts:
    """What was measured of one case.

    Attributes
    ----------
    unit : Unit
    troubles : tuple of Finding
        What could not be read, and what does not belong together.
    pictures : int
        Pictures read: slices of a volume, or one.
    sizes : frozenset of (rows, columns)
    kinds : frozenset of (channels, bits)
    values : dict
        Stored label value to pixels.
    classes : dict
        Class index to pixels, by the mapping; undeclared values are not in it.
    full : bool
        Whether some class covers a whole picture, and nothing else does in the case.
    levels : Levels or None
        Intensities; None where nothing could be read.
    slicing : Slicing or None
    digest : str
        Of all samples; the same for the same pictures in another file format.
    label_digest : str
        Of all label values.
    appearance : Appearance or None
        To compare pictures by how they look.
    shift : Shift or None
    turn : str or None
    is_label : bool
        Whether every image is its own label, in other values.
    """

    unit: Unit
    troubles: tuple[Finding, ...] = ()
    pictures: int = 0
    sizes: frozenset[tuple[int, int]] = frozenset()
    kinds: frozenset[tuple[int, int]] = frozenset()
    values: Mapping[int, int] = field(default_factory=dict)
    classes: Mapping[int, int] = field(default_factory=dict)
    labelled: bool = False
    levels: Levels | None = None
    slicing: Slicing | None = None
    digest: str = ""
    label_digest: str = ""
    appearance: Appearance | None = None
    shift: Shift | None = None
    turn: str | None = None
    is_label: bool = False

    @property
    def foreground(self) -> int:
        """Pixels of all classes but the background."""
        return sum(count for value, count in self.classes.items() if value not in (0, IGNORE_INDEX))

    @property
    def pixels(self) -> int:
        """Pixels that are not left out."""
        return sum(count for value, count in self.classes.items() if value != IGNORE_INDEX)


def examine(unit: Unit, mapping: Mapping[int, int] | None) -> tuple[Facts, Fit | None]:
    """Read a case once and measure all there is to measure.

    Parameters
    ----------
    unit : Unit
    mapping : dict or None
        Stored label value to class index; None where nobody says, and values are taken as they are.

    Returns
    -------
    Facts
    Fit or None
        Of mask and image; None where there is no outline, or the mask fits only when turned.
    """
    found = _Measured(mapping)
    troubles: list[Finding] = []
    for part in unit.parts:
        missing = [path for path in (part.image, part.label) if path is not None and not path.is_file()]
        if missing:
            names = " and ".join(_shown(path) for path in missing)
            troubles.append(
                error(
                    "missing-file",
                    f"{part.id}: {names} {'is' if len(missing) == 1 else 'are'} not there",
                    "put the file back, correct the list, or prepare the data again",
                    (part.id,),
                )
            )
            continue
        try:
            for look in part.read():
                troubles += found.add(look, part)
        except DataError as failure:
            if _are_exchanged(part):
                troubles.append(_exchanged(part.id, part))
            else:
                troubles.append(error(_code(part), failure.message, failure.hint, (part.id,)))
    shift, turn, together = found.displacement()
    return found.facts(unit, troubles, shift, turn), together


class _Measured:
    """What has been seen of a case so far."""

    def __init__(self, mapping: Mapping[int, int] | None) -> None:
        self._mapping = mapping
        self._values: Counter[int] = Counter()
        self._classes: Counter[int] = Counter()
        self._sizes: set[tuple[int, int]] = set()
        self._kinds: set[tuple[int, int]] = set()
        self._intensity = Intensity()
        self._digest = hashlib.blake2b(digest_size=16)
        self._label_digest = hashlib.blake2b(digest_size=16)
        self._fits: list[Fit] = []
        self._turn_votes: Counter[str | None] = Counter()
        self._turn: str | None = None
        self._pictures = 0
        self._labelled = False
        self._own_labels = 0
        self._slicing: Slicing | None = None
        self._appearance: Appearance | None = None
        self._most_foreground = -1

    def add(self, look: Look, part: Part) -> list[Finding]:
        image, label = look.image, look.label
        if label is not None and label.shape == image.shape[:2] and are_exchanged(image, label):
            return [_exchanged(look.id, part)]
        self._pictures += 1
        channels = 1 if image.ndim == 2 else image.shape[2]
        self._sizes.add((image.shape[0], image.shape[1]))
        self._kinds.add((channels, 8 * image.dtype.itemsize))
        self._slicing = look.slicing or self._slicing
        self._intensity.add(image)
        self._digest.update(repr((image.shape, str(image.dtype))).encode())
        self._digest.update(np.ascontiguousarray(image).data)
        if label is None:
            self._describe(image, 0)
            return []
        if label.shape != image.shape[:2]:
            self._describe(image, 0)
            return [_size_mismatch(look.id, image.shape[:2], label.shape)]
        self._labelled = True
        self._label_digest.update(repr(label.shape).encode())
        self._label_digest.update(np.ascontiguousarray(label).data)
        counts = _counts(label)
        self._own_labels += _is_own_label(image, label)
        self._count(counts)
        classes = self._outlined(counts)
        self._describe(image, sum(counts[value] for value in classes))
        self._lay_over(image, label, classes)
        return []

    def _count(self, counts: Mapping[int, int]) -> None:
        for value, count in counts.items():
            if value in self._values or len(self._values) < _MOST_VALUES:
                self._values[value] += count
            index = value if self._mapping is None else self._mapping.get(value)
            if index is not None and (index in self._classes or len(self._classes) < _MOST_VALUES):
                self._classes[index] += count

    def _outlined(self, counts: Mapping[int, int]) -> list[int]:
        """Stored values whose outlines shall fit the image: all classes but background and pixels left out."""
        if self._mapping is None:
            left_out = {0} if set(counts) <= {0, IGNORE_INDEX} else {0, IGNORE_INDEX}
            return [value for value in counts if value not in left_out]
        return [value for value in counts if self._mapping.get(value, 0) not in (0, IGNORE_INDEX)]

    def _describe(self, image: NDArray[Any], foreground: int) -> None:
        """Of a volume, the slice with most foreground stands for all."""
        if foreground > self._most_foreground:
            self._most_foreground = foreground
            self._appearance = appearance(image)

    def _lay_over(self, image: NDArray[Any], label: NDArray[Any], classes: Sequence[int]) -> None:
        if not classes or len(self._fits) >= _VOLUME_SLICES:
            return
        if len(classes) > _MOST_OUTLINED:
            label, classes = np.isin(label, classes).astype(np.uint8), [1]
        found = fit(image, label, classes)
        if found is None:
            return
        near = shift_of(found)
        if near.score < _FITS_WELL or near.distance > _FITS_NEAR * near.scale:
            self._turn_votes[turn_of(image, label, classes)] += 1
        else:
            self._turn_votes[None] += 1
        self._fits.append(found)

    def displacement(self) -> tuple[Shift | None, str | None, Fit | None]:
        if not self._fits:
            return None, None, None
        (turn, votes), *_ = self._turn_votes.most_common(1)
        if turn is not None and 2 * votes > len(self._fits):
            return None, turn, None
        together = self._fits[0] if len(self._fits) == 1 else mean_fit(self._fits)
        return shift_of(together), None, together

    def facts(self, unit: Unit, troubles: list[Finding], shift: Shift | None, turn: str | None) -> Facts:
        return Facts(
            unit=unit,
            troubles=tuple(troubles),
            pictures=self._pictures,
            sizes=frozenset(self._sizes),
            kinds=frozenset(self._kinds),
            values=dict(self._values),
            classes=dict(self._classes),
            labelled=self._labelled,
            levels=self._intensity.levels() if self._pictures else None,
            slicing=self._slicing,
            digest=self._digest.hexdigest() if self._pictures else "",
            label_digest=self._label_digest.hexdigest() if self._labelled else "",
            appearance=self._appearance,
            shift=shift,
            turn=turn,
            is_label=0 < self._pictures == self._own_labels,
        )


def _counts(label: NDArray[Any]) -> dict[int, int]:
    """Pixels by value."""
    most = int(label.max(initial=0))
    if most > _MOST_COUNTED:  # colours as codes
        values, pixels = np.unique(label, return_counts=True)
        return dict(zip(values.tolist(), pixels.tolist(), strict=True))
    pixels = counted(label, most + 1)
    return {int(value): int(pixels[value]) for value in np.flatnonzero(pixels)}


def _is_own_label(image: NDArray[Any], label: NDArray[Any]) -> bool:
    """Whether image and label are the same picture but for what each value is called."""
    plain = image.reshape(*image.shape[:2], -1)
    first = plain[:, :, 0]
    if len(np.unique(first[::16, ::16])) > FEW_VALUES:
        return False  # as nearly all: at little cost
    values = np.unique(first)
    if not 2 <= len(values) <= FEW_VALUES or np.any(plain != plain[:, :, :1]):
        return False
    called = [np.unique(label[first == value]) for value in values]
    return all(len(one) == 1 for one in called) and len({int(one[0]) for one in called}) == len(values)


def _exchanged(name: str, part: Part) -> Finding:
    return error(
        "swapped",
        f"{name}: the image looks like a mask and the label like an image: they look exchanged",
        "exchange the two, or correct the patterns or the list",
        (part.id,),
    )


def _size_mismatch(name: str, image: tuple[int, ...], label: tuple[int, ...]) -> Finding:
    one, two = (f"{rows} x {columns}" for rows, columns in (image, label))
    return error(
        "size-mismatch",
        f"{name}: the image has {one} pixels (rows x columns), its label {two}"
        + (": rows and columns look exchanged" if image == label[::-1] else ""),
        "export the annotation again on the image's own grid; resizing it would move its outline",
        (name,),
        image=list(image),
        label=list(label),
    )


def _are_exchanged(part: Part) -> bool:
    if part.label is None or is_volume(part.image) or is_volume(part.label):
        return False
    return files_are_exchanged(part.image, part.label)


def _code(part: Part) -> str:
    """What kind of thing is wrong with files that could not be read as a case."""
    label = part.label
    if label is not None and _is_jpeg(label):
        return "jpeg-mask"
    volumes = [path is not None and is_volume(path) for path in (part.image, label)]
    try:
        if label is not None and all(volumes):
            one, two = read_volume(part.image), read_label_volume(label)
            return "size-mismatch" if one.array.shape != two.array.shape else "grid-mismatch"
        if label is not None and not any(volumes):
            return (
                "size-mismatch"
                if read_samples(part.image).shape[:2] != read_label(label).shape
                else "refused"
            )
    except DataError:
        return "unreadable"
    return "refused"


def _is_jpeg(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return bool(picture.format == "JPEG")
    except (OSError, ValueError, SyntaxError):
        return False


def _shown(path: Path) -> str:
    return "/".join(path.parts[-2:])
