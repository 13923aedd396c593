"""What a bundle says about its model, and how that is kept in ``bundle.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Acquisition, Label, LabelSet, SpacingRange, VolumeAcquisition
from medseg_paddle.preprocess import (
    Forward,
    InferencePlan,
    Preprocessing,
    VolumePreprocessing,
    rules_from_specs,
    segment,
)
from medseg_paddle.stored_description import require_kinds

BUNDLE_VERSION = 3
READ_VERSIONS = (2, BUNDLE_VERSION)
"""Versions of ``bundle.json`` that are understood."""

# What bundles of version 2 lack, and what it was for all of them (the first ones lack all of it).
_SINCE_VERSION_2: dict[str, Any] = {
    "channel_windows": [],
    "picture_windows": [],
    "files_per_case": 1,
    "members": 1,
    "postprocessing": [],
    "dimensions": 2,
}
# What the first ones of version 3 lack, too.
_SINCE_VERSION_3: dict[str, Any] = {"neighbours": 0}


@dataclass(frozen=True)
class Window:
    """The intensity window that numbers are turned to grey values with; see `window_to_uint8`.

    Attributes
    ----------
    level, width : float
    bits : int
        8: grey values are rounded to 0, 1, ... 255; 16: to 65536 steps of the same range.
    """

    level: float
    width: float
    bits: int = 8


@dataclass(frozen=True)
class Parity:
    """How far the exported graph is from the trained model.

    Attributes
    ----------
    shapes : tuple
        Shapes ``(N, C, H, W)``, of a 3-D model ``(N, C, D, H, W)``, of the batches compared, each once.
    max_difference : float
        Largest absolute difference of a probability.
    differing_pixels : float
        Share of pixels or voxels, 0..1, whose most probable class differs.
    """

    shapes: tuple[tuple[int, ...], ...]
    max_difference: float
    differing_pixels: float


@dataclass(frozen=True)
class Description:
    """What a bundle says about its model.

    Attributes
    ----------
    name : str
        Of the recipe.
    created : str
        When it was exported, ISO 8601 with time zone.
    labels : LabelSet
    in_channels : int
        Of a model of pictures 1 (grey), 3 (RGB, or grey three times), or any other number of channels; of a model of
        whole volumes how many volumes on one grid it takes. With `neighbours`, of all slices together.
    window : Window or None
        How volumes become pictures; None for a model of pictures, of whole volumes, or of several volumes.
    trained_on : Acquisition, VolumeAcquisition or None
        What the training set's slices, or whole volumes, were like; None where they were no slices or nobody noted it.
    preprocessing : Preprocessing or VolumePreprocessing
        Of pictures, or of whole volumes.
    plan : InferencePlan
    tolerance : float
        Largest difference of a probability that the export allowed.
    provenance : dict
        Where the weights come from: the run's own record; of an ensemble ``{"members": [...]}``, each with the
        name of its run, its recipe and its record.
    recipe : dict
        The resolved recipe; of an ensemble the first member's.
    versions : dict
        Packages at export.
    channel_windows : tuple of Window
        Of a model of slices of several volumes on one grid, a channel each: how each becomes grey values. Else empty.
    picture_windows : tuple of Window
        How the numbers of pictures of 16 bits become grey values, one window or one per channel. Empty where
        pictures are taken as they are.
    files_per_case : int
        How many files a case of the training set was read from, one for each channel.
    members : int
        Networks in the graph, which returns the mean of their probabilities; 1 for a single one.
    postprocessing : tuple of dict
        The recipe's rules for the answer, see :mod:`~medseg_paddle.preprocess.postprocessing`.
    neighbours : int
        Slices of a volume that the network sees on each side beside its own, in the order of :meth:`Within.beside`.
    """

    name: str
    created: str
    labels: LabelSet
    in_channels: int
    window: Window | None
    trained_on: Acquisition | VolumeAcquisition | None
    preprocessing: Preprocessing | VolumePreprocessing
    plan: InferencePlan
    tolerance: float
    provenance: dict[str, Any]
    recipe: dict[str, Any]
    versions: dict[str, str]
    channel_windows: tuple[Window, ...] = ()
    picture_windows: tuple[Window, ...] = ()
    files_per_case: int = 1
    members: int = 1
    postprocessing: tuple[dict[str, Any], ...] = ()
    neighbours: int = 0

    @property
    def dimensions(self) -> int:
        """Of space, that the network sees: 2 of a picture, 3 of a volume."""
        return 3 if isinstance(self.preprocessing, VolumePreprocessing) else 2

    @property
    def volumes_per_case(self) -> int:
        """How many volumes on one grid make a case, where it is volumes that are segmented."""
        return self.in_channels if self.dimensions == 3 else max(1, len(self.channel_windows))

    @property
    def image_channels(self) -> int:
        """Channels of one picture or slice, without those of its neighbours."""
        return self.in_channels // (2 * self.neighbours + 1)

    def answer_to_sample(self, forward: Forward, sample: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities of the bundle's sample, see :meth:`Bundle.sample`.

        Parameters
        ----------
        forward : callable
            The network.
        sample : ndarray
            Of a model of pictures ``[H, W, C]``, 0..255, which goes the whole way of a prediction; of a model of
            volumes ``[C, D, H, W]``, which is on the network's own grid and scale.

        Returns
        -------
        ndarray, shape (K, H, W) or (K, D, H, W), float32
        """
        values = sample.astype(np.float32)
        if isinstance(self.preprocessing, VolumePreprocessing):
            return np.asarray(forward(values[None])[0])
        return segment(forward, values, self.preprocessing, self.plan)


def to_json(description: Description, parity: Parity) -> dict[str, Any]:
    """The content of ``bundle.json``."""
    preprocessing = description.preprocessing
    return {
        "version": BUNDLE_VERSION,
        "dimensions": description.dimensions,
        **asdict(description),
        "labels": [label.to_json() for label in description.labels],
        "preprocessing": [{"type": "VolumePreprocessing", **preprocessing.spec}]
        if isinstance(preprocessing, VolumePreprocessing)
        else preprocessing.specs,
        "parity": asdict(parity),
    }


def from_json(content: Mapping[str, Any]) -> tuple[Description, Parity]:
    """What :func:`to_json` was given; of earlier bundles, with what these lack.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError, MedsegError
        It is something else.
    """
    if content["version"] == 2:
        content = {**_SINCE_VERSION_2, **content}
    content = {**_SINCE_VERSION_3, **content}
    require_kinds(content)
    values = {field.name: content[field.name] for field in fields(Description)}
    for name in ("channel_windows", "picture_windows"):
        values[name] = tuple(Window(**one) for one in values[name])
    values["labels"] = LabelSet(tuple(map(Label.from_json, values["labels"])))
    values["postprocessing"] = tuple(values["postprocessing"])
    rules_from_specs(values["postprocessing"], values["labels"])
    values["window"] = None if values["window"] is None else Window(**values["window"])
    values["plan"] = InferencePlan(**values["plan"])
    read = {2: _of_pictures, 3: _of_volumes}[content["dimensions"]]
    values["preprocessing"], values["trained_on"] = read(values["preprocessing"], values["trained_on"])
    description, parity = Description(**values), content["parity"]
    slices = 2 * description.neighbours + 1
    if description.in_channels % slices:
        raise ValueError(f"{description.in_channels} channels for {slices} slices")
    if len(description.plan.tile) != description.dimensions:
        raise ValueError(
            f"tiles of {len(description.plan.tile)} sides for {description.dimensions} dimensions"
        )
    shapes = tuple(tuple(shape) for shape in parity["shapes"])
    return description, Parity(shapes, parity["max_difference"], parity["differing_pixels"])


def _of_pictures(
    specs: list[dict[str, Any]], trained_on: dict[str, Any] | None
) -> tuple[Preprocessing, Acquisition | None]:
    seen = None
    if trained_on is not None:
        between = trained_on.get("between")  # earlier bundles do not say
        seen = Acquisition(
            planes=tuple(trained_on["planes"]),
            units=tuple(trained_on["units"]),
            rows=SpacingRange(**trained_on["rows"]),
            columns=SpacingRange(**trained_on["columns"]),
            between=SpacingRange(**between) if between is not None else None,
        )
    return Preprocessing.from_specs(specs), seen


def _of_volumes(
    specs: list[dict[str, Any]], trained_on: dict[str, Any] | None
) -> tuple[VolumePreprocessing, VolumeAcquisition | None]:
    (spec,) = specs
    seen = None
    if trained_on is not None:
        slices, rows, columns = (SpacingRange(**one) for one in trained_on["spacing"])
        seen = VolumeAcquisition(
            tuple(trained_on["units"]), (slices, rows, columns), float(trained_on["tilt"])
        )
    return VolumePreprocessing.from_spec(spec), seen
