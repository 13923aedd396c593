"""From stored label values to class indices, by what the recipe declares and by nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.config.prepare import IGNORE_INDEX, PrepareSpec
from medseg_paddle.core import LabelSet
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.steps.sources.base import Picture

_SHOWN = 8
_SOFT_EDGES = 16  # so many undeclared values of one mask are grey edges, not classes
_MIDDLE = 128


class UndeclaredLabelError(DataError):
    """A label holds values that nobody declared (exit code 3).

    Attributes
    ----------
    counts : Counter
        Pixels of each undeclared value; a colour as its code ``red << 16 | green << 8 | blue``.
    values : frozenset of int
        All values of the label.
    where : str
        Its file.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",  # unpickling sets it afterwards
        counts: Mapping[int, int] | None = None,
        values: frozenset[int] = frozenset(),
        where: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.where = where
        self.counts: Counter[int] = Counter(counts)
        self.values = values


@dataclass(frozen=True)
class LabelRules:
    """What each stored value means.

    Attributes
    ----------
    classes : int
        How many there are, the background included.
    declared : dict or None
        Stored value (or colour code) to class index; None where stored values are class indices.
    threshold : int or None
        Values from this one on are 1, others 0, before anything else.
    colors : bool
        Whether labels are pictures in colour.
    instances : bool
        Whether every value but 0 counts as 1.
    """

    classes: int
    declared: dict[int, int] | None
    threshold: int | None = None
    colors: bool = False
    instances: bool = False

    @classmethod
    def of(cls, spec: PrepareSpec, labels: LabelSet) -> LabelRules:
        """The rules of a recipe.

        Raises
        ------
        RecipeError
            A class is named that `labels` has not.
        """
        declared: dict[int, int] | None = spec.label_map
        key = "label_map"
        if spec.label_colors is not None:
            key, declared = "label_colors", {}
            for color, index in spec.label_colors.items():
                red, green, blue = map(int, color.split())
                declared[red << 16 | green << 8 | blue] = index
        if spec.instances is not None:
            key, declared = "instances", {0: 0, 1: spec.instances}
        named = set((declared or {}).values())
        beyond = sorted(index for index in named if len(labels) <= index != IGNORE_INDEX)
        if beyond:
            raise RecipeError(
                f"`{key}` names class {beyond[0]}, there are {len(labels)} ({', '.join(labels.names)})",
                hint=f"map to 0..{len(labels) - 1}, or to {IGNORE_INDEX} for pixels to leave out",
            )
        if spec.reader == "coco":  # the map is that of the categories, and the reader has used it
            declared = {index: index for index in (*range(len(labels)), IGNORE_INDEX)}
        return cls(
            len(labels),
            declared,
            spec.label_threshold,
            colors=spec.label_colors is not None,
            instances=spec.instances is not None,
        )

    def coded(self, picture: Picture) -> NDArray[Any]:
        """A picture's label as the values that :attr:`mapping` speaks of, (height, width), integer."""
        stored = picture.label
        if self.instances:
            return np.asarray(stored != 0).astype(np.uint8)
        if self.threshold is not None:
            return np.asarray(stored >= self.threshold).astype(np.uint8)
        if self.colors:
            parts = stored.astype(np.int64)
            return np.asarray(parts[:, :, 0] << 16 | parts[:, :, 1] << 8 | parts[:, :, 2])
        return stored

    def apply(self, picture: Picture) -> NDArray[np.uint8]:
        """Class indices of a picture's label, (height, width).

        Raises
        ------
        UndeclaredLabelError
            It holds values that nobody declared.
        """
        stored = self.coded(picture)
        if stored.dtype.itemsize > 2:  # colours: too many for a table
            values, places, counts = np.unique(stored, return_inverse=True, return_counts=True)
            places = places.reshape(stored.shape)
        else:
            counts = np.bincount(stored.ravel())
            values = np.flatnonzero(counts)
            places, counts = stored, counts[values]
        mapping = self.mapping
        undeclared = {int(v): int(n) for v, n in zip(values, counts, strict=True) if int(v) not in mapping}
        if undeclared:
            raise self.refusal(str(picture.label_path), undeclared, frozenset(map(int, values)))
        classes = [mapping[int(value)] for value in values]
        table = np.zeros(int(places.max(initial=0)) + 1, dtype=np.uint8)
        table[values if places is stored else np.arange(len(values))] = classes
        return np.asarray(table[places])

    @property
    def mapping(self) -> dict[int, int]:
        """Every stored value that is allowed, and its class."""
        return {index: index for index in range(self.classes)} if self.declared is None else self.declared

    def refusal(
        self, where: str, undeclared: Mapping[int, int], values: frozenset[int]
    ) -> UndeclaredLabelError:
        """The error that lists undeclared values and proposes the line to add.

        Parameters
        ----------
        where : str
            File or files.
        undeclared : mapping
            Value to its number of pixels.
        values : frozenset of int
            All values that were seen.
        """
        most = sorted(undeclared, key=lambda value: (-undeclared[value], value))
        shown = sorted(most[:_SHOWN]) if len(most) > _SHOWN else sorted(most)
        listed = ", ".join(f"{self._text(value)} ({undeclared[value]} pixels)" for value in shown)
        if len(most) > _SHOWN:
            listed += f" and {len(most) - _SHOWN} more values"
        if self.colors:
            what, line = "colours", f"`label_colors: {{{self._pairs(undeclared, values)}}}`"
        else:
            what, line = "label values", f"`label_map: {{{self._pairs(undeclared, values)}}}`"
        hint = (
            f"say in `prepare` which class each value is, such as {line}, "
            f"with {IGNORE_INDEX} for pixels to leave out"
        )
        if not self.colors and self.classes == 2 and len(undeclared) >= _SOFT_EDGES:
            hint = (
                f"if these are the soft edges of a mask, say from which value on a pixel belongs to it: "
                f"`label_threshold: {_MIDDLE}`; if they are numbered objects, `instances: 1`"
            )
        return UndeclaredLabelError(
            f"{what} that nobody declared, in {where}: {listed}",
            hint=hint,
            counts=undeclared,
            values=values,
            where=where,
        )

    def _pairs(self, undeclared: Mapping[int, int], values: frozenset[int]) -> str:
        """Spell out the line to add: the usual 0 and 255 of a mask, else what must be filled in."""
        line: dict[int, int | str]
        if self.declared:
            line = {**self.declared, **dict.fromkeys(undeclared, "?")}
        else:
            known = {value: value for value in sorted(values) if value in self.mapping and not self.colors}
            single = set(known) <= {0} and len(undeclared) == 1 and self.classes == 2 and not self.colors
            line = (
                {0: 0, **dict.fromkeys(undeclared, 1)}
                if single
                else {**known, **dict.fromkeys(undeclared, "?")}
            )
        return ", ".join(f"{self._text(value)}: {index}" for value, index in line.items())

    def _text(self, value: int) -> str:
        return f"{value >> 16} {value >> 8 & 255} {value & 255}" if self.colors else str(value)


def classes_in(label: NDArray[Any]) -> frozenset[int]:
    """Classes that occur in a label map of class indices; the ignored value is none."""
    return frozenset(int(value) for value in np.unique(label)) - {IGNORE_INDEX}
