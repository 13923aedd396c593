"""The words for networks that see volumes; all of them ours."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from medseg_paddle.config.base import inconsistent
from medseg_paddle.config.networks_base import ModelSpec, require_levels_to_supervise

_Step = Annotated[int, Field(ge=1, le=4)]
_Side = Literal[1, 3, 5, 7]
_Stride = tuple[_Step, _Step, _Step]
_Kernel = tuple[_Side, _Side, _Side]
Triple = tuple[int, int, int]

# Of "nnU-Net Revisited" (Isensee et al. 2024), table of the ResEnc presets; deeper levels have as many as the last.
_BLOCKS = (1, 3, 4, 6)


def strides_of(given: tuple[Triple, ...] | None, depth: int) -> tuple[Triple, ...]:
    """The strides of all steps down; [2, 2, 2] where a recipe gives none."""
    return given or ((2, 2, 2),) * depth


def kernels_of(given: tuple[Triple, ...] | None, depth: int) -> tuple[Triple, ...]:
    """The kernels of all levels, the finest first; [3, 3, 3] where a recipe gives none."""
    return given or ((3, 3, 3),) * (depth + 1)


def blocks_of(given: tuple[int, ...] | None, depth: int) -> tuple[int, ...]:
    """The residual blocks of all levels, the finest first; nnU-Net's where a recipe gives none."""
    return given or (*_BLOCKS, *_BLOCKS[-1:] * depth)[: depth + 1]


class _UNet3DSpec(ModelSpec):
    dimensions: ClassVar[int] = 3

    width: PositiveInt = Field(32, description="channels of the first level; doubled at each level down")
    max_width: PositiveInt = Field(320, description="limit of the channels")
    depth: PositiveInt = Field(4, le=8, description="times that the volume is made smaller")
    norm: Literal["instance", "batch"] = Field("instance", description="normalisation layer")
    deep_supervision: NonNegativeInt = Field(
        0,
        description="lower levels of the decoder that also learn to segment, each at its own size; "
        "one more loss coefficient for each; the trained network has one output",
    )
    strides: tuple[_Stride, ...] | None = Field(
        None,
        description="how many times smaller each step down makes slices, rows and columns, `depth` triples; "
        "[2, 2, 2] each where absent, [1, 2, 2] where slices lie far apart",
    )
    kernels: tuple[_Kernel, ...] | None = Field(
        None,
        description="voxels of a convolution along slices, rows and columns, at the first level and at each below, "
        "`depth` + 1 triples; [3, 3, 3] each where absent, [1, 3, 3] where slices lie far apart",
    )

    @model_validator(mode="after")
    def _require_levels_that_agree(self) -> _UNet3DSpec:
        require_levels_to_supervise(self.deep_supervision, self.depth)
        _require_entries("strides", self.strides, self.depth, f"one for each of {self.depth} step(s) down")
        _require_entries("kernels", self.kernels, self.depth + 1, _A_LEVEL_EACH)
        kernels = kernels_of(self.kernels, self.depth)[1:]
        for number, (stride, kernel) in enumerate(
            zip(strides_of(self.strides, self.depth), kernels, strict=True)
        ):
            if stride == (1, 1, 1):
                raise inconsistent(
                    f"strides.{number} is [1, 1, 1]: its level would be as large as the one above",
                    at=("strides", number),
                    hint="write [2, 2, 2] or [1, 2, 2]; the first level, with which nnU-Net begins, has no entry",
                )
            if any(step > side for step, side in zip(stride, kernel, strict=True)):
                raise inconsistent(
                    f"a step down by {list(stride)} with a kernel of {list(kernel)} passes over voxels",
                    at=("strides", number) if self.kernels is None else ("kernels", number + 1),
                    hint="write a kernel that is as large as the stride along each axis, or a smaller stride",
                )
        return self


_A_LEVEL_EACH = "one for the first level and one for each step down"


def _require_entries(key: str, given: tuple[object, ...] | None, count: int, what: str) -> None:
    if given is not None and len(given) != count:
        raise inconsistent(
            f"{key} has {len(given)} entries; needed are {count}: {what}",
            at=(key,),
            hint=f"write {count} entries, or another `depth`",
        )


class UNet3D(_UNet3DSpec):
    """Ours: nnU-Net's U-Net for volumes, of any width and depth."""

    type: Literal["UNet3D"]


class ResUNet3D(_UNet3DSpec):
    """Ours: nnU-Net's U-Net for volumes with a residual encoder."""

    type: Literal["ResUNet3D"]
    blocks: tuple[PositiveInt, ...] | None = Field(
        None,
        description="residual blocks of the first level and of each below, `depth` + 1 numbers; "
        "1, 3, 4 and then 6 where absent",
    )

    @model_validator(mode="after")
    def _require_blocks_at_each_level(self) -> ResUNet3D:
        _require_entries("blocks", self.blocks, self.depth + 1, _A_LEVEL_EACH)
        return self


class AttentionUNet3D(_UNet3DSpec):
    """Ours: UNet3D whose skip connections are weighed by attention gates."""

    type: Literal["AttentionUNet3D"]

    @model_validator(mode="after")
    def _require_a_level_to_gate(self) -> AttentionUNet3D:
        if self.depth < 2:
            raise inconsistent(
                "AttentionUNet3D of depth 1 has no gate; the first level has none",
                at=("depth",),
                hint="write at least 2, or use UNet3D",
            )
        return self
