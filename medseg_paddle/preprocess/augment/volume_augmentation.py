"""From the words of a recipe to patches of volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess import specs as spec_of
from medseg_paddle.preprocess.augment.volume_foreground import ForegroundVoxels
from medseg_paddle.preprocess.augment.volume_intensity import RandomVolumeIntensity
from medseg_paddle.preprocess.augment.volume_patch import RandomVolumePatch

VOLUME_TRANSFORMS: dict[str, type[RandomVolumePatch | RandomVolumeIntensity]] = {
    "RandomVolumeIntensity": RandomVolumeIntensity,
    "RandomVolumePatch": RandomVolumePatch,
}
"""What a recipe of a network for volumes may name under ``train_dataset.transforms``, after the preprocessing."""


@dataclass(frozen=True)
class VolumeAugmentation:
    """What a network for volumes is shown of a preprocessed case.

    Attributes
    ----------
    cut : RandomVolumePatch
    changes : tuple of RandomVolumeIntensity
        Made on the patch, one after the other.
    ignore_index : int
        Label value that is neither learned nor scored.
    """

    cut: RandomVolumePatch
    changes: tuple[RandomVolumeIntensity, ...] = ()
    ignore_index: int = 255

    @classmethod
    def from_specs(cls, specs: Sequence[Mapping[str, Any]], *, ignore_index: int) -> VolumeAugmentation:
        """Build it from what stands after ``VolumePreprocessing`` in a recipe.

        Parameters
        ----------
        specs : sequence of mapping
            One ``RandomVolumePatch``, then any number of ``RandomVolumeIntensity``.
        ignore_index : int

        Raises
        ------
        RecipeError
            They are others, in another order, or have wrong values.
        """
        built = [spec_of.build(spec, VOLUME_TRANSFORMS) for spec in specs]
        cut, changes = (built[0], built[1:]) if built else (None, [])
        if not isinstance(cut, RandomVolumePatch):
            raise RecipeError(
                "after VolumePreprocessing a RandomVolumePatch is needed: it says what a network learns from at once",
                hint="add `- {type: RandomVolumePatch, size: [slices, rows, columns]}` there",
            )
        intensities = tuple(change for change in changes if isinstance(change, RandomVolumeIntensity))
        if len(intensities) < len(changes):
            raise RecipeError("there are two RandomVolumePatch", hint="remove one of them")
        return cls(cut, intensities, ignore_index)

    @property
    def size(self) -> tuple[int, int, int]:
        """Slices, rows and columns of every patch."""
        return self.cut.size

    def patch(
        self,
        image: NDArray[np.float32],
        label: NDArray[np.uint8],
        foreground: ForegroundVoxels,
        rng: np.random.Generator,
        *,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Draw a patch; everything comes from `rng`, so that the same state of it gives the same bits.

        Parameters
        ----------
        image : ndarray, shape (channels, d, h, w), float32
            Normalised; may be memory-mapped, is not changed.
        label : ndarray, shape (d, h, w), uint8
            Likewise.
        foreground : ForegroundVoxels
            Of this label.
        rng : Generator
        spacing : three floats
            Of the voxels, in mm; what an angle means depends on it.

        Returns
        -------
        ndarray, shape (channels, *size), float32, and ndarray, shape size, uint8
            Contiguous; the caller's own.
        """
        place = self.cut.draw(label.shape, foreground, rng, spacing=spacing)
        patch, mask = place.cut(image, label, ignore_index=self.ignore_index)
        for change in self.changes:
            patch = change(patch, rng)
        return patch, mask
