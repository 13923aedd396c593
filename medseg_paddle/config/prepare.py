"""The `prepare` section of a recipe: how a source folder becomes a data set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from medseg_paddle.config.base import Spec
from medseg_paddle.config.patterns import Glob, Regex
from medseg_paddle.config.splitting import SplitOptions

IGNORE_INDEX = 255


class WindowSpec(Spec):
    """The range of intensities that becomes 0..255."""

    level: float = Field(
        ge=-100_000, le=100_000, allow_inf_nan=False, description="centre of the window, HU for CT"
    )
    width: float = Field(
        gt=0, le=1_000_000, allow_inf_nan=False, description="full width of the window, HU for CT"
    )


class PrepareSet(Spec):
    """Files that go to one split."""

    split: Literal["train", "val", "test", "auto"] = Field(
        "auto", description="where these images go; `auto` deals patients out by the fractions"
    )
    images: Glob = Field(description="pattern of the images below the source folder; `**` descends")
    labels: Glob = Field(description="pattern of the label maps below the source folder")
    rois: Glob | None = Field(
        None, description="pattern of region-of-interest masks (reader `pairs`); scores are taken inside only"
    )
    only: Glob | None = Field(
        None,
        description="text file below the source folder; its lines begin with the images to take",
    )


class SyntheticSpec(Spec):
    """A cohort that `medseg prepare` writes for itself where no folder with images is named."""

    patients: int = Field(ge=1, description="how many patients")
    seed: int = Field(42, ge=0, le=2**32 - 1, description="the same seed gives the same patients")


class PrepareSpec(SplitOptions):
    """How `medseg prepare` reads a source folder: which files belong together, and who is held out."""

    reader: Literal["pairs", "dicom", "nifti"] = Field(
        "pairs",
        description="`pairs`: pictures with label pictures; `dicom`: series with one label PNG per slice; "
        "`nifti`: volumes with label volumes",
    )
    sets: tuple[PrepareSet, ...] = Field(min_length=1, description="which files go to which split")
    key: Regex | None = Field(
        None,
        description="regular expression, searched in the path below the source folder; its groups, joined by "
        "`-`, are equal for an image and its label and name the case; default: the file name without its "
        "ending, for `dicom` with the folder above the image's",
    )
    label_map: (
        dict[Annotated[int, Field(ge=0, le=65535)], Annotated[int, Field(ge=0, le=IGNORE_INDEX)]] | None
    ) = Field(
        None,
        description="stored label value to class index, 255 for pixels to leave out of loss and scores; "
        "default: stored values are class indices",
    )
    window: WindowSpec | None = Field(None, description="intensities to grey values, for `dicom` and `nifti`")
    synthetic: SyntheticSpec | None = Field(
        None,
        description="synthetic chest-CT patients to prepare where `medseg prepare` names no folder (reader "
        "`dicom`); they are written beside the data set, to `<dataset_root>-cohort`",
    )

    @model_validator(mode="after")
    def _reader_fits(self) -> PrepareSpec:
        if (self.window is None) != (self.reader == "pairs"):
            verb = "takes no" if self.reader == "pairs" else "needs"
            raise PydanticCustomError(
                "window", "reader '{reader}' {verb} `window`", {"reader": self.reader, "verb": verb}
            )
        if self.reader != "pairs" and any(part.rois for part in self.sets):
            raise PydanticCustomError("rois", "`rois` are read by reader 'pairs' only", {})
        if self.reader == "dicom" and any(part.only for part in self.sets):
            raise PydanticCustomError(
                "only", "`only` lists pictures or NIfTI files; series are taken whole", {}
            )
        if self.reader != "dicom" and self.synthetic is not None:
            raise PydanticCustomError(
                "synthetic",
                "`synthetic` patients are DICOM series, reader '{reader}' does not read them",
                {"reader": self.reader},
            )
        return self

    @model_validator(mode="after")
    def _splits_fit(self) -> PrepareSpec:
        self.require_fitting_sets({part.split for part in self.sets})
        return self
