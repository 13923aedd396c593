"""Random numbers of a training.

Images, their order and their augmentation follow from the seed and the position in the stream (`data.py`). What
the network draws, for dropout, follows from the seed and the iteration. So neither has a state to be saved.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import paddle

_OF_ITERATIONS = 3  # apart from what data.py draws with the same seed


def seed_everything(seed: int) -> None:
    """Seed the global generators of Paddle, Python and numpy, before the network is built."""
    paddle.seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (PaddleSeg's and Paddle's code draw from it)


def seed_iteration(seed: int, iteration: int, rank: int = 0) -> None:
    """Let what the network draws in an iteration depend on the seed and the iteration alone.

    And on the process, of several that train together: their images are not to lose the same parts.

    Not Python's and numpy's generators: without processes that load images, a thread of this one seeds them
    for each image.
    """
    sequence = np.random.SeedSequence([seed, _OF_ITERATIONS, iteration, *[rank] * (rank > 0)])
    paddle.seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))


class GlobalGenerators:
    """The state of Python's and numpy's global generators, saved for code that draws from them in the loop."""

    def state_dict(self) -> dict[str, Any]:
        """See :class:`medseg_paddle.engine.checkpoints.StatefulPart`."""
        return {"python": random.getstate(), "numpy": np.random.get_state()}  # noqa: NPY002

    def set_state_dict(self, state: dict[str, Any]) -> None:
        """See :class:`medseg_paddle.engine.checkpoints.StatefulPart`."""
        random.setstate(state["python"])
        np.random.set_state(state["numpy"])  # noqa: NPY002
