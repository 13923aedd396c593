"""Weights to start from, as they lie on a disk: a run's, a bundle's, or a file of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import nn
from pydantic import TypeAdapter, ValidationError

from medseg_paddle.bundle import Bundle
from medseg_paddle.config import Recipe
from medseg_paddle.config.networks import Model
from medseg_paddle.core import MANIFEST_NAME
from medseg_paddle.engine.models import ForwardFunction, build_network, read_weights
from medseg_paddle.engine.static_graph import graph_files
from medseg_paddle.errors import ModelError
from medseg_paddle.io.cases import labels_of
from medseg_paddle.run import Run

_WHAT_IS_A_SOURCE = (
    "name the folder of a run or an unpacked bundle, or a .pdparams file, on this machine; nothing is fetched. Of an "
    "archive that PaddleSeg would fetch (.tar.gz), unpack the model.pdparams"
)


@dataclass(frozen=True)
class Source:
    """Weights of a trained network.

    Attributes
    ----------
    kind : str
        What they were read from, in words.
    file : Path
        That file.
    weights : dict
        Arrays by their names in the network.
    classes : tuple of str or None
        Names of the classes, where the source has them.
    """

    kind: str
    file: Path
    weights: dict[str, NDArray[Any]]
    classes: tuple[str, ...] | None


def open_source(path: Path) -> Source:
    """Read the weights of a run, of a bundle or of a ``.pdparams`` file.

    Raises
    ------
    ModelError
        There is none of them at `path`, or it is damaged.
    """
    if Run.exists(path):
        run = Run.open(path)
        file = run.best_checkpoint
        return Source(f"run, {file.parent.name}", file, read_weights(file), classes_of(run.recipe))
    if Bundle.exists(path):
        return _of_bundle(Bundle.open(path))
    if path.is_file() and path.suffix == ".pdparams":
        return Source("file of weights", path, read_weights(path), None)
    raise ModelError(
        f"{path} to start from is no run, no bundle and no .pdparams file"
        + ("" if path.exists() else ": it is not there"),
        hint=_WHAT_IS_A_SOURCE,
    )


def require_weights_file(named: str) -> Path:
    """The file of weights that `model.pretrained` names.

    Raises
    ------
    ModelError
        It is not there.
    """
    path = Path(named)
    if not path.is_file():
        raise ModelError(f"model.pretrained: there is no file {named}", hint=_WHAT_IS_A_SOURCE)
    return path


def classes_of(recipe: Recipe) -> tuple[str, ...] | None:
    """The names of a recipe's classes; None where neither it nor its data names them."""
    if recipe.labels:
        return recipe.labels
    data = recipe.train_dataset
    if (Path(data.dataset_root) / MANIFEST_NAME).is_file():
        labels = labels_of(data)
        return None if labels is None else labels.names
    return None


def _of_bundle(bundle: Bundle) -> Source:
    """The weights in a bundle's graph, under the names that its network has for them.

    A graph keeps Paddle's own names (``conv2d_7.w_0``), which number the layers of each kind as they were made.
    So the bundle's network is made again, and layers of a kind are matched in that order. That this is right is
    seen: the network must give what the bundle's sample says.
    """
    said = bundle.description
    if said.members > 1:
        raise ModelError(
            f"{bundle.path} is an ensemble of {said.members} networks, and a training starts from one",
            hint="start from one of the runs that it was exported from",
        )
    graph, file = graph_files(bundle.graph_prefix)
    try:
        spec = TypeAdapter[Any](Model).validate_python(said.recipe["model"])
    except (KeyError, ValidationError) as error:
        raise ModelError(
            f"{bundle.path} does not say what network it holds",
            hint="start from the run that it was exported from",
        ) from error
    state = paddle.get_rng_state()
    try:
        with paddle.utils.unique_name.guard():
            network = build_network(spec)
            loaded = paddle.jit.load(str(bundle.graph_prefix))
    finally:
        paddle.set_rng_state(state)
    names = {value.name: name for name, value in network.state_dict().items()}
    # Loading appends a number to each name.
    arrays = {value.name.rpartition("_")[0]: value.numpy() for value in loaded.state_dict().values()}
    weights = {names[ours]: arrays[theirs] for ours, theirs in _matched(names, arrays)}
    _put(network, weights)
    sample, expected = bundle.sample()
    found = said.answer_to_sample(ForwardFunction(network), sample)
    if found.shape != expected.shape or not np.abs(found - expected).max() <= said.tolerance:
        raise ModelError(
            f"the weights in {graph} cannot be told apart: the network made of them answers otherwise",
            hint="start from the run that the bundle was exported from",
        )
    return Source(f"bundle {bundle.id}", file, weights, bundle.labels.names)


def _matched(ours: Iterable[str], theirs: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of Paddle's names: the n-th of a kind here with the n-th of that kind there."""
    here, there = _by_kind(ours), _by_kind(theirs)
    return [pair for kind, names in here.items() for pair in zip(names, there.get(kind, ()), strict=False)]


def _by_kind(names: Iterable[str]) -> dict[str, list[str]]:
    kinds: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        parts = re.fullmatch(r"(.*?)_(\d+)\.(.*)", name)
        kind, number = (f"{parts[1]}.{parts[3]}", int(parts[2])) if parts else (name, 0)
        kinds.setdefault(kind, []).append((number, name))
    return {kind: [name for _, name in sorted(found)] for kind, found in kinds.items()}


def _put(network: nn.Layer, weights: dict[str, NDArray[Any]]) -> None:
    """Set the weights there are; those that only a training uses are not in a graph."""
    own = {name: value.numpy() for name, value in network.state_dict().items()}
    fitting = {name: array for name, array in weights.items() if own[name].shape == array.shape}
    network.set_state_dict({**own, **fitting})
