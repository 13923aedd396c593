"""What a prediction gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import LabelMap

OnPart = Callable[[int, int], None]
"""Called with the number of parts (slices, tiles) that are done, and their total."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """An answer, on the pixels or voxels of the source.

    Attributes
    ----------
    labels : ndarray or LabelMap
        Of a picture: class indices ``[H, W]``; of a volume: a label map on the volume's geometry.
        uint8, or uint16 for more than 256 classes.
    probabilities : ndarray or None
        On request: ``[K, H, W]`` or ``[K, slices, rows, columns]`` float32. They are the network's own: what
        postprocessing changes, it changes in the labels.
    bundle_id : str
        Which bundle answered.
    seconds : float
        Time the prediction took, without reading the file.
    notes : tuple of str
        In what the volume is unlike those that the model learned from, in sentences.
    """

    labels: NDArray[Any] | LabelMap
    probabilities: NDArray[np.float32] | None
    bundle_id: str
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def array(self) -> NDArray[Any]:
        """The class indices alone: ``[H, W]`` or ``[slice, row, column]``."""
        return self.labels.array if isinstance(self.labels, LabelMap) else self.labels
