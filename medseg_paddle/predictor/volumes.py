"""Whole volumes through a 3-D model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import LabelMap, Volume, VolumeAcquisition
from medseg_paddle.description import Description
from medseg_paddle.errors import MemoryShortError
from medseg_paddle.predictor.answer import OnPart
from medseg_paddle.preprocess import Forward, VolumePreprocessing, forecast, segment_volume
from medseg_paddle.preprocess.acquisition import as_trained
from medseg_paddle.preprocess.postprocessing import Rule
from medseg_paddle.preprocess.restoring import Index
from medseg_paddle.preprocess.volumes import StreamedVolume

_MIB = 2**20


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
    on_forecast: Callable[[str], None] | None,
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
    on_forecast : callable, optional
        Called with the memory that is needed, in words, before anything is computed.

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
    size = _Size(channels, description, rules, probabilities=probabilities)
    size.require_region(preprocessing, max_memory)
    with preprocessing.streamed(channels) as prepared:
        said = size.require(prepared, max_memory)
        if on_forecast is not None:
            on_forecast(said)
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


class _Size:
    """What a prediction takes, and may."""

    def __init__(
        self,
        volumes: Sequence[Volume],
        description: Description,
        rules: Sequence[Rule],
        *,
        probabilities: bool,
    ) -> None:
        self._voxels = volumes[0].array.size
        self._read = sum(volume.array.nbytes for volume in volumes)
        self._kept = probabilities * 4 * len(description.labels) * self._voxels
        self._description, self._rules = description, rules

    def require_region(self, preprocessing: VolumePreprocessing, allowed: int | None) -> None:
        """Refuse a volume whose region of interest takes too much to find, before it is looked for."""
        needed = self._read + self._voxels * preprocessing.region_bytes
        if preprocessing.region_bytes:
            self._refuse(needed, f"{needed / _MIB:.0f} MiB to find the region in it", allowed)

    def require(self, prepared: StreamedVolume, allowed: int | None) -> str:
        """What segmenting a volume takes, in words; refuse it where that is too much."""
        description = self._description
        needed = forecast(prepared, description.plan, description.labels, self._rules)
        total = needed.total + self._read + self._kept
        said = (
            f"about {total / _MIB:.0f} MiB beside the network: {self._read / _MIB:.0f} as read, "
            f"{f'{self._kept / _MIB:.0f} for probabilities, ' if self._kept else ''}then {needed}"
        )
        self._refuse(total, said, allowed)
        return f"{' x '.join(map(str, prepared.source.shape))} voxels, {said}"

    def _refuse(self, needed: int, said: str, allowed: int | None) -> None:
        if allowed is not None and needed > allowed:
            raise MemoryShortError(
                f"segmenting this volume takes {said}; {allowed / _MIB:.0f} MiB are allowed",
                hint="allow more, or cut the volume to what is to be segmented"
                + (", or leave the probabilities out" if self._kept else ""),
            )
