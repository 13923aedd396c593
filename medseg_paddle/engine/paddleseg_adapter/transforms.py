"""The transforms that a recipe names, PaddleSeg's and ours, as one deterministic function."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddleseg.transforms  # noqa: F401  (registers PaddleSeg's transforms with the manager)
from numpy.typing import NDArray

from medseg_paddle.config.base import component_arguments
from medseg_paddle.config.transforms import Transform
from medseg_paddle.engine.paddleseg_adapter import manager
from medseg_paddle.preprocess.augment import TRAIN_TRANSFORMS, RandomAffinePatch

# Transforms after which all images have one size, so that they can be stacked to a batch.
FIXED_SIZE = frozenset(
    {"Resize", "Padding", "RandomPaddingCrop", "ScalePadding", "RandomAffine", "RandomAffinePatch"}
)


class TrainingTransform:
    """Image and label through a recipe's transforms.

    PaddleSeg's transforms draw from the global generators of `random` and numpy; these are seeded from
    `rng` before each call, so that a draw depends on nothing but `rng`.
    """

    def __init__(self, specs: Sequence[Transform]) -> None:
        self._steps: list[tuple[bool, Any]] = []
        for spec in specs:
            arguments = component_arguments(spec)
            ours = TRAIN_TRANSFORMS.get(spec.type)
            if ours is not None:
                self._steps.append((True, ours(**arguments)))
            else:
                arguments = {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()}
                self._steps.append((False, manager.TRANSFORMS[spec.type](**arguments)))

    def __call__(
        self,
        image: NDArray[np.float32],
        label: NDArray[Any],
        rng: np.random.Generator,
        foreground: NDArray[Any],
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """CHW float32 image and HW int64 label from an HWC 0..255 image and its HW label."""
        for number, (ours, step) in enumerate(self._steps):
            if isinstance(step, RandomAffinePatch):
                # After another transform the pixels found in the stored label are no longer the right ones.
                image, label = step(image, label, rng, foreground=None if number else foreground)
            elif ours:
                image, label = step(image, label, rng)
            else:
                seed = int(rng.integers(2**32))
                random.seed(seed)
                np.random.seed(seed)  # noqa: NPY002  (PaddleSeg draws from it)
                data = step({"img": image, "label": label, "gt_fields": ["label"], "trans_info": []})
                image, label = data["img"], data["label"]
        if image.ndim == 2:  # OpenCV drops a single channel
            image = image[:, :, None]
        chw = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
        return chw, np.ascontiguousarray(label, dtype=np.int64)
