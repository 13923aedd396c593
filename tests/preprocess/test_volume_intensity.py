from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.ndimage

from medseg_paddle.config import transforms_3d
from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess.augment.volume_augmentation import VOLUME_TRANSFORMS
from medseg_paddle.preprocess.augment.volume_intensity import RandomVolumeIntensity

NONE = {f"{key}_prob": 0.0 for key in ("noise", "blur", "brightness", "contrast", "low_resolution", "gamma",
                                       "gamma_inverted")}  # fmt: skip


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def patch(shape=(2, 12, 24, 20), seed: int = 0) -> np.ndarray:
    """Smooth structures, normalised."""
    noise = rng(seed).standard_normal(shape)
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 1.5, 1.5, 1.5), mode="wrap")
    return ((smooth - smooth.mean()) / smooth.std()).astype(np.float32)


def only(**keys) -> RandomVolumeIntensity:
    return RandomVolumeIntensity(**{**NONE, **keys})


def test_with_probability_0_nothing_changes_and_nothing_is_drawn():
    generator = rng()
    image = patch()
    result = only()(image, generator)
    np.testing.assert_array_equal(result, image)
    assert not np.shares_memory(result, image)
    assert generator.bit_generator.state == rng().bit_generator.state


def test_noise_has_the_deviation_drawn_for_each_channel():
    image = np.zeros((3, 20, 40, 40), np.float32)
    result = only(noise_prob=1, noise=(0.2, 0.4))(image, rng())
    deviations = result.std(axis=(1, 2, 3))
    assert ((deviations > 0.19) & (deviations < 0.41)).all()
    assert len(set(deviations)) == 3
    assert abs(np.corrcoef(result.reshape(3, -1)) - np.eye(3)).max() < 0.03


@pytest.mark.parametrize("shape", [(1, 9, 16, 14), (2, 1, 5, 7), (1, 2, 3, 40)])
def test_blur_is_scipys_along_each_axis(shape):
    image = rng().standard_normal(shape, dtype=np.float32)
    result = only(blur_prob=1, blur=(0.7, 0.7), channel_prob=1)(image, rng())
    for channel, found in zip(image, result, strict=True):
        radius = math.ceil(4 * 0.7)
        expected = channel.astype(float)
        for axis, side in enumerate(channel.shape):
            if side > 1:
                expected = scipy.ndimage.gaussian_filter1d(expected, 0.7, axis, mode="mirror", radius=radius)
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_brightness_multiplies_each_channel_by_its_own_factor():
    image = patch()
    result = only(brightness_prob=1, brightness=(0.5, 2))(image, rng(1))
    factors = result / image
    for channel in factors:
        np.testing.assert_allclose(channel, channel[0, 0, 0], rtol=1e-5)
    assert factors[0, 0, 0, 0] != factors[1, 0, 0, 0]


def test_factors_lie_below_1_as_often_as_above():
    image = np.ones((1, 1, 1, 1), np.float32)
    change = only(brightness_prob=1, brightness=(0.9, 3))
    generator = rng()
    factors = np.array([change(image, generator).item() for _ in range(1000)])
    assert factors.min() >= 0.9
    assert factors.max() <= 3
    assert 421 < (factors < 1).sum() < 579  # five deviations
    assert ((only(brightness_prob=1, brightness=(2, 3))(image, rng())) >= 2).all()


def test_contrast_keeps_mean_and_range():
    image = patch((1, 12, 24, 20))
    wide = only(contrast_prob=1, contrast=(1.5, 1.5))(image, rng())
    expected = np.clip((image - image.mean()) * 1.5 + image.mean(), image.min(), image.max())
    np.testing.assert_allclose(wide, expected, atol=1e-5)
    narrow = only(contrast_prob=1, contrast=(0.5, 0.5))(image, rng())
    assert narrow.mean() == pytest.approx(image.mean(), abs=1e-5)
    assert narrow.std() == pytest.approx(image.std() / 2, rel=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_gamma_is_a_power_that_keeps_mean_and_deviation(sign):
    image = patch((1, 12, 24, 20))
    key = "gamma_prob" if sign > 0 else "gamma_inverted_prob"
    result = only(**{key: 1}, gamma=(1.5, 1.5))(image, rng())
    x = sign * image.astype(float)
    power = ((x - x.min()) / (x.max() - x.min())) ** 1.5
    expected = sign * ((power - power.mean()) / power.std() * x.std() + x.mean())
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_low_resolution_does_not_move_the_patch_and_takes_what_is_fine():
    places = np.arange(16.0) - 7.5
    ramp = (places[:, None, None] * 4 + places[:, None] * 2 + places).astype(np.float32)[None]
    result = only(low_resolution_prob=1, low_resolution=(0.5, 0.5), channel_prob=1)(ramp, rng())
    # Areas and lines keep a ramp, but in the outer voxel, which takes the mean of the last two, half a step inside.
    np.testing.assert_allclose(result[:, 1:-1, 1:-1, 1:-1], ramp[:, 1:-1, 1:-1, 1:-1], atol=1e-5)
    fine = np.where(np.indices((16, 16, 16)).sum(axis=0) % 2, 1, -1).astype(np.float32)[None]
    np.testing.assert_allclose(
        only(low_resolution_prob=1, low_resolution=(0.5, 0.5), channel_prob=1)(fine, rng()), 0, atol=1e-6
    )


def test_resolution_is_lost_along_the_named_axes_only():
    image = rng().standard_normal((1, 10, 16, 1)).astype(np.float32) * np.ones((1, 1, 1, 12), np.float32)
    change = only(low_resolution_prob=1, low_resolution=(0.5, 0.5), low_resolution_axes=[2], channel_prob=1)
    np.testing.assert_allclose(change(image, rng()), image, atol=1e-6)
    across = only(low_resolution_prob=1, low_resolution=(0.5, 0.5), low_resolution_axes=[0], channel_prob=1)
    pairs = image.reshape(1, 5, 2, 16, 12).mean(axis=2)
    np.testing.assert_allclose(across(image, rng())[:, 0], pairs[:, 0], atol=1e-5)


def test_channels_are_hit_by_themselves():
    image = patch((400, 2, 3, 3))
    result = only(blur_prob=1, blur=(1, 1), channel_prob=0.3)(image, rng())
    assert abs((result != image).any(axis=(1, 2, 3)).sum() - 120) < 5 * math.sqrt(400 * 0.3 * 0.7)


@pytest.mark.parametrize("value", [0.0, 3.0, -1000.1])
def test_a_constant_patch_stays_finite_and_keeps_its_value(value):
    image = np.full((2, 3, 5, 4), value, np.float32)
    change = RandomVolumeIntensity(
        **{**dict.fromkeys(NONE, 1.0), "noise_prob": 0, "brightness_prob": 0}, channel_prob=1
    )
    for seed in range(10):
        np.testing.assert_allclose(change(image, rng(seed)), value, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 9, 2), (3, 7, 1, 5), (2, 33, 17, 9)])
def test_everything_at_once_is_finite_and_repeats(shape):
    change = RandomVolumeIntensity(**dict.fromkeys(NONE, 1.0), channel_prob=1)
    image = rng(3).standard_normal(shape, dtype=np.float32) * 1000
    image.setflags(write=False)
    for seed in range(10):
        first, second = change(image, rng(seed)), change(image, rng(seed))
        np.testing.assert_array_equal(first, second)
        assert np.isfinite(first).all()
        assert first.dtype == np.float32
        assert first.shape == shape


def test_each_change_is_as_frequent_as_asked():
    image = patch((1, 2, 4, 4))
    for key in NONE:
        change = only(**{key: 0.3}, channel_prob=1, noise=(1, 1), low_resolution=(0.5, 0.5), blur=(1, 1))
        generator = rng()
        hits = sum((change(image, generator) != image).any() for _ in range(300))
        assert abs(hits - 90) < 5 * math.sqrt(300 * 0.3 * 0.7), key


@pytest.mark.parametrize("name", VOLUME_TRANSFORMS)
def test_the_recipes_words_have_the_keys_and_defaults_of_what_they_stand_for(name):
    spec, ours = getattr(transforms_3d, name), VOLUME_TRANSFORMS[name]
    expected = {field.name: field.default for field in dataclasses.fields(ours)}
    found = {key: field for key, field in spec.model_fields.items() if key != "type"}
    assert set(found) == set(expected)
    for key, field in found.items():
        if expected[key] is dataclasses.MISSING:
            assert field.is_required()
        else:
            assert field.default == expected[key], key
    needed = {"size": [4, 5, 6]} if "size" in found else {}
    word = spec(type=name, **needed)
    assert dataclasses.asdict(ours(**word.model_dump(exclude={"type"}))) == word.model_dump(exclude={"type"})


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"noise": [0.2, 0.1]}, "noise must be"),
        ({"blur": [0, 1]}, "blur must be"),
        ({"low_resolution": [0.5, 1.5]}, "low_resolution must be"),
        ({"low_resolution_axes": [0, 0]}, "low_resolution_axes must be"),
        ({"gamma": [0, 1]}, "gamma must be"),
        ({"gamma_prob": 1.5}, "gamma_prob must be"),
    ],
)
def test_wrong_values_are_refused(keys, words):
    with pytest.raises(RecipeError) as error:
        RandomVolumeIntensity(**keys)
    assert words in error.value.message
    with pytest.raises(ValueError, match=next(iter(keys))):
        transforms_3d.RandomVolumeIntensity(type="RandomVolumeIntensity", **keys)
