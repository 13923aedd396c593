"""What a recipe's parts say to each other: contradictions are refused at load, with the line to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg_paddle.config import load_recipe
from medseg_paddle.errors import RecipeError

NORMALIZE = {"type": "Normalize"}


def listed(mode: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "Dataset",
        "dataset_root": "data",
        f"{mode}_path": f"data/{mode}.txt",
        "num_classes": 2,
        "transforms": [NORMALIZE],
        "mode": mode,
        **more,
    }


def recipe(**changes: Any) -> dict[str, Any]:
    return {
        "batch_size": 2,
        "iters": 10,
        "train_dataset": listed("train"),
        "val_dataset": listed("val"),
        "optimizer": {"type": "SGD"},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
        "model": {"type": "SimpleUNet"},
        **changes,
    }


def loaded(folder: Path, data: dict[str, Any]) -> Any:
    path = folder / "mine.yml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return load_recipe(path)


def refusal(folder: Path, data: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        loaded(folder, data)
    assert ", line " in caught.value.message
    return str(caught.value)


def test_the_recipe_that_the_others_change_is_right(tmp_path: Path) -> None:
    everything = recipe(test_dataset=listed("test"), labels=["background", "vessel"])
    assert loaded(tmp_path, everything).num_classes == 2


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("train_dataset", "val"),
        ("train_dataset", "test"),
        ("val_dataset", "test"),
        ("val_dataset", "train"),
        ("val_dataset", None),
        ("test_dataset", "val"),
        ("test_dataset", "train"),
    ],
)
def test_a_data_set_reads_the_list_of_its_own_name(tmp_path: Path, name: str, mode: str | None) -> None:
    data = recipe(test_dataset=listed("test"))
    if mode is None:
        del data[name]["mode"]
    else:
        data[name]["mode"] = mode
    error = refusal(tmp_path, data)
    assert f"{name} " in error
    assert f"must be {name.removesuffix('_dataset')}" in error


def test_the_line_to_change_is_named(tmp_path: Path) -> None:
    error = refusal(tmp_path, recipe(val_dataset={**listed("val"), "mode": "test"}))
    lines = (tmp_path / "mine.yml").read_text().splitlines()
    assert f"line {lines.index('  mode: test') + 1}:" in error


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_dataset": listed("test", test_path="./data//val.txt")}, "the test set is the val set"),
        ({"val_dataset": listed("val", val_path="data/train.txt")}, "the val set is the train set"),
        ({"test_dataset": listed("test", test_path="data/train.txt")}, "the test set is the train set"),
        # The test set that is taken from the validation set's lines where none is given.
        ({"val_dataset": listed("val", test_path="data/val.txt")}, "the test set is the val set"),
        # What cannot change the images cannot hide that they are the same.
        (
            {
                "train_dataset": listed("train", cache_mb=7, val_path="data/other.txt"),
                "val_dataset": listed("val", val_path="data/train.txt", dataset_root="data/"),
            },
            "the val set is the train set",
        ),
    ],
)
def test_a_score_on_images_of_another_set_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    assert words in refusal(tmp_path, recipe(**changes))


def test_a_scored_set_has_no_cache(tmp_path: Path) -> None:
    assert loaded(tmp_path, recipe(train_dataset=listed("train", cache_mb=0))).train_dataset.cache_mb == 0
    assert "unknown key 'val_dataset.cache_mb'" in refusal(
        tmp_path, recipe(val_dataset=listed("val", cache_mb=0))
    )


def test_tiles_must_fit_the_network_as_in_the_prediction(tmp_path: Path) -> None:
    error = refusal(tmp_path, recipe(inference={"mode": "tiles", "tile": [96, 100], "divisor": 32}))
    assert "inference.tile [96, 100] is no multiple" in error
    assert "use [96, 128]" in error
    assert loaded(tmp_path, recipe(inference={"mode": "tiles", "tile": [96, 128], "divisor": 32}))
    assert loaded(tmp_path, recipe(inference={"mode": "whole", "tile": [96, 100]}))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["background", "mean"], "named 'mean'"),
        (["vessel", "vessel"], "two classes are named 'vessel'"),
        ([], "labels"),
    ],
)
def test_class_names_that_a_report_cannot_hold(tmp_path: Path, labels: list[str], words: str) -> None:
    assert words in refusal(tmp_path, recipe(labels=labels))


@pytest.mark.parametrize("key", ["mean", "std"])
@pytest.mark.parametrize(("values", "right"), [(1, True), (2, False), (3, True), (0, False)])
def test_normalize_has_one_value_or_one_per_channel(
    tmp_path: Path, key: str, values: int, right: bool
) -> None:
    transforms = [{"type": "Normalize", key: [0.5] * values}]
    data = recipe(
        train_dataset=listed("train", transforms=transforms), val_dataset=listed("val", transforms=transforms)
    )
    if right:
        assert loaded(tmp_path, data)
    else:
        assert f"{key} has {values} values for 3 channel(s)" in refusal(tmp_path, data)


def loss(**more: Any) -> dict[str, Any]:
    return {"loss": {"types": [{"type": "CrossEntropyLoss", **more}], "coef": [1]}}


def mixed(**more: Any) -> dict[str, Any]:
    parts = [{"type": "CrossEntropyLoss"}, {"type": "DiceLoss", **more}]
    return {"loss": {"types": [{"type": "MixedLoss", "losses": parts, "coef": [1, 1]}], "coef": [1]}}


@pytest.mark.parametrize("make", [loss, mixed])
def test_a_loss_knows_the_classes_and_what_is_ignored(tmp_path: Path, make: Any) -> None:
    assert "3 weight(s) for 2 classes" in refusal(tmp_path, recipe(**make(weight=[1, 1, 1])))
    assert "ignores label 0, train_dataset 255" in refusal(tmp_path, recipe(**make(ignore_index=0)))
    assert loaded(tmp_path, recipe(**make(weight=[1, 2], ignore_index=255)))
    assert "a weight of 0 for every class" in refusal(tmp_path, recipe(**make(weight=[0, 0])))
    assert "weight = 'balance' is no weights" in refusal(tmp_path, recipe(**make(weight="balance")))
    assert loaded(tmp_path, recipe(**make(weight="balanced")))


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ({"type": "LovaszHingeLoss"}, None),
        ({"type": "MultiClassFocalLoss", "num_class": 2}, None),
        ({"type": "MultiClassFocalLoss", "num_class": 3}, "MultiClassFocalLoss has 3 classes, the model 2"),
        ({"type": "LovaszSoftmaxLoss", "classes": [1, 2]}, "LovaszSoftmaxLoss names class 2"),
        ({"type": "LovaszSoftmaxLoss", "classes": "none"}, "'present' or 'all'"),
        ({"type": "DiceLoss", "weight": [1, 0], "background": False}, "a weight of 0 for every class"),
        ({"type": "ClDiceLoss", "weight": [1, 0]}, "a weight of 0 for every class"),
        ({"type": "BCELoss", "weight": "dynamic", "pos_weight": "dynamic"}, None),
        ({"type": "BCELoss", "weight": "dynamics"}, "'dynamics' is no weight"),
        ({"type": "BCELoss", "pos_weight": "balanced"}, "pos_weight"),
        ({"type": "BCELoss", "edge_label": True}, "edge_label"),
    ],
)
def test_a_loss_fits_the_classes(tmp_path: Path, of: dict[str, Any], words: str | None) -> None:
    data = recipe(loss={"types": [of], "coef": [1]})
    if words is None:
        assert loaded(tmp_path, data)
    else:
        assert words in refusal(tmp_path, data)


def test_the_lovasz_hinge_is_for_two_classes(tmp_path: Path) -> None:
    three = {"train_dataset": listed("train", num_classes=3), "val_dataset": listed("val", num_classes=3)}
    data = recipe(loss={"types": [{"type": "LovaszHingeLoss"}], "coef": [1]}, **three)
    error = refusal(tmp_path, data)
    assert "LovaszHingeLoss is for 2 classes, not 3" in error
    assert "use LovaszSoftmaxLoss" in error


def test_all_sets_ignore_the_same_label(tmp_path: Path) -> None:
    for split in ("val", "test"):
        data = recipe(test_dataset=listed("test"))
        data[f"{split}_dataset"]["ignore_index"] = 254
        assert f"{split}_dataset ignores label 254, train_dataset 255" in refusal(tmp_path, data)


@pytest.mark.parametrize(
    ("ignored", "classes", "words"),
    [
        (1, 2, "label 1 is ignored, but is one of 2 classes"),
        (4, 5, "label 4 is ignored, but is one of 5 classes"),
        (255, 256, "label 255 is ignored, but is one of 256 classes"),
        (5, 5, None),
        (0, 2, None),  # the background may be
        (-1, 256, None),
        (255, 255, None),
    ],
)
def test_no_class_but_the_background_is_ignored(
    tmp_path: Path, ignored: int, classes: int, words: str | None
) -> None:
    sets = {f"{s}_dataset": listed(s, ignore_index=ignored, num_classes=classes) for s in ("train", "val")}
    if words is None:
        assert loaded(tmp_path, recipe(**sets)).ignore_index == ignored
    else:
        assert words in (told := refusal(tmp_path, recipe(**sets)))
        assert f"`ignore_index: {-1 if classes == 256 else 255}`" in told


CROP = {"type": "RandomPaddingCrop", "crop_size": [64, 64]}
PATCH = {"type": "RandomAffinePatch", "size": [64, 64]}
CUTOUT = {"type": "RandomCutout"}


@pytest.mark.parametrize(
    ("transform", "ignored", "words"),
    [
        (CROP, 254, "pads labels with 255, but label 254"),
        ({**CROP, "label_padding_value": 0}, 255, "pads labels with 0, but label 255"),
        ({**CROP, "label_padding_value": 254}, 254, None),
        ({**PATCH, "border": "ignore"}, 254, "marks the border with 255, but label 254"),
        ({**PATCH, "border": "ignore"}, 255, None),
        ({**PATCH, "border": "reflect"}, 254, None),
        ({**CUTOUT, "label": "ignore"}, 254, "marks what it cuts out with 255, but label 254"),
        ({**CUTOUT, "label": "ignore"}, 255, None),
        (CUTOUT, 254, None),
    ],
)
def test_padded_pixels_are_the_ignored_ones(
    tmp_path: Path, transform: dict[str, Any], ignored: int, words: str | None
) -> None:
    data = recipe(
        train_dataset=listed("train", transforms=[transform, NORMALIZE], ignore_index=ignored),
        val_dataset=listed("val", ignore_index=ignored),
    )
    if words is None:
        assert loaded(tmp_path, data).ignore_index == ignored
    else:
        assert words in refusal(tmp_path, data)


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        ({"name": "ClipGradByGlobalNorm"}, "needs `clip_norm`"),
        ({"name": "ClipGradByNorm", "max": 1.0}, "needs `clip_norm`"),
        ({"name": "ClipGradByValue"}, "needs `max`"),
        ({"name": "ClipGradByValue", "max": 1.0, "clip_norm": 1.0}, "takes no `clip_norm`"),
        ({"name": "ClipGradByNorm", "max": 1.0, "clip_norm": 1.0}, "takes no `max`"),
        ({"name": "ClipGradByNorm", "clip_norm": 1.0}, None),
        ({"name": "ClipGradByValue", "max": 1.0, "min": -2.0}, None),
    ],
)
def test_a_gradient_limit_says_how_much(tmp_path: Path, clip: dict[str, Any], words: str | None) -> None:
    data = recipe(optimizer={"type": "SGD", "grad_clip_cfg": clip})
    if words is None:
        assert loaded(tmp_path, data)
    else:
        assert words in refusal(tmp_path, data)


def test_a_patch_is_scaled_from_least_to_greatest(tmp_path: Path) -> None:
    patch = {**PATCH, "scale": [1.2, 0.8]}
    error = refusal(tmp_path, recipe(train_dataset=listed("train", transforms=[patch, NORMALIZE])))
    assert "1.2 is above the greatest 0.8" in error
    assert "write scale: [0.8, 1.2]" in error


@pytest.mark.parametrize("change", [{"keep_ratio": True}, {"size_divisor": 32}])
def test_what_resize_does_not_do_is_refused_with_a_way_out(tmp_path: Path, change: dict[str, Any]) -> None:
    data = recipe(
        train_dataset=listed("train", transforms=[{"type": "Resize", **change}, NORMALIZE]),
        val_dataset=listed("val", transforms=[{"type": "Resize", **change}, NORMALIZE]),
    )
    error = refusal(tmp_path, data)
    assert f"Resize: `{next(iter(change))}` is not supported" in error
    assert "ResizeByLong" in error


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    assert "finite number" in refusal(
        tmp_path,
        recipe(train_dataset=listed("train", transforms=[{"type": "Normalize", "mean": [float("nan")]}])),
    )


def after_normalize(transform: dict[str, Any], **normalize: Any) -> dict[str, Any]:
    first = {**NORMALIZE, **normalize}
    return recipe(
        train_dataset=listed("train", transforms=[first, transform]),
        val_dataset=listed("val", transforms=[first]),
    )


@pytest.mark.parametrize(
    "kind",
    [
        "RandomIntensity",
        "RandomGaussianBlur",
        "RandomLowResolution",
        "RandomChannelDrop",
        "RandomCutout",
        "RandomNoise",
        "RandomBlur",
        "RandomDistort",
        "Normalize",
    ],
)
def test_what_takes_intensities_of_0_to_255_stands_before_normalize(tmp_path: Path, kind: str) -> None:
    data = after_normalize({"type": kind})
    error = refusal(tmp_path, data)
    assert f"{kind} stands after Normalize" in error
    lines = (tmp_path / "mine.yml").read_text().splitlines()
    named = [number for number, line in enumerate(lines, start=1) if line.endswith(f"type: {kind}")]
    assert f"line {named[1 if kind == 'Normalize' else 0]}:" in error
    if kind != "Normalize":
        data["train_dataset"]["transforms"].reverse()
        assert loaded(tmp_path, data)


@pytest.mark.parametrize(
    ("transform", "right"),
    [
        ({"type": "Padding", "target_size": [64, 64]}, False),
        ({"type": "Padding", "target_size": [64, 64], "im_padding_value": 0}, True),
        ({"type": "Padding", "target_size": [64, 64], "im_padding_value": [0, -1, 1]}, True),
        ({"type": "Padding", "target_size": [64, 64], "im_padding_value": [0, 0, 124]}, False),
        ({"type": "RandomPaddingCrop", "crop_size": [64, 64]}, False),
        ({"type": "PaddingByAspectRatio"}, False),
        ({"type": "ScalePadding"}, False),
        ({"type": "RandomRotation"}, False),
        ({"type": "RandomAffine"}, False),
        ({"type": "RandomAffine", "im_padding_value": -1}, True),
        ({"type": "RandomHorizontalFlip"}, True),
        ({"type": "RandomVerticalFlip"}, True),
        ({"type": "Resize", "target_size": [64, 64]}, True),
        ({"type": "ElasticDeformation", "alpha": 4, "sigma": 10}, True),
        ({"type": "RandomAffinePatch", "size": [64, 64]}, True),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_after_normalize_padding_is_on_its_scale(
    tmp_path: Path, transform: dict[str, Any], right: bool
) -> None:
    data = after_normalize(transform)
    if right:
        assert loaded(tmp_path, data)
    else:
        error = refusal(tmp_path, data)
        assert "intensities are -1 to 1 there" in error
        assert "im_padding_value: 0" in error
        data["train_dataset"]["transforms"].reverse()
        assert loaded(tmp_path, data)


def test_the_scale_after_normalize_is_that_of_its_mean_and_deviation(tmp_path: Path) -> None:
    pad = {"type": "RandomAffine", "im_padding_value": -2}
    assert loaded(tmp_path, after_normalize(pad, mean=[0.5], std=[0.25]))
    assert "pads with -2" in refusal(tmp_path, after_normalize(pad, mean=[0.4], std=[0.25]))


def test_the_order_of_a_scored_set_s_transforms_is_looked_at_too(tmp_path: Path) -> None:
    late = [NORMALIZE, {"type": "Padding", "target_size": [64, 64]}]
    assert "Padding stands after Normalize" in refusal(
        tmp_path, recipe(val_dataset=listed("val", transforms=late))
    )
    assert loaded(tmp_path, recipe(val_dataset=listed("val", transforms=late[::-1])))


def test_a_static_graph_cannot_be_trained_on_onednn(tmp_path: Path) -> None:
    error = refusal(tmp_path, recipe(to_static_training=True, cpu_kernels="onednn"))
    assert "Paddle's own kernels" in error
    assert loaded(tmp_path, recipe(to_static_training=True)).cpu_kernels == "auto"


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        ({"type": "RandomGaussianBlur", "sigma": [2, 1]}, "write [1, 2]"),
        ({"type": "RandomLowResolution", "zoom": [1, 0.5]}, "write [0.5, 1]"),
        ({"type": "RandomCutout", "holes": [3, 2]}, "write [2, 3]"),
        ({"type": "RandomCutout", "size": [0.3, 0.2]}, "write [0.2, 0.3]"),
        (
            {"type": "RandomPaddingCrop", "category_max_ratio": 0.75},
            "returns the label in place of the image",
        ),
        ({"type": "RandomChannelDrop", "channels": 3}, "write `channels: 2`"),
    ],
)
def test_a_transform_that_cannot_do_what_it_says_is_refused(
    tmp_path: Path, transform: dict[str, Any], words: str
) -> None:
    data = recipe(train_dataset=listed("train", transforms=[transform, NORMALIZE]))
    assert words in refusal(tmp_path, data)


def test_the_only_channel_is_not_dropped(tmp_path: Path) -> None:
    drop = {"type": "RandomChannelDrop"}
    data = recipe(
        train_dataset=listed("train", transforms=[drop, NORMALIZE], img_channels=1),
        val_dataset=listed("val", img_channels=1),
    )
    assert "blanks up to 1 of 1 channel(s)" in refusal(tmp_path, data)


def test_mixup_needs_two_images(tmp_path: Path) -> None:
    mixing = listed("train", mixup={"alpha": 0.4})
    assert loaded(tmp_path, recipe(train_dataset=mixing)).train_dataset.mixup.alpha == 0.4
    assert "batch_size is 1" in refusal(tmp_path, recipe(train_dataset=mixing, batch_size=1))


def test_each_level_of_deep_supervision_has_a_loss_coefficient(tmp_path: Path) -> None:
    deep = {"type": "ScalableUNet", "depth": 3, "deep_supervision": 2}
    assert "3 output(s), but loss.coef has 1" in refusal(tmp_path, recipe(model=deep))
    loss = {"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 0.5, 0.25]}
    assert loaded(tmp_path, recipe(model=deep, loss=loss)).model.deep_supervision == 2
    deep["deep_supervision"] = 3
    assert "write at most 2" in refusal(tmp_path, recipe(model=deep, loss=loss))


def test_a_training_starts_from_one_source(tmp_path: Path) -> None:
    start = {"source": "outputs/other"}
    assert loaded(tmp_path, recipe(initialise=start)).initialise.least_fitting == 0.5
    model: dict[str, Any] = {"type": "UNet", "pretrained": "unet.pdparams"}
    assert "model.pretrained and initialise" in refusal(tmp_path, recipe(model=model, initialise=start))
    model = {"type": "EncoderUNet", "backbone": {"type": "STDC1", "pretrained": "stdc.pdparams"}}
    assert "model.backbone.pretrained and" in refusal(tmp_path, recipe(model=model, initialise=start))
    model = {"type": "EncoderUNet", "backbone": {"type": "STDC1"}}
    assert loaded(tmp_path, recipe(model=model, initialise=start)).model.backbone.type == "STDC1"


def test_what_is_frozen_is_thawed_within_the_training(tmp_path: Path) -> None:
    assert loaded(tmp_path, recipe(freeze={"layers": ["encoder"], "until": 9})).freeze.until == 9
    assert "until iteration 10" in refusal(tmp_path, recipe(freeze={"layers": ["encoder"], "until": 10}))
    frozen = {"freeze": {"layers": ["encoder"]}, "to_static_training": True}
    assert "to_static_training" in refusal(tmp_path, recipe(**frozen))
    half = {"precision": "fp16", "amp_level": "O2", "device": "gpu"}
    assert "amp_level: O1" in refusal(tmp_path, recipe(freeze={"layers": ["encoder"], "until": 5}, **half))
    assert loaded(tmp_path, recipe(freeze={"layers": ["encoder"]}, **half)).freeze.until is None
