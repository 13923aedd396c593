"""Stub until branch aug3d is merged."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from medseg_paddle.config.base import Probability, Spec


class RandomVolumePatch(Spec):
    """Ours: cut a patch."""

    type: Literal["RandomVolumePatch"]
    size: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(description="voxels")
    foreground: Probability = Field(0.33, description="share")


class RandomVolumeIntensity(Spec):
    """Ours: change intensities."""

    type: Literal["RandomVolumeIntensity"]
