"""The classes of a segmentation: names, indices, colours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from medseg_paddle.core.concepts import Concept, concept_of
from medseg_paddle.errors import RecipeError

Color = tuple[int, int, int]

# First Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), told apart by colour-blind readers too. Each of the
# others is the one farthest from all before it, in CIELAB, half as far for those who lack red or green cones.
_PALETTE = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
    (0, 0, 255), (85, 85, 221), (0, 255, 153), (153, 0, 51), (0, 255, 255), (153, 153, 85), (153, 0, 119),
    (119, 51, 0), (153, 221, 85), (153, 221, 187), (119, 51, 85), (119, 153, 255), (221, 0, 187), (221, 51, 51),
    (255, 51, 119), (255, 153, 153), (0, 51, 221),
)  # fmt: skip


@dataclass(frozen=True)
class Label:
    """One class.

    Attributes
    ----------
    index : int
        Value in a label map; 0 is the background.
    name : str
        What a person calls it.
    color : tuple of int
        Red, green, blue, 0..255.
    concept : Concept or None
        What somebody said that it means; None where nobody did.
    """

    index: int
    name: str
    color: Color
    concept: Concept | None = None

    @property
    def meaning(self) -> Concept:
        """What it means as codes: what somebody said, else what its name says."""
        return self.concept or concept_of(self.name)

    def to_json(self) -> dict[str, Any]:
        """As a manifest and a bundle have it; `concept` is left out where nobody said it."""
        content = asdict(self)
        return content if self.concept else {key: content[key] for key in ("index", "name", "color")}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Label:
        """What :meth:`to_json` gave.

        Raises
        ------
        KeyError, TypeError, AttributeError, RecipeError
            It is something else.
        """
        concept = content.get("concept")
        said = None if concept is None else Concept.from_json(concept)
        return cls(content["index"], content["name"], tuple(content["color"]), said)


@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set or a model, background first, indices without a gap.

    Raises
    ------
    RecipeError
        Indices are not 0, 1, 2, ... or a name occurs twice.
    """

    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        if [label.index for label in self.labels] != list(range(len(self.labels))) or len(self.labels) < 2:
            raise RecipeError(
                f"labels must be numbered 0, 1, 2, ... without a gap, got {[la.index for la in self.labels]}",
                hint="give the background index 0 and the classes 1, 2, ... in order",
            )
        if len({label.name for label in self.labels}) != len(self.labels):
            raise RecipeError("two labels have the same name", hint="give every label a name of its own")

    @classmethod
    def from_names(cls, names: tuple[str, ...] | list[str]) -> LabelSet:
        """Label set with the default colours, 24 that repeat; ``names[0]`` is the background."""
        return cls(
            tuple(
                Label(i, name, (0, 0, 0) if i == 0 else _PALETTE[(i - 1) % len(_PALETTE)])
                for i, name in enumerate(names)
            )
        )

    @classmethod
    def generic(cls, num_classes: int) -> LabelSet:
        """``background``, ``class 1``, ``class 2``, ... for data that names nothing."""
        return cls.from_names(["background", *(f"class {i}" for i in range(1, num_classes))])

    def described(self, concepts: Mapping[str, Concept], colors: Mapping[str, Color]) -> LabelSet:
        """The same classes, with what somebody says about those that are named."""
        return LabelSet(
            tuple(
                replace(
                    label,
                    concept=concepts.get(label.name, label.concept),
                    color=colors.get(label.name, label.color),
                )
                for label in self.labels
            )
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names in index order."""
        return tuple(label.name for label in self.labels)

    @property
    def foreground(self) -> tuple[Label, ...]:
        """All labels but the background."""
        return self.labels[1:]

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)
