"""What a training starts from, and what of the network it leaves alone."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from medseg_paddle.config.base import Probability, Spec


class Initialise(Spec):
    """Start from the weights of another training, whose classes or channels may differ."""

    source: str = Field(
        description="folder of a run (its best checkpoint is taken) or of a bundle, or a .pdparams file; never fetched"
    )
    least_fitting: Probability = Field(
        0.5, description="share of the layers that must find weights in the source; with less it is refused"
    )


class Freeze(Spec):
    """Leave layers as they are, batch normalisation with its running statistics included."""

    layers: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="names of parts or layers (`encoder`, `down.0`) or patterns of parameter names (`*.bn.*`)"
    )
    until: PositiveInt | None = Field(
        None, description="iterations after which they learn as well; never where absent"
    )
