"""What goes with neighbouring slices as channels, and what does not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from medseg_paddle.config import Recipe


def recipe(
    *, steps: tuple[dict[str, Any], ...] = (), dataset: dict[str, Any] | None = None, **changes: Any
) -> Recipe:
    sliced = {"type": "Manifest", "dataset_root": "data", "img_channels": 1, **(dataset or {})}
    normalize = {"type": "Normalize"}
    return Recipe.model_validate(
        {
            "labels": ["background", "nodule"],
            "neighbours": 1,
            "batch_size": 2,
            "iters": 10,
            "train_dataset": {**sliced, "mode": "train", "transforms": [*steps, normalize]},
            "val_dataset": {**sliced, "mode": "val", "transforms": [normalize]},
            "optimizer": {"type": "SGD"},
            "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01},
            "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
            "model": {"type": "SimpleUNet"},
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("neighbours", "channels", "seen"), [(0, 1, 1), (1, 1, 3), (2, 1, 5), (1, 2, 6), (3, 4, 28)]
)
def test_the_network_has_the_channels_of_all_slices(neighbours: int, channels: int, seen: int) -> None:
    found = recipe(neighbours=neighbours, dataset={"img_channels": channels})
    assert (found.in_channels, found.image_channels) == (seen, channels)
    assert (
        Recipe.model_validate(found.model_dump(mode="json")) == found
    )  # as a run's recipe.yml is read again


def test_a_network_of_one_slice_is_what_it_was() -> None:
    plain = recipe(neighbours=0)
    without = Recipe.model_validate({k: v for k, v in plain.model_dump().items() if k != "neighbours"})
    assert without == plain


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"type": "SimpleUNet", "in_channels": 1}}, r"model says 1, train_dataset says 3.*\(3 slices"),
        ({"neighbours": -1}, "greater than or equal to 0"),
        ({"neighbours": 33}, "less than or equal to 32"),
        ({"neighbours": "all"}, "valid integer"),
        ({"model": {"type": "UNet3D"}}, "UNet3D sees whole volumes"),
        ({"dataset": {"type": "Dataset", "num_classes": 2, "train_path": "a.txt", "val_path": "b.txt"}},
         "train_dataset is a Dataset, which does not know any"),
        ({"alignment": {"target": "elsewhere"}}, "pictures of another hospital have none"),
        ({"prepare": {"reader": "volumes", "volumes": "whole", "val_fraction": 0.5,
                      "sets": [{"images": "*.nii", "labels": "*.nii"}]}},
         "neighbours are slices, and `prepare` leaves volumes whole"),
        ({"steps": ({"type": "RandomDistort"},)}, "RandomDistort takes channels for what they are not"),
        ({"steps": ({"type": "RandomChannelDrop"},)}, "RandomChannelDrop takes channels"),
        ({"steps": ({"type": "RandomHistogramMatch", "styles": "x"},)}, "RandomHistogramMatch takes channels"),
        ({"steps": ({"type": "RandomFourierStyle", "styles": "x"},)}, "RandomFourierStyle takes channels"),
        ({"steps": ({"type": "RandomIntensity", "per_channel": True},)}, "in a scan they are alike"),
        ({"steps": ({"type": "RandomGaussianBlur", "per_channel": True},)}, "in a scan they are alike"),
        ({"steps": ({"type": "RandomLowResolution", "per_channel": True},)}, "in a scan they are alike"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_neighbours_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        recipe(**changes)
    if set(changes) == {"steps"}:
        recipe(**changes, neighbours=0, dataset={"img_channels": 3})
