"""Data sets a recipe may name: PaddleSeg's lists and named sets, and our manifest."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from medseg_paddle.config.base import Channels, Probability, Spec, inconsistent
from medseg_paddle.config.transforms import DeterministicTransform, Mixup, Transform


class _DatasetSpec(Spec):
    dataset_root: str = Field(description="folder of the data; relative to the working directory")
    mode: Literal["train", "val", "test"] = Field("train", description="which list of the data set to read")
    edge: Literal[False] = Field(False, description="PaddleSeg's key; edge labels are not supported")


class ListDataset(_DatasetSpec):
    """Images and labels named line by line in text files."""

    type: Literal["Dataset"]
    num_classes: Annotated[int, Field(ge=2, le=256)] = Field(description="classes, the background included")
    img_channels: Channels = Field(3, description="channels of the images")
    train_path: str | None = Field(None, description="list for mode train: `image label` in a line")
    val_path: str | None = Field(None, description="list for mode val")
    test_path: str | None = Field(None, description="list for mode test")
    separator: str = Field(" ", min_length=1, description="what stands between image and label")
    ignore_index: int = Field(255, description="label value that is neither learned nor scored")


class NamedDataset(_DatasetSpec):
    """PaddleSeg's two-class fundus sets: ``train_list.txt``, ``val_list.txt``, ``test_list.txt`` in the root."""

    type: Literal["DRIVE", "STARE", "CHASEDB1", "HRF", "OpticDiscSeg"]


class ManifestDataset(_DatasetSpec):
    """Ours: a data set that `medseg prepare` made; knows patients, volumes, regions of interest and classes."""

    type: Literal["Manifest"]
    img_channels: Channels = Field(3, description="channels of the images")
    ignore_index: int = Field(255, description="label value that is neither learned nor scored")
    fold: NonNegativeInt | None = Field(
        None,
        description="fold to validate on, the others are trained on; the same in both sets; 0 where absent and the "
        "data has folds",
    )


class Sampling(Spec):
    """Ours: how often each image is drawn; what the shares leave is drawn evenly from all images."""

    foreground: Probability = Field(
        0, description="share of the images drawn evenly among those with foreground"
    )
    hard: Probability = Field(
        0, description="share of the images drawn in proportion to (1 - Dice)^`power` of their whole case"
    )
    scores: str | None = Field(
        None,
        description="`summary.json` of `medseg evaluate --split train`, which says the Dice; relative to the working "
        "directory",
    )
    power: PositiveFloat = Field(1.0, description="above 1 the hardest are drawn even more often")

    @model_validator(mode="after")
    def _require_shares_that_can_be_drawn(self) -> Sampling:
        if self.foreground + self.hard > 1:
            raise inconsistent(
                f"sampling: the shares foreground {self.foreground:g} and hard {self.hard:g} are more than all images",
                at=("hard",),
                hint=f"write `hard: {1 - self.foreground:g}` or less",
            )
        if (self.hard > 0) != (self.scores is not None):
            given, needed = ("hard", "scores") if self.hard else ("scores", "hard")
            raise inconsistent(
                f"sampling has `{given}`, but no `{needed}`",
                at=(given,),
                hint="write both: `hard: 0.5` and `scores: RUN/evaluation/train/summary.json`, which "
                "`medseg evaluate RUN --split train` makes",
            )
        return self


class TrainTransforms(Spec):
    """Mixin: what a training set has beside its images."""

    transforms: tuple[Transform, ...] = Field(description="what is done to image and label, in this order")
    mixup: Mixup | None = Field(None, description="mix the images of a batch; not at all where absent")
    sampling: Sampling | None = Field(
        None, description="how often each image is drawn; once in each pass where absent"
    )
    cache_mb: NonNegativeInt = Field(
        1024,
        description="decoded images kept in a temporary file that all processes share, MiB; "
        "0 reads anew each time",
    )


class EvalTransforms(Spec):
    """Mixin: transforms of a set that is scored."""

    transforms: tuple[DeterministicTransform, ...] = Field(
        description="preprocessing; it travels in the exported bundle"
    )


class TrainList(ListDataset, TrainTransforms):
    """See :class:`ListDataset`."""


class TrainNamed(NamedDataset, TrainTransforms):
    """See :class:`NamedDataset`."""


class TrainManifest(ManifestDataset, TrainTransforms):
    """See :class:`ManifestDataset`."""


class EvalList(ListDataset, EvalTransforms):
    """See :class:`ListDataset`."""


class EvalNamed(NamedDataset, EvalTransforms):
    """See :class:`NamedDataset`."""


class EvalManifest(ManifestDataset, EvalTransforms):
    """See :class:`ManifestDataset`."""


TrainDataset = Annotated[TrainList | TrainNamed | TrainManifest, Field(discriminator="type")]
EvalDataset = Annotated[EvalList | EvalNamed | EvalManifest, Field(discriminator="type")]
DatasetSpec = TrainList | TrainNamed | TrainManifest | EvalList | EvalNamed | EvalManifest
