"""Our list of PaddleSeg's components against PaddleSeg itself: the same keys, the same defaults."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, get_args

import pytest

from medseg_paddle.config import losses, networks, optimisation, transforms
from medseg_paddle.config.base import Spec
from medseg_paddle.preprocess import TRAIN_TRANSFORMS
from medseg_paddle.preprocess.augment import Mixup
from medseg_paddle.preprocess.augment.volume_augmentation import VOLUME_TRANSFORMS

manager = pytest.importorskip(
    "medseg_paddle.engine.paddleseg_adapter", reason="PaddleSeg is not installed"
).manager
pytest.importorskip("paddleseg.transforms")
pytest.importorskip("paddleseg.models")
pytest.importorskip("paddleseg.optimizers")

OUR_LOSSES = {"TverskyLoss", "FocalTverskyLoss", "BoundaryLoss", "ClDiceLoss"}
OUR_NETWORKS = {"SimpleUNet", "ScalableUNet", "EncoderUNet", "UNet3D", "ResUNet3D", "AttentionUNet3D"}
# VolumePreprocessing: tests/config/test_volume_words.py compares it
OURS = {*TRAIN_TRANSFORMS, *VOLUME_TRANSFORMS, "VolumePreprocessing", *OUR_NETWORKS, "RMSProp", *OUR_LOSSES}


def members(union: Any) -> list[type[Spec]]:
    return list(get_args(get_args(union)[0]))


def pairs() -> list[tuple[type[Spec], Any]]:
    found = []
    for union, registry in (
        (transforms.Transform, manager.TRANSFORMS),
        (networks.Model, manager.MODELS),
        (optimisation.Optimizer, manager.OPTIMIZERS),
        (losses.LossType, manager.LOSSES),
    ):
        found += [(spec, registry[spec.__name__]) for spec in members(union) if spec.__name__ not in OURS]
    return found


@pytest.mark.parametrize(("spec", "theirs"), pairs(), ids=lambda value: getattr(value, "__name__", ""))
def test_keys_and_defaults_are_paddlesegs(spec: type[Spec], theirs: Any) -> None:
    parameters = {n: p for n, p in inspect.signature(theirs.__init__).parameters.items() if n != "self"}
    fields = {n: f for n, f in spec.model_fields.items() if n != "type"}
    # from the data set, where the recipe names none
    filled_in = {"num_classes", "in_channels", "num_class", "ignore_index"}
    extra = {name for name, field in fields.items() if (field.description or "").startswith("ours: ")}
    extra |= {"decay_norms_and_biases"} & set(fields)
    extra |= (
        {"momentum"} if spec.__name__ == "SGD" else set()
    )  # PaddleSeg turns SGD with momentum to Momentum
    left_out = {"lazy_mode"} & set(parameters)
    assert set(fields) - extra == set(parameters) - left_out
    for name, field in fields.items():
        if name in filled_in | extra:
            continue
        default = parameters[name].default
        if default is inspect.Parameter.empty:
            assert field.is_required(), name
        else:
            assert _plain(field.default) == _plain(default), name


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, list)) else value


@pytest.mark.parametrize("name", [*TRAIN_TRANSFORMS, "Mixup"])
def test_keys_and_defaults_of_ours_are_those_of_what_they_stand_for(name: str) -> None:
    spec = getattr(transforms, name)
    ours = {"Mixup": Mixup, **TRAIN_TRANSFORMS}[name]
    expected = {field.name: field.default for field in dataclasses.fields(ours)}
    found = {key: field for key, field in spec.model_fields.items() if key != "type"}
    assert set(found) == set(expected)
    for key, field in found.items():
        if expected[key] is dataclasses.MISSING:
            assert field.is_required(), key
        else:
            assert _plain(field.default) == _plain(expected[key]), key


@pytest.mark.parametrize(
    ("spec", "theirs"),
    [
        (optimisation.RMSProp, "RMSProp"),
        (optimisation.OneCycleLR, "lr.OneCycleLR"),
        (optimisation.ReduceOnPlateau, "lr.ReduceOnPlateau"),
        (optimisation.StepDecay, "lr.StepDecay"),
        (optimisation.MultiStepDecay, "lr.MultiStepDecay"),
        (optimisation.PolynomialDecay, "lr.PolynomialDecay"),
        (optimisation.CosineAnnealingDecay, "lr.CosineAnnealingDecay"),
    ],
)
def test_keys_and_defaults_are_paddles(spec: type[Spec], theirs: str) -> None:
    import paddle

    owner: Any = paddle.optimizer
    for part in theirs.split("."):
        owner = getattr(owner, part)
    parameters = {n: p.default for n, p in inspect.signature(owner.__init__).parameters.items()}
    ours = {
        "type",
        "warmup_iters",
        "warmup_start_lr",
        "grad_clip_cfg",
        "custom_cfg",
        "decay_norms_and_biases",
    }
    for name, field in spec.model_fields.items():
        if name in ours:
            continue
        assert name in parameters, name
        if parameters[name] is not inspect.Parameter.empty and field.default is not None:
            assert field.is_required() or field.default == parameters[name], name


def test_no_transform_of_ours_takes_a_name_of_paddlesegs() -> None:
    assert not set(TRAIN_TRANSFORMS) & set(manager.TRANSFORMS.components_dict)


def test_what_is_ours_says_so_and_takes_no_name_of_paddlesegs() -> None:
    assert not OUR_LOSSES & set(manager.LOSSES.components_dict)
    said = {spec.__name__ for spec in members(losses.LossType) if (spec.__doc__ or "").startswith("Ours: ")}
    assert said == OUR_LOSSES
