"""What the words for all networks share."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from medseg_paddle.config.base import Channels, Spec, inconsistent


class ModelSpec(Spec):
    """A network; `dimensions` are those of space that it sees: 2 of a picture, 3 of a volume."""

    dimensions: ClassVar[int] = 2

    num_classes: Annotated[int, Field(ge=2, le=256)] | None = Field(
        None, description="classes, the background included; taken from the data set where absent"
    )
    in_channels: Channels | None = Field(
        None, description="channels of the images; taken from the data set where absent"
    )


def require_levels_to_supervise(deep_supervision: int, depth: int) -> None:
    """Check that a decoder of `depth` levels has as many lower ones.

    Raises
    ------
    PydanticCustomError
        It has not.
    """
    if deep_supervision >= depth:
        raise inconsistent(
            f"deep_supervision {deep_supervision} of a decoder of {depth} level(s), one of which "
            "gives the segmentation",
            at=("deep_supervision",),
            hint=f"write at most {depth - 1}",
        )
