"""A model whose answer is known without running it, exported to a bundle."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from dicom_files import ct_image

from medseg_paddle.bundle import Bundle
from medseg_paddle.core import LabelSet
from medseg_paddle.description import Description, Window
from medseg_paddle.preprocess import InferencePlan, Preprocessing, segment

SCALE = Preprocessing.from_specs([{"type": "Normalize", "mean": [0.5], "std": [0.5]}])


def _description(**changes) -> Description:
    """Of a bundle for grey pictures, and for volumes whose window 0..255 keeps their values."""
    values = {
        "name": "threshold",
        "created": "2026-01-31T12:00:00+00:00",
        "labels": LabelSet.from_names(["background", "bright"]),
        "in_channels": 1,
        "window": Window(level=127.5, width=255),
        "trained_on": None,
        "preprocessing": SCALE,
        "plan": InferencePlan(divisor=16),
        "tolerance": 1e-4,
        "provenance": {"git": "none"},
        "recipe": {"name": "threshold", "device": "cpu"},
        "versions": {"medseg-paddle": "0"},
    }
    return Description(**{**values, **changes})


def _threshold_model(in_channels: int = 1):
    """A network that says class 1 exactly where the first channel is above 127.5."""
    import paddle
    from paddle import nn

    class Threshold(nn.Layer):
        def __init__(self):
            super().__init__()
            self.head = nn.Conv2D(in_channels, 2, 1)
            weight = np.zeros((2, in_channels, 1, 1), np.float32)
            weight[1, 0] = 20.0  # logit 20 (x - 127.5) / 127.5
            self.head.weight.set_value(weight)
            self.head.bias.set_value(np.zeros(2, np.float32))

        def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
            return [self.head(x)]

    return Threshold()


def _small_unet(in_channels: int = 1, classes: int = 3, dropout: float = 0.0):
    """A U-Net of two levels with random weights and real skip, pooling and upsampling."""
    import paddle
    import paddle.nn.functional as F
    from paddle import nn

    def block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2D(inputs, outputs, 3, padding=1), nn.BatchNorm2D(outputs), nn.ReLU())

    class SmallUNet(nn.Layer):
        def __init__(self):
            super().__init__()
            self.top, self.bottom, self.merge = block(in_channels, 8), block(8, 16), block(24, 8)
            self.drop = nn.Dropout2D(dropout)
            self.head = nn.Conv2D(8, classes, 1)

        def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
            a = self.top(x)
            b = F.interpolate(self.bottom(F.max_pool2d(a, 2)), size=paddle.shape(a)[2:], mode="bilinear")
            return [self.head(self.drop(self.merge(paddle.concat([a, b], axis=1))))]

    paddle.seed(3)
    model = SmallUNet()
    model.eval()
    return model


def _dynamic(model) -> Callable:
    """The model in dynamic mode as a function of arrays, in whatever mode (train, eval) it is in."""
    import paddle
    import paddle.nn.functional as F

    def forward(batch):
        with paddle.no_grad():
            return F.softmax(model(paddle.to_tensor(batch))[0], axis=1).numpy()

    return forward


def _write_bundle(destination: Path, model, content: Description) -> Bundle:
    """Export `model` as the export step does."""
    from medseg_paddle.engine.static_graph import compare, load_static, save_static

    picture = np.random.default_rng(0).integers(0, 256, (37, 51, content.in_channels)).astype(np.float32)
    with Bundle.create(destination, content) as draft:
        save_static(model, draft.graph_prefix, content.in_channels)
        static = load_static(draft.graph_prefix, "cpu", threads=1)
        parity = compare(_dynamic(model), static, [picture], content.preprocessing, content.plan)
        draft.accept(parity, picture, segment(static, picture, content.preprocessing, content.plan))
    return Bundle.open(destination)


def _edge_model():
    """A network that says class 1 exactly where the next pixel to the right is brighter by more than 25.5."""
    from paddle import nn

    model = _threshold_model()
    model.head = nn.Conv2D(1, 2, 3, padding=1)
    weight = np.zeros((2, 1, 3, 3), np.float32)
    weight[1, 0, 1, 1:] = [-20.0, 20.0]
    model.head.weight.set_value(weight)
    model.head.bias.set_value(np.array([0, -4], np.float32))  # 25.5 / 127.5 * 20
    return model


def _write_series(
    folder: Path, array: np.ndarray, *, uid: str = "1.2.3.4", origin=(-40.0, -30.0, 100.0)
) -> None:
    """Write HU ``[slice, row, column]`` as an axial CT series, 2 x 0.8 x 0.7 mm, supine, head first."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, pixels in enumerate(array):
        image = ct_image(
            pixels + 1024,
            position=(origin[0], origin[1], origin[2] + 2.0 * index),
            signed=False,
            SOPInstanceUID=f"{uid}.{index + 1}",
            SeriesInstanceUID=uid,
            StudyInstanceUID="1.2.3",
            FrameOfReferenceUID="1.2.9",
            InstanceNumber=len(array) - index,
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            PixelSpacing=[0.8, 0.7],
            RescaleIntercept=-1024,
        )
        image.save_as(folder / f"{index:03}.dcm", enforce_file_format=True)


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Path:
    """A bundle of the threshold model. Read only: see `bundle` for a copy to spoil."""
    destination = tmp_path_factory.mktemp("exported") / "bundle"
    _write_bundle(destination, _threshold_model(), _description())
    return destination


@pytest.fixture
def bundle(exported, tmp_path) -> Path:
    """A copy of the threshold bundle that a test may spoil."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.fixture(scope="session")
def description() -> Callable[..., Description]:
    return _description


@pytest.fixture(scope="session")
def threshold_model() -> Callable:
    return _threshold_model


@pytest.fixture(scope="session")
def small_unet() -> Callable:
    return _small_unet


@pytest.fixture(scope="session")
def dynamic() -> Callable:
    return _dynamic


@pytest.fixture(scope="session")
def write_bundle() -> Callable[..., Bundle]:
    return _write_bundle


@pytest.fixture(scope="session")
def edge_model() -> Callable:
    return _edge_model


@pytest.fixture(scope="session")
def write_series() -> Callable[..., None]:
    return _write_series
