"""What is done to a segmentation after the network: thresholds, parts that are kept or removed, holes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from medseg_paddle.config.base import Spec, did_you_mean, inconsistent

Connectivity = Literal["faces", "corners"]
_Classes = Annotated[tuple[str, ...], Field(min_length=1)]
_ALL = Field(None, description="names of the classes, each by itself; all but the background where absent")
_CONNECTED = (
    "neighbours that hang together: those across a face (in a picture, an edge), or across a corner too"
)


class Threshold(Spec):
    """A class is there where its probability reaches a threshold, whatever is more probable.

    Where several such classes reach theirs, the most probable of them; elsewhere the most probable of the classes
    without a threshold.
    """

    type: Literal["Threshold"]
    classes: _Classes = Field(description="names of the classes")
    at_least: Annotated[float, Field(gt=0, lt=1)] = Field(description="probability that is enough")


class KeepLargest(Spec):
    """All parts of a class but the largest become background."""

    type: Literal["KeepLargest"]
    classes: _Classes | None = _ALL
    parts: PositiveInt = Field(1, description="how many are kept")
    together: bool = Field(
        False, description="the classes as one: a tumour at the edge of the liver is a part of the liver"
    )
    connectivity: Connectivity = Field("corners", description=_CONNECTED)


class RemoveSmall(Spec):
    """Parts of a class that are smaller than a size become background."""

    type: Literal["RemoveSmall"]
    classes: _Classes | None = _ALL
    ml: PositiveFloat | None = Field(None, description="least size in a volume")
    pixels: PositiveInt | None = Field(
        None, description="least size in a picture that is no slice of a volume"
    )
    connectivity: Connectivity = Field("corners", description=_CONNECTED)

    @model_validator(mode="after")
    def _require_one_size(self) -> RemoveSmall:
        if (self.ml is None) == (self.pixels is None):
            raise inconsistent(
                "RemoveSmall needs one size",
                hint="write `ml: 0.1` for volumes, `pixels: 50` for pictures",
            )
        return self


class FillHoles(Spec):
    """Background that a class encloses becomes this class. In a volume a hole is closed on all sides."""

    type: Literal["FillHoles"]
    classes: _Classes | None = _ALL


PostprocessingRule = Annotated[Threshold | KeepLargest | RemoveSmall | FillHoles, Field(discriminator="type")]


def require_rules_that_fit(
    rules: Sequence[PostprocessingRule], labels: Sequence[str] | None, dimensions: int
) -> None:
    """Check a recipe's rules against its classes (where it names them) and the dimensions of its network.

    Raises
    ------
    PydanticCustomError
        A class is not known, a threshold stands after other rules, or a volume's parts are measured in pixels.
    """
    for i, rule in enumerate(rules):
        unknown = [name for name in rule.classes or () if labels is not None and name not in labels[1:]]
        if unknown:
            raise inconsistent(
                f"postprocessing.{i}: '{unknown[0]}' is no class that is segmented",
                at=("postprocessing", i, "classes"),
                hint=did_you_mean(unknown[0], list(labels or ())[1:]),
            )
        if isinstance(rule, Threshold) and any(not isinstance(one, Threshold) for one in rules[:i]):
            raise inconsistent(
                f"postprocessing.{i}: Threshold goes by probabilities, and stands after a rule that changed labels",
                at=("postprocessing", i),
                hint="write all Threshold rules first",
            )
        if isinstance(rule, RemoveSmall) and rule.pixels is not None and dimensions == 3:
            raise inconsistent(
                f"postprocessing.{i}: the size of a volume's parts is measured in ml",
                at=("postprocessing", i, "pixels"),
                hint="write `ml: ...` in place of `pixels`",
            )
    thresholds = [name for rule in rules if isinstance(rule, Threshold) for name in rule.classes]
    twice = next((name for name in thresholds if thresholds.count(name) > 1), None)
    if twice is not None:
        raise inconsistent(
            f"postprocessing: '{twice}' has two thresholds",
            at=("postprocessing",),
            hint="name each class once",
        )
