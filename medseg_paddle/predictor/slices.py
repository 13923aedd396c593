"""Volumes through a model of pictures, slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Acquisition, LabelMap, Volume
from medseg_paddle.description import Description, Window
from medseg_paddle.errors import ModelError
from medseg_paddle.predictor.answer import OnPart
from medseg_paddle.preprocess.acquisition import order_as_trained
from medseg_paddle.preprocess.orientation import Upright
from medseg_paddle.preprocess.postprocessing import Rule, classes_of, cleaned
from medseg_paddle.preprocess.window import window_to_uint8, window_to_uint16


def segment_slices(
    network: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    volumes: Sequence[Volume],
    description: Description,
    rules: Sequence[Rule],
    *,
    probabilities: bool,
    on_part: OnPart | None,
) -> tuple[LabelMap, NDArray[np.float32] | None]:
    """Segment a volume, or those of all channels on one grid, in the slices that the model learned.

    Postprocessing goes by the slices as the network sees them, upright and one after the other: as in evaluation.

    Parameters
    ----------
    network : callable
        Picture ``[H, W, C]``, 0..255, to probabilities ``[K, H, W]``.
    volumes : sequence of Volume
    description : Description
    rules : sequence of Rule
    probabilities : bool
        Keep them.
    on_part : callable, optional

    Returns
    -------
    LabelMap, ndarray or None
        On the first volume's geometry; probabilities ``[K, slices, rows, columns]``.

    Raises
    ------
    DataError
        The volume's units, plane or spacing are none that the model learned.
    ModelError
        The bundle has no window for volumes.
    """
    if description.window is None and not description.channel_windows:
        raise ModelError(
            f"bundle '{description.name}' segments pictures, it has no window for volumes",
            hint="give pictures; or prepare volumes by a recipe with `prepare.window`, train and export",
        )
    first, trained_on = volumes[0], description.trained_on
    order = order_as_trained(first, trained_on) if isinstance(trained_on, Acquisition) else (0, 1, 2)
    cut, stored = [volume.transposed(order) for volume in volumes], np.argsort(order)
    geometry = cut[0].geometry
    upright, total = Upright.of(geometry), geometry.shape[0]
    planes, every = [], []
    for done, picture in enumerate(_pictures(cut, upright, description), start=1):
        found = network(picture)
        planes.append(classes_of(found, description.labels, rules))
        if probabilities:
            every.append(upright.undo(found))
        if on_part is not None:
            on_part(done, total)
    spacing = (geometry.spacing[0], *upright.spacing(geometry))
    answer = upright.undo(cleaned(np.stack(planes), description.labels, rules, spacing))
    return (
        LabelMap(np.ascontiguousarray(answer.transpose(stored)), first.geometry, description.labels),
        np.stack(every, axis=1).transpose(0, *(1 + stored)) if probabilities else None,
    )


def _pictures(
    volumes: Sequence[Volume], upright: Upright, description: Description
) -> Iterator[NDArray[np.float32]]:
    """Turn the slices into the pictures that `medseg prepare` makes of them."""
    windows = description.channel_windows or (description.window,)
    for place in range(len(volumes[0].array)):
        planes = [
            _grey(upright.apply(volume.array[place]), window)
            for volume, window in zip(volumes, windows, strict=True)
            if window is not None
        ]
        picture = np.stack(planes, axis=-1)
        # One volume for a model of colour is repeated, as grey pictures are.
        yield picture if len(planes) > 1 else picture.repeat(description.in_channels, axis=2)


def _grey(values: NDArray[Any], window: Window) -> NDArray[np.float32]:
    """Numbers of a volume on the 0..255 scale."""
    if window.bits == 16:
        deep = window_to_uint16(values, window.level, window.width)
        return np.asarray(deep / np.float32(257), dtype=np.float32)
    return window_to_uint8(values, window.level, window.width).astype(np.float32)
