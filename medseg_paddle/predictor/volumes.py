"""Whole volumes through a 3-D model."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import LabelMap, Volume, VolumeAcquisition
from medseg_paddle.description import Description
from medseg_paddle.errors import MemoryShortError
from medseg_paddle.predictor.answer import OnPart
from medseg_paddle.preprocess import Forward, PreparedVolume, VolumePreprocessing, forecast, segment_volume
from medseg_paddle.preprocess.acquisition import as_trained
from medseg_paddle.preprocess.postprocessing import Rule
from medseg_paddle.preprocess.restoring import Index

_MIB = 2**20

_log = logging.getLogger(__name__)


def segment_whole(
    forward: Forward,
    volumes: Sequence[Volume],
    description: Description,
    preprocessing: VolumePreprocessing,
    rules: Sequence[Rule],
    *,
    probabilities: bool,
    max_memory: int | None,
    on_part: OnPart | None,
) -> tuple[LabelMap, NDArray[np.float32] | None, tuple[str, ...]]:
    """Segment a volume, or those of all channels on one grid, as training's validation and evaluation do.

    Parameters
    ----------
    forward : callable
        The network: NCDHW to probabilities NKDHW, float32.
    volumes : sequence of Volume
    description : Description
    preprocessing : VolumePreprocessing
        That of `description`.
    rules : sequence of Rule
    probabilities : bool
        Keep them.
    max_memory : int, optional
        Bytes that the volumes as they were read and all that is made of them may take, without the network's own.
    on_part : callable, optional

    Returns
    -------
    LabelMap, ndarray or None, tuple of str
        On the first volume's geometry; probabilities ``[K, slices, rows, columns]``; notes.

    Raises
    ------
    DataError
        A volume is unlike those that were learned, see :func:`~medseg_paddle.preprocess.acquisition.as_trained`, or
        cannot be prepared.
    MemoryShortError
        More memory is needed than `max_memory`.
    """
    channels, notes = list(volumes), dict[str, None]()
    if isinstance(description.trained_on, VolumeAcquisition):
        for number, volume in enumerate(volumes):
            channels[number], found = as_trained(volume, preprocessing, description.trained_on)
            notes |= dict.fromkeys(found)
    memory = _Memory(channels, description, rules, probabilities=probabilities, allowed=max_memory)
    if preprocessing.crop == "none":  # its size is known before it is made
        memory.require(_to_be_prepared(channels, preprocessing))
    prepared = preprocessing.forward(channels)
    memory.require(prepared)
    kept: NDArray[np.float32] | None = None
    if probabilities:
        kept = np.empty((len(description.labels), *prepared.source.shape), np.float32)

    def keep(index: Index, part: NDArray[np.float32]) -> None:
        if kept is not None:
            slices, rows, columns = index
            kept[:, slices, rows, columns] = part

    answer = segment_volume(
        forward,
        prepared,
        description.labels,
        description.plan,
        rules,
        on_tile=on_part,
        on_probabilities=keep if probabilities else None,
    )
    return answer, kept, tuple(notes)


class _Memory:
    """What a prediction takes, and may."""

    def __init__(
        self,
        volumes: Sequence[Volume],
        description: Description,
        rules: Sequence[Rule],
        *,
        probabilities: bool,
        allowed: int | None,
    ) -> None:
        self._read = sum(volume.array.nbytes for volume in volumes)
        self._kept = probabilities * 4 * len(description.labels) * volumes[0].array.size
        self._description, self._rules, self._allowed = description, rules, allowed

    def require(self, prepared: PreparedVolume) -> None:
        """Say what segmenting a volume takes, and refuse it where it is too much."""
        description = self._description
        needed = forecast(prepared, description.plan, description.labels, self._rules)
        total = needed.total + self._read + self._kept
        said = (
            f"about {total / _MIB:.0f} MiB without the network's own: {self._read / _MIB:.0f} as read, "
            f"{f'{self._kept / _MIB:.0f} for probabilities, ' if self._kept else ''}then {needed}"
        )
        _log.info("a volume of %s voxels takes %s", " x ".join(map(str, prepared.source.shape)), said)
        if self._allowed is not None and total > self._allowed:
            raise MemoryShortError(
                f"segmenting this volume takes {said}; {self._allowed / _MIB:.0f} MiB are allowed",
                hint="allow more, or cut the volume to what is to be segmented"
                + (", or leave the probabilities out" if self._kept else ""),
            )


def _to_be_prepared(volumes: Sequence[Volume], preprocessing: VolumePreprocessing) -> PreparedVolume:
    """What :meth:`VolumePreprocessing.forward` will make of whole volumes, but for its values, which take no room."""
    source = volumes[0].geometry
    grid = preprocessing.uncropped(source)
    return PreparedVolume(np.broadcast_to(np.float32(0), (len(volumes), *grid.shape)), grid, source)
