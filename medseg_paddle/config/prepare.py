"""The `prepare` section of a recipe: how a source folder becomes a data set."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from medseg_paddle.config.base import Channels, Spec
from medseg_paddle.config.patterns import Glob, Regex
from medseg_paddle.config.splitting import SplitOptions

IGNORE_INDEX = 255

Reader = Literal["pairs", "objects", "lists", "coco", "stacks", "nnunet", "volumes", "nifti", "dicom"]

# Per reader: the keys of a set that it needs, and those that it takes beside them.
_KEYS: dict[str, tuple[set[str], set[str]]] = {
    "pairs": ({"images", "labels"}, {"rois", "only"}),
    "objects": ({"images", "labels"}, {"only"}),
    "stacks": ({"images", "labels"}, {"only"}),
    "volumes": ({"images", "labels"}, {"only"}),
    "nifti": ({"images", "labels"}, {"only"}),
    "dicom": ({"images", "labels"}, set()),
    "lists": ({"index"}, {"separator"}),
    "coco": ({"images", "index"}, set()),
    "nnunet": ({"index"}, {"part"}),
}
ALWAYS_VOLUMES = ("volumes", "nifti", "dicom")  # the others read pictures; nnU-Net's layout holds either
_ONE_OBJECT_CLASS = ("objects",)


def _rgb(text: Any) -> str:
    """See that a colour is three numbers; the same colour is always written in the same way."""
    numbers = re.fullmatch(r"\s*(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})\s*", str(text))
    digits = re.fullmatch(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", str(text).strip())
    values = [int(one) for one in numbers.groups()] if numbers else []
    values = [int(one, 16) for one in digits.groups()] if digits else values
    if not values or max(values) > 255:
        raise PydanticCustomError(
            "color",
            "'{color}' is no colour: red, green and blue from 0 to 255, such as 255 0 0, or \"#ff0000\" in quotes",
            {"color": str(text)},
        )
    return " ".join(map(str, values))


def _one_or_several(value: Any) -> str:
    return "several" if isinstance(value, (list, tuple)) else "one"


Color = Annotated[str, BeforeValidator(_rgb)]
ClassIndex = Annotated[int, Field(ge=0, le=IGNORE_INDEX)]
Globs = Annotated[
    Annotated[Glob, Tag("one")] | Annotated[tuple[Glob, ...], Field(min_length=1), Tag("several")],
    Discriminator(_one_or_several),
]


class WindowSpec(Spec):
    """The range of intensities that becomes black to white."""

    level: float = Field(
        ge=-100_000, le=100_000, allow_inf_nan=False, description="centre of the window, HU for CT"
    )
    width: float = Field(
        gt=0, le=1_000_000, allow_inf_nan=False, description="full width of the window, HU for CT"
    )


Windows = Annotated[
    Annotated[WindowSpec, Tag("one")]
    | Annotated[tuple[WindowSpec, ...], Field(min_length=1), Tag("several")],
    Discriminator(_one_or_several),
]


class PrepareSet(Spec):
    """Files that go to one split."""

    split: Literal["train", "val", "test", "auto"] = Field(
        "auto", description="where these images go; `auto` deals patients out by the fractions"
    )
    images: Globs | None = Field(
        None,
        description="pattern of the images below the source folder; `**` descends; a list of patterns where every "
        "channel (modality, sequence) has a file of its own",
    )
    labels: Glob | None = Field(None, description="pattern of the label maps below the source folder")
    rois: Glob | None = Field(
        None, description="pattern of region-of-interest masks (reader `pairs`); scores are taken inside only"
    )
    only: Glob | None = Field(
        None,
        description="text file below the source folder; its lines begin with the images to take",
    )
    index: Glob | None = Field(
        None,
        description="file below the source folder that names images and labels: a list (reader `lists`), the JSON of "
        "`coco`, the dataset.json of `nnunet`",
    )
    separator: str | None = Field(
        None,
        min_length=1,
        description="what stands between image and label in a list; default: spaces, tab, comma or semicolon, "
        "wherever both sides are files",
    )
    part: Literal["Tr", "Ts"] = Field(
        "Tr", description="which folders of `nnunet`: imagesTr and labelsTr, or imagesTs and labelsTs"
    )

    @property
    def channels(self) -> tuple[str, ...]:
        """The pattern of each file that an image is read from."""
        return () if self.images is None else (self.images,) if isinstance(self.images, str) else self.images


class SyntheticSpec(Spec):
    """A cohort that `medseg prepare` writes for itself where no folder with images is named."""

    patients: int = Field(ge=1, description="how many patients")
    seed: int = Field(42, ge=0, le=2**32 - 1, description="the same seed gives the same patients")


class PrepareSpec(SplitOptions):
    """How `medseg prepare` reads a source folder: which files belong together, and who is held out."""

    reader: Reader = Field(
        "pairs",
        description="`pairs`: pictures with label pictures; `objects`: pictures with one mask per object; `lists`: "
        "PaddleSeg's lists; `coco`: polygons in COCO's JSON; `stacks`: TIFF files of many pages; `nnunet`: "
        "nnU-Net's dataset.json; `volumes`: NIfTI, NRRD or MHA with label volumes (`nifti` is its older name); "
        "`dicom`: series with a label PNG per slice, a label volume or a DICOM SEG",
    )
    sets: tuple[PrepareSet, ...] = Field(min_length=1, description="which files go to which split")
    key: Regex | None = Field(
        None,
        description="regular expression, searched in the path below the source folder; its groups, joined by "
        "`-`, are equal for an image and its label and name the case; default: the file name without its "
        "ending, for `dicom` with the folder above the image's",
    )
    label_map: dict[Annotated[int, Field(ge=0, le=65535)], ClassIndex] | None = Field(
        None,
        description="stored label value to class index, 255 for pixels to leave out of loss and scores; "
        "default: stored values are class indices",
    )
    label_threshold: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="for masks with soft edges: values from this one on are 1, those below 0, before `label_map`",
    )
    label_colors: dict[Color, ClassIndex] | None = Field(
        None,
        description="for label pictures in colour: red, green and blue to class index, such as "
        "`{0 0 0: 0, 255 0 0: 1}`",
    )
    instances: Annotated[int, Field(ge=1, lt=IGNORE_INDEX)] | None = Field(
        None, description="for numbered objects: the class of every object; 0 stays the background"
    )
    overlap: Literal["refuse", "later"] = Field(
        "refuse",
        description="reader `coco`, where objects of two classes overlap: an error, or the later one wins",
    )
    channels: Channels | None = Field(
        None,
        description="channels that a picture file holds: samples or pages of a TIFF, the last axis of an .npy; "
        "default: 1 or 3, as the picture says",
    )
    window: Windows | None = Field(
        None,
        description="intensities to black and white: a must for slices of volumes; of pictures for those of 16 bits; a "
        "list where every channel has its own",
    )
    bits: Literal[8, 16] | None = Field(
        None, description="depth of pictures made with a `window`; default: 8 for volumes, 16 for pictures"
    )
    volumes: Literal["slices", "whole"] = Field(
        "slices",
        description="what becomes of volumes: windowed slices, as pictures; or whole NIfTI volumes with their "
        "intensities and their place in the patient as they are",
    )
    units: Literal["HU"] | None = Field(
        None, description="what the numbers of volumes mean whose files do not say it: Hounsfield units of CT"
    )
    synthetic: SyntheticSpec | None = Field(
        None,
        description="synthetic chest-CT patients to prepare where `medseg prepare` names no folder (reader "
        "`dicom`); they are written beside the data set, to `<dataset_root>-cohort`",
    )

    @property
    def windows(self) -> tuple[WindowSpec, ...]:
        """The windows, one for all channels or one for each; none where intensities are taken as they are."""
        return (
            () if self.window is None else self.window if isinstance(self.window, tuple) else (self.window,)
        )

    @model_validator(mode="after")
    def _reader_fits(self) -> PrepareSpec:
        needed, taken = _KEYS[self.reader]
        for part in self.sets:
            fields = PrepareSet.model_fields
            given = {key for key in fields if getattr(part, key) != fields[key].default} - {"split"}
            for key in sorted(needed - given):
                raise PydanticCustomError(
                    "set_key",
                    "reader '{reader}' needs `{key}` in every set",
                    {"reader": self.reader, "key": key},
                )
            for key in sorted(given - needed - taken):
                raise PydanticCustomError(
                    "set_key", "`{key}` is not read by reader '{reader}'", {"reader": self.reader, "key": key}
                )
        if self.volumes == "whole" and self.reader not in (*ALWAYS_VOLUMES, "nnunet"):
            raise PydanticCustomError(
                "volumes",
                "reader '{reader}' reads pictures; `volumes: whole` is for volumes",
                {"reader": self.reader},
            )
        if self.volumes == "whole" and self.window is not None:
            raise PydanticCustomError(
                "window", "`volumes: whole` keeps intensities as they are; take `window` out", {}
            )
        if self.window is None and self.volumes == "slices" and self.reader in ALWAYS_VOLUMES:
            raise PydanticCustomError("window", "reader '{reader}' needs `window`", {"reader": self.reader})
        if self.bits is not None and self.window is None:
            raise PydanticCustomError(
                "bits", "`bits` says how deep a `window` is written; there is no window", {}
            )
        if self.units is not None and self.reader not in ("volumes", "nifti", "nnunet"):
            raise PydanticCustomError(
                "units", "`units` are for volumes whose files do not say them, not for reader '{reader}'",
                {"reader": self.reader},
            )  # fmt: skip
        if self.channels is not None and self.reader not in ("pairs", "objects", "lists"):
            raise PydanticCustomError(
                "channels", "`channels` counts those of a picture file, reader '{reader}' reads none with several",
                {"reader": self.reader},
            )  # fmt: skip
        if self.reader != "dicom" and self.synthetic is not None:
            raise PydanticCustomError(
                "synthetic",
                "`synthetic` patients are DICOM series, reader '{reader}' does not read them",
                {"reader": self.reader},
            )
        return self

    @model_validator(mode="after")
    def _channels_fit(self) -> PrepareSpec:
        counts = {len(part.channels) for part in self.sets if part.images is not None}
        if len(counts) > 1:
            raise PydanticCustomError(
                "channels", "every set needs as many patterns in `images` as the others", {}
            )
        files = counts.pop() if counts else None
        if self.channels is not None and files is not None and files > 1:
            raise PydanticCustomError(
                "channels", "`channels` is for one file that holds several; here every channel has a file", {}
            )
        if files is not None and len(self.windows) not in (0, 1, self.channels or files):
            raise PydanticCustomError(
                "window",
                "{windows} windows for {files} channel(s): give one for all, or one for each",
                {"windows": len(self.windows), "files": self.channels or files},
            )
        return self

    @model_validator(mode="after")
    def _labels_fit(self) -> PrepareSpec:
        said = [key for key in ("label_map", "label_colors", "instances") if getattr(self, key) is not None]
        said += ["label_threshold"] * (self.label_threshold is not None and "label_map" not in said)
        if len(said) > 1:
            raise PydanticCustomError(
                "labels", "`{one}` and `{two}` both say what a label value is: keep one",
                {"one": said[0], "two": said[1]},
            )  # fmt: skip
        beyond = [value for value in self.label_map or () if value > 1]
        if self.label_threshold is not None and beyond:
            raise PydanticCustomError(
                "labels", "after `label_threshold` the values are 0 and 1, `label_map` names {value}",
                {"value": beyond[0]},
            )  # fmt: skip
        if self.reader in _ONE_OBJECT_CLASS and (said != ["instances"]):
            raise PydanticCustomError(
                "labels", "reader '{reader}' needs `instances`, the class of every object, and no other mapping",
                {"reader": self.reader},
            )  # fmt: skip
        if self.reader == "coco" and said not in ([], ["label_map"]):
            raise PydanticCustomError(
                "labels", "COCO's categories are mapped by `label_map` (category id to class) alone", {}
            )
        return self

    @model_validator(mode="after")
    def _splits_fit(self) -> PrepareSpec:
        self.require_fitting_sets({part.split for part in self.sets})
        return self
