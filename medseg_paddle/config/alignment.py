"""What of a recipe says that features of two sources are to be aligned."""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from medseg_paddle.config.base import Spec


class Alignment(Spec):
    """Train the encoder so that a classifier cannot tell the training images from those of another hospital."""

    target: str = Field(
        description="folder of the other hospital's pictures, without labels: of a prepared data set its training "
        "images, else every picture directly in it; relative to the working directory"
    )
    weight: PositiveFloat = Field(
        1.0,
        description="share of the classifier's gradient, reversed, at the end of the training; 0 at its beginning",
    )
