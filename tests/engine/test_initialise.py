"""What a training starts from: taken where it fits, made to fit by rule, and said layer by layer."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import yaml

from medseg_paddle.config import Recipe, load_recipe
from medseg_paddle.engine.initialise import InitialWeights, initialise
from medseg_paddle.engine.models import ForwardFunction, build_model
from medseg_paddle.errors import ModelError
from medseg_paddle.run import Run
from medseg_paddle.steps.export import export
from medseg_paddle.steps.train import train

RNG = np.random.default_rng(8)


def recipe(
    folder: Path,
    *,
    classes: tuple[str, ...] | int = ("background", "disc"),
    channels: int = 3,
    **changes: Any,
) -> Recipe:
    count = classes if isinstance(classes, int) else len(classes)
    data = {
        "type": "Dataset", "dataset_root": "data", "train_path": "data/train.txt", "num_classes": count,
        "img_channels": channels, "mode": "train", "transforms": [{"type": "Normalize", "mean": [0.5], "std": [0.5]}],
    }  # fmt: skip
    content = {
        "batch_size": 2,
        "iters": 10,
        "train_dataset": data,
        "optimizer": {"type": "AdamW"},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
        "model": {"type": "ScalableUNet", "width": 4, "depth": 2},
        **({} if isinstance(classes, int) else {"labels": list(classes)}),
        **changes,
    }
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(content))
    return load_recipe(path)


def trained(folder: Path, **what: Any) -> tuple[Run, paddle.nn.Layer]:
    """A run whose best weights are random, its batch statistics too; and its network."""
    run = Run.create(folder / "source", recipe(folder, **what), {})
    with paddle.utils.unique_name.guard():
        model = build_model(run.recipe)
    state = {
        name: RNG.uniform(0.1, 0.6, value.shape).astype(np.float32)
        for name, value in model.state_dict().items()
    }
    model.set_state_dict(state)
    file = run.checkpoints / "iter_7" / "model.pdparams"
    file.parent.mkdir(parents=True)
    paddle.save(model.state_dict(), str(file))
    file.with_suffix(".pdopt").write_bytes(b"")
    return run, model


def started(folder: Path, source: Path, **what: Any) -> tuple[paddle.nn.Layer, InitialWeights]:
    wanted = recipe(folder, initialise={"source": str(source)}, **what)
    model = build_model(wanted)
    found = initialise(model, wanted)
    assert found is not None
    return model, found


def arrays(model: paddle.nn.Layer) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


def test_the_same_network_is_taken_whole(tmp_path: Path) -> None:
    run, model = trained(tmp_path)
    other, said = started(tmp_path, run.path)
    for name, array in arrays(model).items():
        np.testing.assert_array_equal(arrays(other)[name], array)
    assert {layer.origin for layer in said.layers} == {"taken"}
    assert said.count("taken") == 21, "10 convolutions, their 10 norms, the head"
    assert said.summary == f"weights of {run.path} (run, iter_7): 21 of 21 layers taken"
    assert said.sha256 == hashlib.sha256(run.best_checkpoint.read_bytes()).hexdigest()


def test_classes_of_the_same_name_keep_their_weights(tmp_path: Path) -> None:
    run, model = trained(tmp_path, classes=("background", "vessel", "disc"))
    other, said = started(tmp_path, run.path, classes=("background", "disc", "cup", "rim"))
    fresh = arrays(build_model(recipe(tmp_path, classes=4)))["head.weight"].shape
    before, after = arrays(model), arrays(other)
    for name in ("head.weight", "head.bias"):
        np.testing.assert_array_equal(after[name][[0, 1]], before[name][[0, 2]])
        assert not np.isin(after[name][2:], before[name]).any()
    assert after["head.weight"].shape == fresh
    (head,) = [layer for layer in said.layers if layer.origin != "taken"]
    assert (head.layer, head.origin, head.shape, head.source_shape) == (
        "head", "adapted", (4, 4, 1, 1), (3, 4, 1, 1),
    )  # fmt: skip
    assert head.how == "background, disc kept, cup, rim fresh"
    assert said.table("adapted") == [
        "  adapted head  [4, 4, 1, 1] <- [3, 4, 1, 1]  background, disc kept, cup, rim fresh"
    ]


def test_a_class_in_the_place_of_another_does_not_inherit_its_weights(tmp_path: Path) -> None:
    run, model = trained(tmp_path, classes=("background", "vessel"))
    other, said = started(tmp_path, run.path, classes=("background", "disc"))
    np.testing.assert_array_equal(arrays(other)["head.weight"][0], arrays(model)["head.weight"][0])
    assert not np.isin(arrays(other)["head.weight"][1], arrays(model)["head.weight"]).any()
    assert said.count("adapted") == 1


@pytest.mark.parametrize(("classes", "origin"), [(2, "taken"), (3, "fresh")])
def test_classes_without_names_are_taken_by_position_if_they_are_as_many(
    tmp_path: Path, classes: int, origin: str
) -> None:
    run, _ = trained(tmp_path, classes=("background", "disc"))
    _, said = started(tmp_path, run.path, classes=classes)
    head = said.layers[-1]
    assert (head.layer, head.origin) == ("head", origin)
    assert "the recipe names no classes" in head.how


def test_from_colour_to_grey_a_network_answers_as_to_three_equal_channels(tmp_path: Path) -> None:
    run, model = trained(tmp_path, channels=3)
    other, said = started(tmp_path, run.path, channels=1)
    grey = RNG.normal(size=(1, 1, 16, 24)).astype(np.float32)
    np.testing.assert_allclose(
        ForwardFunction(other)(grey), ForwardFunction(model)(np.repeat(grey, 3, axis=1)), atol=1e-5
    )
    assert said.table("adapted") == [
        "  adapted down.0.0  [4, 1, 3, 3] <- [4, 3, 3, 3]  sum over the 3 channels"
    ]


def test_from_grey_to_colour_equal_channels_get_the_answer_of_before(tmp_path: Path) -> None:
    run, model = trained(tmp_path, channels=1)
    other, said = started(tmp_path, run.path, channels=3)
    grey = RNG.normal(size=(1, 1, 16, 24)).astype(np.float32)
    np.testing.assert_allclose(
        ForwardFunction(other)(np.repeat(grey, 3, axis=1)), ForwardFunction(model)(grey), atol=1e-5
    )
    assert said.count("adapted") == 1


def test_other_numbers_of_channels_begin_anew(tmp_path: Path) -> None:
    run, _ = trained(tmp_path, channels=3)
    _, said = started(tmp_path, run.path, channels=4)
    assert said.table("fresh") == [
        "  fresh   down.0.0  [4, 4, 3, 3] <- [4, 3, 3, 3]  3 channels there, 4 here"
    ]


def test_another_network_is_refused(tmp_path: Path) -> None:
    run, _ = trained(tmp_path)
    with pytest.raises(ModelError, match=r"find no weights there that fit.*down\.0\.0") as caught:
        started(tmp_path, run.path, model={"type": "ScalableUNet", "width": 6, "depth": 2})
    assert "same `width` and `depth`" in caught.value.hint


def test_a_deeper_network_of_the_same_kind_is_refused_unless_asked_for(tmp_path: Path) -> None:
    run, _ = trained(tmp_path)
    deeper = {"type": "ScalableUNet", "width": 4, "depth": 3}
    # Of 29 layers, down.0 to down.2 (12) and the head fit; the decoder's numbers count from below.
    with pytest.raises(ModelError, match="16 of 29 layers"):
        started(tmp_path, run.path, model=deeper)
    wanted = recipe(tmp_path, initialise={"source": str(run.path), "least_fitting": 0.4}, model=deeper)
    found = initialise(build_model(wanted), wanted)
    assert found is not None
    assert (found.count("taken"), found.count("fresh"), found.unused) == (13, 16, 0)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere", "it is not there"),
        ("https://example.org/a.pdparams", "it is not there"),
        ("file.zip", "no bundle"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path: Path, source: str, words: str) -> None:
    (tmp_path / "file.zip").write_bytes(b"")
    with pytest.raises(ModelError, match=words) as caught:
        started(tmp_path, Path(source) if "//" in source else tmp_path / source)
    assert "nothing is fetched" in caught.value.hint


@pytest.mark.parametrize(
    "model",
    [
        {"type": "UNet", "pretrained": "https://example.org/unet.tar.gz"},
        {
            "type": "EncoderUNet",
            "width": 4,
            "backbone": {"type": "STDC1", "pretrained": "https://example.org/stdc1.tar.gz"},
        },
    ],
    ids=["network", "backbone"],
)
def test_addresses_of_weights_as_paddlesegs_recipes_have_them_are_not_fetched(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    wanted = recipe(tmp_path, model=model)
    with pytest.raises(ModelError, match=r"there is no file|it is not there") as caught:
        initialise(build_model(wanted), wanted)
    assert (
        "nothing is fetched. Of an archive that PaddleSeg would fetch (.tar.gz), unpack" in caught.value.hint
    )


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.pdparams").write_bytes(b"not a pickle")
    with pytest.raises(ModelError, match="cannot be read"):
        started(tmp_path, tmp_path / "bad.pdparams")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_every_protocol_of_paddle_is_read(tmp_path: Path, protocol: int) -> None:
    _, model = trained(tmp_path)
    source = tmp_path / "weights.pdparams"
    paddle.save(model.state_dict(), str(source), protocol=protocol)
    other, said = started(tmp_path, source)
    assert said.count("taken") == len(said.layers)
    np.testing.assert_array_equal(arrays(other)["head.weight"], arrays(model)["head.weight"])


def test_neither_random_numbers_nor_names_are_disturbed(tmp_path: Path) -> None:
    run, _ = trained(tmp_path, channels=1)
    drawn, names = [], []
    for source in (None, {"source": str(run.path)}):
        wanted = recipe(tmp_path, initialise=source)
        with paddle.utils.unique_name.guard():
            paddle.seed(3)
            initialise(build_model(wanted), wanted)
            drawn.append(paddle.rand([4]).numpy())
            names.append(paddle.nn.Conv2D(1, 1, 1).weight.name)
    np.testing.assert_array_equal(*drawn)
    assert names[0] == names[1]


def test_a_bundle_gives_the_weights_of_its_run(tmp_path: Path, disc_recipe_file: Path) -> None:
    # Other networks were made before in this process, so Paddle's names in the graph do not begin at 0.
    build_model(load_recipe(disc_recipe_file))
    network = "model={type: ScalableUNet, width: 4, depth: 2, deep_supervision: 1}"
    wanted = load_recipe(disc_recipe_file, [network, "loss.coef=[1, 0.5]", "export.samples=1"])
    run = Run.create(tmp_path / "source", wanted, {"git": None, "data": {}})
    model = build_model(wanted)
    for name, value in model.state_dict().items():
        if "_variance" in name or name.endswith("weight"):
            value.set_value(value.numpy() * 0.8 + 0.01)
    file = run.checkpoints / "iter_2" / "model.pdparams"
    file.parent.mkdir(parents=True)
    paddle.save(model.state_dict(), str(file))
    file.with_suffix(".pdopt").write_bytes(b"")
    bundle = export(run)
    shutil.copytree(run.path, tmp_path / "twin")
    ensemble = export([run, Run.open(tmp_path / "twin")], output=tmp_path / "both")
    shutil.rmtree(run.checkpoints)
    of_two = load_recipe(
        disc_recipe_file, [network, "loss.coef=[1, 0.5]", f"initialise.source={ensemble.path}"]
    )
    with pytest.raises(ModelError, match="ensemble of 2 networks") as caught:
        initialise(build_model(of_two), of_two)
    assert "one of the runs" in caught.value.hint

    again = load_recipe(disc_recipe_file, [network, "loss.coef=[1, 0.5]", f"initialise.source={bundle.path}"])
    other = build_model(again)
    said = initialise(other, again)
    assert said is not None
    assert said.kind == f"bundle {bundle.id}"
    assert [layer.layer for layer in said.layers if layer.origin != "taken"] == ["lower_heads.0"], (
        "a bundle has no heads for the training alone"
    )
    for name, array in arrays(model).items():
        if not name.startswith("lower_heads"):
            np.testing.assert_array_equal(arrays(other)[name], array)


def test_a_training_says_and_notes_what_it_started_from_and_goes_on_without(
    tmp_path: Path, disc_recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = train(
        disc_recipe_file, output=tmp_path / "source", overrides=["iters=2", "labels=[background, blob]"]
    )
    digest = hashlib.sha256(source.best_checkpoint.read_bytes()).hexdigest()
    capsys.readouterr()
    overrides = [f"initialise.source={source.path}", "lr_scheduler.decay_steps=6"]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[*overrides, "iters=2"])
    out = capsys.readouterr().out
    assert out.index("20 of 21 layers taken, 1 adapted") < out.index("training: SimpleUNet")
    assert "background kept, disc fresh" in out
    noted = run.provenance["initial_weights"]
    assert (noted["sha256"], noted["source"], noted["taken"]) == (digest, str(source.path), 20)
    assert [layer["layer"] for layer in noted["adapted"]] == ["head"]
    assert "  taken   down.0.0  [4, 3, 3, 3]\n" in run.log.read_text()

    shutil.rmtree(source.path)
    resumed = train(disc_recipe_file, output=tmp_path / "run", overrides=[*overrides, "iters=3"], resume=True)
    assert resumed.last_checkpoint is not None
    assert resumed.last_checkpoint.name == "iter_3"
    assert resumed.provenance["initial_weights"] == noted


def test_a_run_that_starts_again_from_other_weights_is_refused(tmp_path: Path) -> None:
    run, _ = trained(tmp_path)
    _, said = started(tmp_path, run.path)
    run.note_initial_weights(json.loads(json.dumps(said.facts)))
    run.note_initial_weights(said.facts)
    with pytest.raises(ModelError, match="other weights than when"):
        run.note_initial_weights({**said.facts, "sha256": "0" * 64})


def test_pretrained_of_paddleseg_still_takes_all_or_nothing(tmp_path: Path) -> None:
    run, model = trained(tmp_path, model={"type": "UNet"})
    wanted = recipe(tmp_path, model={"type": "UNet", "pretrained": str(run.best_checkpoint)})
    other = build_model(wanted)
    said = initialise(other, wanted)
    assert said is not None
    assert said.count("taken") == len(said.layers)
    np.testing.assert_array_equal(arrays(other)["cls.weight"], arrays(model)["cls.weight"])
    wanted = recipe(tmp_path, channels=1, model=wanted.model.model_dump() | {"in_channels": 1})
    with pytest.raises(ModelError, match="of another model"):
        initialise(build_model(wanted), wanted)
