"""The recipe: everything a run depends on, as one frozen value."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from medseg_paddle.config.agreement import require_agreement
from medseg_paddle.config.alignment import Alignment
from medseg_paddle.config.base import Spec, inconsistent
from medseg_paddle.config.codes import LabelCodes, RgbColor
from medseg_paddle.config.datasets import DatasetSpec, EvalDataset, NamedDataset, TrainDataset
from medseg_paddle.config.inference import InferenceSpec, with_tile_of_the_patch
from medseg_paddle.config.initialise import Freeze, Initialise
from medseg_paddle.config.losses import Loss
from medseg_paddle.config.neighbours import slices_seen
from medseg_paddle.config.networks import Model
from medseg_paddle.config.optimisation import Optimizer, Schedule
from medseg_paddle.config.postprocessing import PostprocessingRule, require_rules_that_fit
from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.config.search import SearchSpec, value_at
from medseg_paddle.config.selection import EarlyStopping, Selection
from medseg_paddle.config.transforms import DeterministicTransform, Normalize, StandardizeImage
from medseg_paddle.config.volume_preprocessing import VolumePreprocessing
from medseg_paddle.core import LabelSet, Split

CpuKernels = Literal["auto", "onednn", "paddle"]


class ValidationOptions(Spec):
    """PaddleSeg's `test_config`: what the evaluations during training do."""

    auc_roc: bool = Field(False, description="also measure the area under the ROC curve (slower)")


class ExportSpec(Spec):
    """What an exported model must fulfil."""

    tolerance: PositiveFloat = Field(
        1e-4, description="greatest difference of a probability between the exported and the trained model"
    )
    samples: PositiveInt = Field(3, description="validation images the two are compared on")


class Recipe(Spec):
    """Everything a run depends on. PaddleSeg's words for its concepts, ours beside them.

    Raises
    ------
    pydantic.ValidationError
        A value is wrong; :func:`medseg_paddle.config.load_recipe` turns it into a RecipeError with file and line.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(
        "run", description="name of the run's folder; the file's name where absent"
    )
    description: str = Field("", description="what the recipe is for, in a sentence")
    labels: Annotated[tuple[str, ...], Field(min_length=2)] | None = Field(
        None, description="names of the classes, background first; a manifest knows its own"
    )
    codes: dict[str, LabelCodes] = Field(
        {},
        description="ours: what classes mean in SNOMED CT, by name, for DICOM that is written; what an English name "
        "says where absent",
    )
    colors: dict[str, RgbColor] = Field(
        {},
        description="ours: red, green and blue of classes, by name; colours that are told apart where absent",
    )
    prepare: PrepareSpec | None = Field(None, description="how `medseg prepare` reads the source folder")

    batch_size: PositiveInt = Field(description="images per iteration and device")
    iters: PositiveInt = Field(description="iterations of the training")
    train_dataset: TrainDataset = Field(description="images to learn from")
    val_dataset: EvalDataset | None = Field(None, description="images that choose the best checkpoint")
    test_dataset: EvalDataset | None = Field(
        None,
        description="held-out images for `medseg evaluate`; the validation set's folder, mode test, where absent",
    )
    test_config: ValidationOptions = Field(ValidationOptions(), description="evaluations during training")
    selection: Selection = Field(Selection(), description="ours: the score that chooses the best checkpoint")
    early_stopping: EarlyStopping | None = Field(
        None, description="ours: end a training that no longer gets better"
    )
    surface_tolerance: PositiveFloat = Field(
        2.0,
        description="ours: surfaces that are no farther apart agree, for `nsd`; mm, or pixels where spacing is unknown",
    )
    neighbours: Annotated[int, Field(ge=0, le=32)] = Field(
        0,
        description="ours: slices of the same volume that a network for pictures sees on each side of its own, as "
        "further channels (2.5-D): (2 neighbours + 1) times `img_channels`",
    )
    model: Model = Field(description="the network")
    initialise: Initialise | None = Field(None, description="weights to start from; fresh ones where absent")
    freeze: Freeze | None = Field(None, description="layers that do not learn")
    alignment: Alignment | None = Field(
        None, description="ours: features of another hospital's pictures like those of the training images"
    )
    loss: Loss = Field(description="what is minimised")
    optimizer: Optimizer = Field(description="how")
    lr_scheduler: Schedule = Field(description="learning rate over the iterations")
    to_static_training: bool = Field(False, description="train the static graph")

    seed: NonNegativeInt = Field(42, description="seed of weights, order and augmentation")
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="where to compute; auto takes a GPU if there is one"
    )
    precision: Literal["fp32", "fp16", "bf16"] = Field(
        "fp32",
        description="fp16 and bf16 train with mixed precision on a GPU; bf16 scales no loss, and works on a CPU that "
        "multiplies matrices in it (AMX)",
    )
    amp_level: Literal["O1", "O2"] = Field(
        "O1", description="mixed precision: some operators (O1) or all (O2)"
    )
    cpu_kernels: CpuKernels = Field(
        "auto",
        description="what computes convolutions and norms on a CPU: oneDNN, several times faster, or Paddle's own "
        "kernels; auto takes oneDNN where it can be used",
    )
    deterministic: bool = Field(
        False,
        description="on a GPU, let cuDNN take only algorithms that give the same bits each time, interpolate in one "
        "order of additions, and take no TF32; slower. On a CPU nothing changes: the same threads give the same bits "
        "anyway",
    )
    use_ema: bool = Field(False, description="also keep a moving average of the weights and evaluate it")
    ema_decay: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.999, description="share of the average that each iteration keeps (less in the first ones)"
    )
    gradient_accumulation: PositiveInt = Field(
        1, description="parts that a batch is computed in, one after the other, to save memory"
    )
    gradient_checkpointing: bool = Field(
        False, description="compute the network's blocks again for the gradients, to save memory"
    )
    num_workers: NonNegativeInt = Field(0, description="processes that load images beside the training")
    save_interval: PositiveInt = Field(
        500, description="iterations between evaluations, each with a checkpoint"
    )
    log_iters: PositiveInt = Field(10, description="iterations between log lines and points of the curves")
    keep_checkpoint_max: PositiveInt = Field(2, description="latest checkpoints kept, besides the best one")
    model_graph: bool = Field(
        True, description="draw the network's graph on the dashboard (a few seconds at the start)"
    )
    overlays: NonNegativeInt = Field(
        4, description="validation images drawn on the dashboard at each evaluation"
    )

    inference: InferenceSpec = Field(InferenceSpec(), description="how whole images are predicted")
    postprocessing: tuple[PostprocessingRule, ...] = Field(
        (), description="ours: what is done to the answer, in this order, before it is scored or given out"
    )
    export: ExportSpec = Field(ExportSpec(), description="what an exported model must fulfil")
    search: SearchSpec | None = Field(None, description="which values `medseg search` tries")

    @property
    def dimensions(self) -> int:
        """Of space, that the network sees: 2 of a picture, 3 of a volume."""
        return self.model.dimensions

    @property
    def num_classes(self) -> int:
        """Classes, the background included."""
        assert self.model.num_classes is not None  # noqa: S101  (filled in by _agree)
        return self.model.num_classes

    @property
    def in_channels(self) -> int:
        """Channels of the images the model takes."""
        assert self.model.in_channels is not None  # noqa: S101  (filled in by _agree)
        return self.model.in_channels

    @property
    def image_channels(self) -> int:
        """Channels of one image, without those of its `neighbours`."""
        return self.in_channels // (2 * self.neighbours + 1)

    @property
    def label_set(self) -> LabelSet:
        """The classes by name, with their codes and colours; generic names where the recipe gives none."""
        if not self.labels:
            return LabelSet.generic(self.num_classes)
        concepts = {name: said.concept for name, said in self.codes.items()}
        return LabelSet.from_names(self.labels).described(concepts, self.colors)

    @property
    def ignore_index(self) -> int:
        """Label value that is neither learned nor scored."""
        return getattr(self.train_dataset, "ignore_index", 255)

    @property
    def preprocessing(self) -> tuple[DeterministicTransform, ...]:
        """What is done to an image before the model sees it, in evaluation and prediction."""
        scored = self.val_dataset or self.test_dataset
        if scored is not None:
            return scored.transforms
        kinds = (Normalize, StandardizeImage, VolumePreprocessing)
        return tuple(t for t in self.train_dataset.transforms if isinstance(t, kinds))

    @property
    def preprocessing_specs(self) -> list[dict[str, Any]]:
        """The same as plain mappings, without PaddleSeg's keys that have one allowed value or concern labels."""
        fixed = {"keep_ratio", "size_divisor", "label_padding_value"}
        return [t.model_dump(exclude=fixed) for t in self.preprocessing]

    @property
    def postprocessing_specs(self) -> list[dict[str, Any]]:
        """The rules for the answer as plain mappings."""
        return [rule.model_dump(mode="json") for rule in self.postprocessing]

    @property
    def learning_rate_key(self) -> str:
        """Key of the greatest learning rate."""
        return f"lr_scheduler.{self.lr_scheduler.greatest_key}"

    @property
    def searched(self) -> dict[str, Any]:
        """The recipe's values of the keys that a search tries."""
        if self.search is None:
            return {}
        written = self.model_dump(mode="json")
        return {key: value_at(written, key) for key in self.search.parameters}

    def dataset(self, split: Split) -> DatasetSpec | None:
        """Where the images of a split are named; None where the recipe has no such split."""
        if split == "train":
            return self.train_dataset
        if split == "val":
            return self.val_dataset
        if self.test_dataset is not None or self.val_dataset is None:
            return self.test_dataset
        if (
            getattr(self.val_dataset, "type", None) == "Dataset"
            and getattr(self.val_dataset, "test_path", None) is None
        ):
            return None
        return self.val_dataset.model_copy(update={"mode": "test"})

    @model_validator(mode="before")
    @classmethod
    def _predict_in_tiles_of_the_patch(cls, data: Any) -> Any:
        return with_tile_of_the_patch(data)

    @model_validator(mode="before")
    @classmethod
    def _agree_on_classes_and_channels(cls, data: Any) -> Any:
        """Give the model the data set's class and channel count where it names none, as PaddleSeg does."""
        if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
            return data
        model = dict(data["model"])
        names = ("train_dataset", "val_dataset", "test_dataset")
        sets = {name: data[name] for name in names if isinstance(data.get(name), dict)}
        named = NamedDataset.model_fields["type"].annotation.__args__  # type: ignore[union-attr]
        slices = slices_seen(data)
        for key, source in (("num_classes", "num_classes"), ("in_channels", "img_channels")):
            default = 2 if key == "num_classes" else 3
            said: dict[str, Any] = {"model": model[key]} if model.get(key) is not None else {}
            for name, dataset in sets.items():
                value = dataset.get(
                    source, default if dataset.get("type") in named or source == "img_channels" else None
                )
                if value is not None:
                    seen = slices if key == "in_channels" and isinstance(value, int) else 1
                    said[name] = value * seen
            labels = data.get("labels")
            if key == "num_classes" and labels is not None:
                if not isinstance(labels, (list, tuple)):
                    return data  # the check of `labels` itself says what is wrong
                said["labels"] = len(labels)
            if len(set(map(str, said.values()))) > 1:
                who = ", ".join(f"{where} says {value}" for where, value in said.items())
                beside = key == "in_channels" and slices > 1
                raise inconsistent(
                    f"{key} disagree: {who}"
                    + (f" ({slices} slices of its `img_channels`)" if beside else ""),
                    hint=f"leave `in_channels` out of `model`: with `neighbours` it is {slices} times `img_channels`"
                    if beside
                    else "make the lines agree",
                )
            if not said:
                raise inconsistent(f"nobody says how many {key}", hint=f"add `{key}:` to `model`")
            model[key] = next(iter(said.values()))
        return {**data, "model": model}

    @model_validator(mode="after")
    def _require_parts_that_agree(self) -> Recipe:
        require_agreement(self)
        self.inference.require_dimensions(self.dimensions)
        require_rules_that_fit(self.postprocessing, self.labels, self.dimensions)
        return self
