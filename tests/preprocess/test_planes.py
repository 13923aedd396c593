"""The last step of a training image against the Normalize that prediction uses."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess.augment.planes import NormalizedPlanes, write_planes
from medseg_paddle.preprocess.deterministic import Normalize


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("exact", [True, False], ids=["numbers of float32", "numbers of float64"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_it_is_normalize_bit_for_bit(channels: int, exact: bool, dtype: type) -> None:
    rng = np.random.default_rng(channels)
    image = rng.integers(0, 256, (37, 70, channels)).astype(dtype)
    if dtype is np.float32:
        image += rng.uniform(-0.5, 0.5, image.shape).astype(np.float32)
    image.flags.writeable = False
    values = (0.5, 0.25, 0.75, 0.5, 0.125) if exact else (0.485, 0.456, 0.406, 0.1, 0.9)
    for normalize in (Normalize(values[:1], values[1:2]), Normalize(values[:channels], values[-channels:])):
        batch = np.full((2, channels, 37, 70), np.nan, np.float32)
        NormalizedPlanes(normalize.mean, normalize.std).write(image, batch[1])
        wanted = normalize.forward(image.astype(np.float32)).transpose(2, 0, 1)
        np.testing.assert_array_equal(batch[1], wanted)
        assert np.isnan(batch[0]).all()


def test_without_normalize_the_values_stay() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    planes = np.empty((3, 2, 4), np.float32)
    write_planes(image, planes)
    np.testing.assert_array_equal(planes, image.transpose(2, 0, 1).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_numbers_for_other_channels_are_refused(dtype: type) -> None:
    with pytest.raises(RecipeError, match="2 numbers"):
        NormalizedPlanes((0.5, 0.5), (1.0,))(np.zeros((4, 4, 3), dtype))
