"""The weights that a training starts from: those of another training, as far as they fit."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import nn

from medseg_paddle.config import Recipe
from medseg_paddle.config.networks import Model
from medseg_paddle.core import sha256
from medseg_paddle.engine.models import build_network, load_weights
from medseg_paddle.engine.weight_sources import Source, classes_of, open_source, require_weights_file
from medseg_paddle.errors import ModelError

Origin = Literal["taken", "adapted", "fresh"]
_Array = NDArray[Any]
_ENCODER = "encoder."
_OF_PICTURES = 4  # axes of a convolution's weights
_ENCODER_FITS = 0.5  # as `initialise.least_fitting` where nobody says


@dataclass(frozen=True)
class LayerOrigin:
    """Where the weights of one layer come from.

    Attributes
    ----------
    layer : str
        Its name in the network.
    origin : {"taken", "adapted", "fresh"}
        As in the source; made from the source's; drawn by the seed.
    shape, source_shape : tuple of int
        Of its first array, here and in the source; None where the source has none of that name.
    how : str
        What was adapted, or why it is fresh.
    """

    layer: str
    origin: Origin
    shape: tuple[int, ...]
    source_shape: tuple[int, ...] | None
    how: str


@dataclass(frozen=True)
class InitialWeights:
    """What a training started from.

    Attributes
    ----------
    source : str
        What the recipe names.
    kind : str
        What it is, in words.
    sha256 : str
        Of the file that the weights were read from.
    layers : tuple of LayerOrigin
        All layers that were looked for in the source, in the network's order.
    unused : int
        Layers of the source that have no place in the network.
    """

    source: str
    kind: str
    sha256: str
    layers: tuple[LayerOrigin, ...]
    unused: int

    def count(self, origin: Origin) -> int:
        """Layers of that origin."""
        return sum(layer.origin == origin for layer in self.layers)

    @property
    def summary(self) -> str:
        """What was taken, in a line."""
        parts = [f"{self.count('taken')} of {len(self.layers)} layers taken"]
        parts += [f"{n} {origin}" for origin in ("adapted", "fresh") if (n := self.count(origin))]
        parts += [f"{self.unused} of the source not used"] if self.unused else []
        return f"weights of {self.source} ({self.kind}): {', '.join(parts)}"

    def table(self, *origins: Origin) -> list[str]:
        """A line for each layer of these origins, of all where none is named."""
        return [
            f"  {layer.origin:8}{layer.layer}  {list(layer.shape)}"
            + (f" <- {list(layer.source_shape)}" if layer.source_shape not in (None, layer.shape) else "")
            + (f"  {layer.how}" if layer.how else "")
            for layer in self.layers
            if not origins or layer.origin in origins
        ]

    @property
    def facts(self) -> dict[str, Any]:
        """For the run's provenance, as JSON-able values."""
        return {
            "source": self.source,
            "kind": self.kind,
            "sha256": self.sha256,
            "taken": self.count("taken"),
            "unused": self.unused,
            **{
                origin: [asdict(layer) for layer in self.layers if layer.origin == origin]
                for origin in ("adapted", "fresh")
            },
        }


def initialise(model: nn.Layer, recipe: Recipe) -> InitialWeights | None:
    """Give a fresh `model` the weights that its recipe says to start from.

    Parameters
    ----------
    model : nn.Layer
        What :func:`medseg_paddle.engine.models.build_model` made; changed in place. Paddle's random
        numbers and names go on as if nothing had been done.
    recipe : Recipe

    Returns
    -------
    InitialWeights or None
        None where the recipe names no source.

    Raises
    ------
    ModelError
        The source is missing or damaged, or too little of it fits.
    """
    backbone = getattr(recipe.model, "backbone", None)
    if recipe.initialise is not None:
        source = open_source(Path(recipe.initialise.source))
        changes = _Changes(model, recipe.model, classes_of(recipe), source.classes)
        return _take(model, source, recipe.initialise.source, recipe.initialise.least_fitting, changes)
    if backbone is not None and backbone.pretrained is not None:
        found = open_source(Path(backbone.pretrained))
        own = {_ENCODER + name: array for name, array in found.weights.items()}
        source = Source(found.kind, found.file, own, None)
        changes = _Changes(model, recipe.model)
        return _take(model, source, backbone.pretrained, _ENCODER_FITS, changes, _ENCODER)
    pretrained = getattr(recipe.model, "pretrained", None)
    if pretrained is None:
        return None
    file = require_weights_file(pretrained)
    load_weights(model, file)
    shapes = _shapes(model)
    layers = tuple(
        LayerOrigin(layer, "taken", shapes[names[0]], shapes[names[0]], "")
        for layer, names in _layers(shapes)
    )
    return InitialWeights(pretrained, "file of weights", sha256(file), layers, 0)


def _take(
    model: nn.Layer, source: Source, named: str, least_fitting: float, changes: _Changes, part: str = ""
) -> InitialWeights:
    """Put what fits into the part of `model` whose names begin with `part`."""
    fresh = {name: value.numpy() for name, value in model.state_dict().items()}
    wanted = {name: array for name, array in fresh.items() if name.startswith(part)}
    adapted = {
        name: _fitted(name, array, source.weights.get(name), changes) for name, array in wanted.items()
    }
    layers = tuple(_layer_origin(layer, names, adapted, source.weights) for layer, names in _layers(wanted))
    unused = sum(not any(name in wanted for name in names) for _, names in _layers(source.weights))
    result = InitialWeights(named, source.kind, sha256(source.file), layers, unused)
    fitting = 1 - result.count("fresh") / len(layers)
    if fitting < least_fitting:
        raise ModelError(
            f"{named} ({source.kind}) is of another network: {result.count('fresh')} of {len(layers)} layers of "
            f"{_described(model, part)} find no weights there that fit, for example "
            f"{next(layer.layer for layer in layers if layer.origin == 'fresh')}"
            f" (it has {next(iter(source.weights), 'nothing').removeprefix(part)})",
            hint="name a source of the same network, with the same `width` and `depth`"
            + (
                ", or give weights of the backbone alone as model.backbone.pretrained"
                if _has_encoder(model)
                else ""
            ),
        )
    model.set_state_dict({**fresh, **{name: fitted.array for name, fitted in adapted.items()}})
    return result


def _described(model: nn.Layer, part: str) -> str:
    return f"the {part.rstrip('.')}" if part else type(model).__name__


def _has_encoder(model: nn.Layer) -> bool:
    return any(name.startswith(_ENCODER) for name in model.state_dict())


def _layers(names: Any) -> Iterator[tuple[str, list[str]]]:
    """Layers in order, each with the names of its arrays."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.rpartition(".")[0] or name, []).append(name)
    yield from found.items()


@dataclass(frozen=True)
class _Fitted:
    array: _Array
    origin: Origin
    how: str


def _layer_origin(
    layer: str, names: Sequence[str], adapted: dict[str, _Fitted], source: dict[str, _Array]
) -> LayerOrigin:
    parts = [adapted[name] for name in names]
    origins = {part.origin for part in parts}
    origin: Origin = parts[0].origin if len(origins) == 1 else "adapted"
    telling = next((name for name in names if adapted[name].how), names[0])
    found = source.get(telling)
    how = adapted[telling].how
    if len(origins) > 1 and adapted[telling].origin == "fresh":
        how = f"{telling.rpartition('.')[2]} is fresh: {how}"
    return LayerOrigin(
        layer, origin, adapted[telling].array.shape, None if found is None else found.shape, how
    )


def _fitted(name: str, fresh: _Array, found: _Array | None, changes: _Changes) -> _Fitted:
    """The array to start from, in the place of `fresh`."""
    if found is None:
        return _Fitted(fresh, "fresh", "not in the source")
    axes = changes.class_axes(name)
    if axes:
        return _by_class(fresh, found, axes, changes)
    if found.shape == fresh.shape:
        return _Fitted(found.astype(fresh.dtype), "taken", "")
    if found.ndim == fresh.ndim >= _OF_PICTURES and changes.channel_axes(name) == (1,):
        return _by_channel(fresh, found)
    return _Fitted(fresh, "fresh", "another shape")


def _by_channel(fresh: _Array, found: _Array) -> _Fitted:
    """Weights of a first convolution for another number of channels.

    As timm's `adapt_input_conv` (https://github.com/huggingface/pytorch-image-models): colour to grey sums the
    weights, so that a grey picture gives what it gave as three equal channels; grey to colour shares them out.
    Channels of volumes are no colours, and not brought into one another.
    """
    channels, before = fresh.shape[1], found.shape[1]
    if fresh.ndim == _OF_PICTURES and found.shape[:1] + found.shape[2:] == fresh.shape[:1] + fresh.shape[2:]:
        if (before, channels) == (3, 1):
            return _Fitted(found.sum(axis=1, keepdims=True), "adapted", "sum over the 3 channels")
        if (before, channels) == (1, 3):
            return _Fitted(np.repeat(found / 3, 3, axis=1), "adapted", "a third for each of 3 channels")
    return _Fitted(fresh, "fresh", f"{before} channels there, {channels} here")


def _by_class(fresh: _Array, found: _Array, axes: tuple[int, ...], changes: _Changes) -> _Fitted:
    """Weights that belong to a class each: those of classes of the same name, or all by position."""
    here, there = changes.classes, changes.source_classes
    if here is None or there is None:
        nameless = "the source names no classes" if there is None else "the recipe names no classes"
        if found.shape != fresh.shape:
            return _Fitted(fresh, "fresh", f"{nameless}, and has another number of them")
        return _Fitted(found.astype(fresh.dtype), "taken", f"classes by position: {nameless}")
    if here == there and found.shape == fresh.shape:
        return _Fitted(found.astype(fresh.dtype), "taken", "")
    if len(axes) > 1:
        return _Fitted(fresh, "fresh", "it mixes the classes, and they differ")
    return _by_name(np.moveaxis(fresh, axes[0], 0), np.moveaxis(found, axes[0], 0), axes[0], here, there)


def _by_name(
    fresh: _Array, found: _Array, axis: int, here: tuple[str, ...], there: tuple[str, ...]
) -> _Fitted:
    """As above, one row for each class; `axis` is where the classes belong."""
    kept = [name for name in here if name in there]
    new = [name for name in here if name not in there]
    result, why = fresh.copy(), ""
    if found.shape != (len(there), *fresh.shape[1:]):
        kept, why = [], "another shape"
    for name in kept:
        result[here.index(name)] = found[there.index(name)]
    if not kept:
        return _Fitted(
            np.moveaxis(result, 0, axis), "fresh", why or f"no class of {', '.join(there)} is learned here"
        )
    how = f"{', '.join(kept)} kept" + (f", {', '.join(new)} fresh" if new else "")
    return _Fitted(np.moveaxis(result, 0, axis), "adapted", how)


class _Changes:
    """Which arrays of a network depend on the classes and on the image's channels, and along which axis.

    Found by building the network with one more of each: no layer has to be named a head or a stem.
    """

    def __init__(
        self,
        model: nn.Layer,
        spec: Model,
        classes: tuple[str, ...] | None = None,
        source_classes: tuple[str, ...] | None = None,
    ) -> None:
        self.classes, self.source_classes = classes, source_classes
        self._spec, self._shapes = spec, _shapes(model)

    def class_axes(self, name: str) -> tuple[int, ...]:
        """The axes whose length follows from the number of classes."""
        return () if name.startswith(_ENCODER) else self._class_axes.get(name, ())

    def channel_axes(self, name: str) -> tuple[int, ...]:
        """The axes whose length follows from the number of channels."""
        return self._channel_axes.get(name, ())

    @functools.cached_property
    def _class_axes(self) -> dict[str, tuple[int, ...]]:
        return self._differing(num_classes=(self._spec.num_classes or 0) + 1)

    @functools.cached_property
    def _channel_axes(self) -> dict[str, tuple[int, ...]]:
        return self._differing(in_channels=(self._spec.in_channels or 0) + 1)

    def _differing(self, **change: int) -> dict[str, tuple[int, ...]]:
        state = paddle.get_rng_state()
        try:
            with paddle.utils.unique_name.guard():
                other = _shapes(build_network(self._spec.model_copy(update=change)))
        finally:
            paddle.set_rng_state(state)
        return {
            name: tuple(axis for axis, (a, b) in enumerate(zip(shape, other[name], strict=True)) if a != b)
            for name, shape in self._shapes.items()
            if shape != other[name]
        }


def _shapes(model: nn.Layer) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}
