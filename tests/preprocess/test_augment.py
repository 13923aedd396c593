from __future__ import annotations

import numpy as np
import pytest

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess import TRAIN_TRANSFORMS, foreground_indices
from medseg_paddle.preprocess.augment import (
    ElasticDeformation,
    RandomAffinePatch,
    RandomChannelDrop,
    RandomCutout,
    RandomGaussianBlur,
    RandomIntensity,
    RandomLowResolution,
)

ROWS, COLUMNS = 60, 80
ALL = [
    RandomAffinePatch(
        size=(32, 24), rotation=180, scale=(0.7, 1.4), flip_horizontal=0.5, rotate90=0.5, foreground=0.5
    ),
    RandomIntensity(brightness=0.2, contrast=0.3, gamma=0.4, noise=0.1),
    ElasticDeformation(alpha=3, sigma=6, prob=1.0),
    RandomGaussianBlur(sigma=(0.5, 2), prob=1.0),
    RandomLowResolution(zoom=(0.3, 0.6), prob=1.0),
    RandomChannelDrop(prob=1.0),
    RandomCutout(holes=(1, 3), prob=1.0),
]
ids = [type(transform).__name__ for transform in ALL]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def coordinates() -> tuple[np.ndarray, np.ndarray]:
    """Image whose channels are row and column, label that numbers the pixels."""
    rows, columns = np.mgrid[0:ROWS, 0:COLUMNS]
    image = np.stack([rows, columns], axis=-1).astype(np.float32)
    return image, (rows * COLUMNS + columns).astype(np.uint16)


def blobs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = rng(seed)
    image = generator.uniform(0, 255, (ROWS, COLUMNS, 3)).astype(np.float32)
    label = np.zeros((ROWS, COLUMNS), np.uint8)
    label[30:34, 50:55] = 1
    return image, label


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize(
    "transform",
    [
        ALL[0],
        RandomAffinePatch(size=(17, 31), rotation=45, scale=(0.5, 2), flip_vertical=0.5, foreground=1.0),
        ElasticDeformation(alpha=2, sigma=5, prob=1.0),
    ],
    ids=["square", "odd", "elastic"],
)
def test_image_and_label_move_together(transform, seed):
    image, label = transform(*coordinates(), rng(seed))
    rows, columns = np.divmod(label.astype(int), COLUMNS)
    inside = (rows > 1) & (rows < ROWS - 2) & (columns > 1) & (columns < COLUMNS - 2)
    assert inside.any()
    # The label is the nearest pixel to the place that the image shows.
    assert np.abs(image[..., 0] - rows)[inside].max() <= 0.5 + 0.02
    assert np.abs(image[..., 1] - columns)[inside].max() <= 0.5 + 0.02


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("transform", ALL, ids=ids)
def test_inputs_stay_and_the_same_generator_gives_the_same_answer(transform, kind):
    image, label = blobs()
    image = image.astype(kind)
    image.setflags(write=False)
    label.setflags(write=False)
    first, second = transform(image, label, rng(3)), transform(image, label, rng(3))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert any((transform(image, label, rng(seed))[0] != first[0]).any() for seed in (4, 5, 6))


@pytest.mark.parametrize(
    "transform",
    [
        RandomIntensity(),
        RandomIntensity(brightness=1, contrast=1, gamma=1, noise=1, brightness_prob=0, contrast_prob=0,
                        gamma_prob=0, noise_prob=0),
        ElasticDeformation(3, 6, 0.0),
        RandomGaussianBlur(prob=0.0),
        RandomGaussianBlur(prob=0.0, per_channel=True),
        RandomLowResolution(prob=0.0),
        RandomChannelDrop(prob=0.0),
        RandomCutout(prob=0.0),
        RandomAffinePatch((ROWS, COLUMNS), rotation=90, scale=(2, 3), shift=9, rotation_prob=0, scale_prob=0,
                          shift_prob=0),
    ],
    ids=lambda transform: type(transform).__name__,
)  # fmt: skip
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_transform_with_probability_0_changes_nothing(transform, kind):
    image, label = blobs()
    image = image.astype(kind)
    for seed in range(5):
        new_image, new_label = transform(image, label, rng(seed))
        np.testing.assert_allclose(new_image, image, atol=1e-4)
        np.testing.assert_array_equal(new_label, label)


@pytest.mark.parametrize("pixel", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 32])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.int64])
@pytest.mark.parametrize("transform", ALL, ids=ids)
def test_shapes_and_types(transform, channels, kind, pixel):
    image = np.full((ROWS, COLUMNS, channels), 100, pixel)
    label = np.full((ROWS, COLUMNS), 2, kind)
    new_image, new_label = transform(image, label, rng())
    size = transform.size if isinstance(transform, RandomAffinePatch) else (ROWS, COLUMNS)
    assert new_image.shape == (*size, channels)
    assert new_image.dtype == (np.float32 if isinstance(transform, RandomIntensity) else pixel)
    assert new_label.shape == size
    assert new_label.dtype == kind
    assert (new_label == 2).all()


@pytest.mark.parametrize("seed", range(10))
def test_without_turn_and_scale_a_patch_is_a_plain_copy(seed):
    image, _ = blobs(seed)
    numbers = np.arange(ROWS * COLUMNS, dtype=np.uint16).reshape(ROWS, COLUMNS)
    patch, where = RandomAffinePatch(size=(20, 31))(image, numbers, rng(seed))
    row, column = divmod(int(where[0, 0]), COLUMNS)
    np.testing.assert_array_equal(where, numbers[row : row + 20, column : column + 31])
    np.testing.assert_allclose(patch, image[row : row + 20, column : column + 31], atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"flip_horizontal": 1.0}, {"flip horizontal"}),
        ({"flip_vertical": 1.0}, {"flip vertical"}),
        ({"rotate90": 1.0}, {"turn 1", "turn 2", "turn 3"}),
    ],
)
@pytest.mark.parametrize("side", [24, 25])
def test_flips_and_quarter_turns_of_a_whole_image_are_exact(arguments, expected, side):
    image = rng(1).uniform(0, 255, (side, side, 1)).astype(np.float32)
    label = np.arange(side * side, dtype=np.uint16).reshape(side, side)
    known = {
        "same": label,
        "flip horizontal": label[:, ::-1],
        "flip vertical": label[::-1],
        **{f"turn {k}": np.rot90(label, k) for k in (1, 2, 3)},
    }
    seen = set()
    for seed in range(20):
        patch, where = RandomAffinePatch(size=(side, side), **arguments)(image, label, rng(seed))
        names = [name for name, array in known.items() if np.array_equal(array, where)]
        assert len(names) == 1
        seen.add(names[0])
        np.testing.assert_allclose(patch[..., 0], image.reshape(-1)[where], atol=1e-3)
    assert seen == expected


def test_a_quarter_turn_of_an_oblong_patch_is_exact():
    image, numbers = coordinates()
    for seed in range(10):
        _, where = RandomAffinePatch(size=(10, 21), rotate90=1.0)(image, numbers, rng(seed))
        rows, columns = np.divmod(where.astype(int), COLUMNS)
        box = (np.ptp(rows) + 1, np.ptp(columns) + 1)
        assert box in {(10, 21), (21, 10)}
        assert len(np.unique(where)) == 210


def test_a_turn_has_the_angle_and_a_scale_the_size_that_was_asked_for():
    image, numbers = coordinates()
    angles, sizes = [], []
    for seed in range(200):
        patch, _ = RandomAffinePatch(size=(9, 9), rotation=30, scale=(2, 4))(image, numbers, rng(seed))
        along = patch[4, 7] - patch[4, 1]  # rows, columns moved in the source for 6 pixels in the patch
        angles.append(np.degrees(np.arctan2(along[0], along[1])))
        sizes.append(6 / np.hypot(*along))
    assert -30.5 < min(angles) < -25
    assert 25 < max(angles) < 30.5
    assert 1.95 < min(sizes) < 2.1
    assert 3.8 < max(sizes) < 4.1


@pytest.mark.parametrize("seed", range(15))
def test_patches_lie_inside_the_image_where_they_fit(seed):
    label = np.arange(ROWS * COLUMNS, dtype=np.uint16).reshape(ROWS, COLUMNS)
    _, where = RandomAffinePatch(size=(ROWS, 70))(np.zeros((ROWS, COLUMNS, 1), np.float32), label, rng(seed))
    assert len(np.unique(where)) == ROWS * 70


def test_every_place_is_reached():
    numbers = np.arange(100, dtype=np.uint16).reshape(10, 10)
    image = np.zeros((10, 10, 1), np.float32)
    transform = RandomAffinePatch(size=(4, 5))
    corners = {int(transform(image, numbers, rng(seed))[1][0, 0]) for seed in range(600)}
    assert corners == {row * 10 + column for row in range(7) for column in range(6)}


@pytest.mark.parametrize("precomputed", [True, False])
@pytest.mark.parametrize(
    "arguments", [{}, {"rotation": 180, "scale": (0.5, 2), "flip_horizontal": 0.5, "rotate90": 0.5}]
)
def test_foreground_patches_have_foreground_in_the_centre(arguments, precomputed):
    image, label = blobs()
    pixels = foreground_indices(label) if precomputed else None
    transform = RandomAffinePatch(size=(24, 24), foreground=1.0, **arguments)
    for seed in range(40):
        _, patch = transform(image, label, rng(seed), pixels)
        assert patch[11:13, 11:13].any()


@pytest.mark.parametrize("seed", range(12))
def test_an_odd_patch_has_the_foreground_pixel_in_the_very_centre_however_it_is_turned(seed):
    image, numbers = coordinates()
    transform = RandomAffinePatch(
        size=(11, 21), rotation=90, flip_horizontal=0.5, flip_vertical=0.5, rotate90=1.0, foreground=1.0
    )
    _, where = transform(image, numbers, rng(seed), np.array([[25, 40]]))
    assert where[5, 10] == 25 * COLUMNS + 40


def test_the_share_of_foreground_patches_is_as_asked():
    label = np.zeros((200, 200), np.uint8)
    label[0, 0] = 1  # in the corner: only a patch that is centred on it shows it in the centre
    image, transform = np.zeros((200, 200, 1), np.float32), RandomAffinePatch(size=(8, 8), foreground=0.3)
    generator, pixels = rng(), foreground_indices(label)
    hits = sum(bool(transform(image, label, generator, pixels)[1][4, 4]) for _ in range(1000))
    assert 250 < hits < 350


def test_the_precomputed_pixels_are_used_and_not_the_mask():
    image, label = blobs()
    _, patch = RandomAffinePatch(size=(5, 5), foreground=1.0)(
        image, np.arange(ROWS * COLUMNS, dtype=np.uint16).reshape(label.shape), rng(), np.array([[7, 9]])
    )
    assert patch[2, 2] == 7 * COLUMNS + 9


def test_an_image_without_foreground_gives_patches_from_anywhere():
    image, _ = blobs()
    _, patch = RandomAffinePatch(size=(8, 8), foreground=1.0)(
        image, np.zeros((ROWS, COLUMNS), np.uint8), rng()
    )
    assert patch.shape == (8, 8)


def test_ignored_pixels_are_no_foreground():
    label = np.array([[0, 255, 2], [1, 0, 255]], np.uint8)
    assert foreground_indices(label).tolist() == [[0, 2], [1, 0]]
    assert foreground_indices(label, ignore_index=1).tolist() == [[0, 1], [0, 2], [1, 2]]


def test_beyond_the_border_is_the_reflection_or_ignored():
    image, label = np.full((6, 6, 1), 80, np.float32), np.ones((6, 6), np.uint8)
    reflected = RandomAffinePatch(size=(16, 16))(image, label, rng())
    assert (reflected[0] == 80).all()
    assert (reflected[1] == 1).all()
    ignored = RandomAffinePatch(size=(16, 16), border="ignore")(image, label, rng())
    assert (ignored[1] == 255).sum() == 256 - 36
    assert (ignored[0][..., 0][ignored[1] == 255] == 0).all()


def test_intensity_stays_in_range_and_leaves_the_label():
    image, label = blobs()
    transform = RandomIntensity(brightness=0.8, contrast=3, gamma=2, noise=0.5, per_channel=True)
    for seed in range(10):
        changed, same = transform(image, label, rng(seed))
        assert changed.min() >= 0
        assert changed.max() <= 255
        np.testing.assert_array_equal(same, label)


def test_brightness_shifts_contrast_keeps_the_mean_gamma_keeps_the_ends():
    grey, label = np.full((8, 8, 1), 127.5, np.float32), np.zeros((8, 8), np.uint8)
    shifts = [RandomIntensity(brightness=0.1)(grey, label, rng(s))[0][0, 0, 0] - 127.5 for s in range(200)]
    assert -25.51 < min(shifts) < -23
    assert 23 < max(shifts) < 25.51

    steps = np.array([[[100.0], [120.0], [140.0]]], np.float32)
    spread = [RandomIntensity(contrast=0.5)(steps, label[:1, :3], rng(s))[0] for s in range(200)]
    factors = [float(image[0, 2, 0] - image[0, 0, 0]) / 40 for image in spread]
    assert 1 / 1.5 - 0.01 < min(factors) < 0.7
    assert 1.45 < max(factors) < 1.51
    assert all(abs(image.mean() - 120) < 0.01 for image in spread)

    ends = np.array([[[0.0], [127.5], [255.0]]], np.float32)
    curves = np.array(
        [RandomIntensity(gamma=1.0)(ends, label[:1, :3], rng(s))[0].ravel() for s in range(200)]
    )
    np.testing.assert_allclose(curves[:, [0, 2]], [[0, 255]] * 200, atol=1e-3)
    exponents = np.log(curves[:, 1] / 255) / np.log(0.5)
    assert 0.49 < exponents.min() < 0.55
    assert 1.8 < exponents.max() < 2.01


def test_noise_has_at_most_the_deviation_asked_for():
    grey, label = np.full((64, 64, 1), 127.5, np.float32), np.zeros((64, 64), np.uint8)
    deviations = [RandomIntensity(noise=0.1)(grey, label, rng(s))[0].std() / 255 for s in range(60)]
    assert min(deviations) < 0.02
    assert 0.09 < max(deviations) < 0.104


def test_channels_change_together_unless_asked_otherwise():
    grey, label = np.full((8, 8, 3), 127.5, np.float32), np.zeros((8, 8), np.uint8)
    together = RandomIntensity(brightness=0.2)(grey, label, rng())[0][0, 0]
    apart = RandomIntensity(brightness=0.2, per_channel=True)(grey, label, rng())[0][0, 0]
    assert len(set(together.tolist())) == 1
    assert len(set(apart.tolist())) == 3


def test_elastic_shifts_have_the_size_asked_for_and_are_smooth():
    rows, columns = np.mgrid[0:200, 0:200]
    image = np.stack([rows, columns], axis=-1).astype(np.float32)
    moved, _ = ElasticDeformation(alpha=4, sigma=10, prob=1.0)(image, np.zeros((200, 200), np.uint8), rng())
    shift = (moved - image)[20:-20, 20:-20]
    assert 2.5 < np.sqrt(np.mean(shift**2)) < 5.5
    assert np.abs(np.diff(shift, axis=0)).max() < 2


@pytest.mark.parametrize(
    "transform", [t for t in ALL if not isinstance(t, RandomChannelDrop)], ids=lambda t: type(t).__name__
)
@pytest.mark.parametrize("channels", [2, 5, 7, 32])
def test_every_channel_gets_what_it_would_get_alone(transform, channels):
    """Grey channels of one picture are changed alike, whatever their number and OpenCV's kernels for it."""
    if isinstance(transform, RandomIntensity):
        transform = RandomIntensity(brightness=0.2, contrast=0.3, gamma=0.4)
    image, label = blobs()
    alone, _ = transform(image[..., :1], label, rng(2))
    many, _ = transform(np.repeat(image[..., :1], channels, axis=2), label, rng(2))
    np.testing.assert_allclose(many, np.repeat(alone, channels, axis=2), atol=2e-3)


@pytest.mark.parametrize(
    "transform", [ALL[0], ALL[2], ALL[3], ALL[4], ALL[6]], ids=lambda t: type(t).__name__
)
def test_whole_grey_levels_are_within_rounding_of_float(transform):
    image, label = blobs()
    image = image.round()
    fine, its_label = transform(image, label, rng(1))
    whole, same_label = transform(image.astype(np.uint8), label, rng(1))
    # Two interpolations round twice; OpenCV's blur of 8 bits has narrower weights, in 1/256.
    allowed = {RandomLowResolution: 1.5, RandomGaussianBlur: 2.5}.get(type(transform), 0.51)
    assert np.abs(whole - fine).max() <= allowed
    np.testing.assert_array_equal(its_label, same_label)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_intensities_of_uint8_come_from_a_table_and_are_those_of_float(noise, per_channel):
    image, label = blobs()
    image = image.round()
    transform = RandomIntensity(
        0.2, 0.5, 0.5, noise, per_channel=per_channel, gamma_prob=0.5, gamma_inverted=0.5
    )
    for seed in range(8):
        fine, _ = transform(image, label, rng(seed))
        table, _ = transform(image.astype(np.uint8), label, rng(seed))
        assert table.dtype == np.float32
        np.testing.assert_allclose(table, fine, atol=2e-3)


def test_parts_happen_as_often_as_asked():
    image, label = blobs()
    counts = {"brightness": 0, "contrast": 0, "gamma": 0, "noise": 0}
    for part in counts:
        transform = RandomIntensity(**{part: 0.5, f"{part}_prob": 0.3})
        for seed in range(300):
            changed, _ = transform(image[:4, :4], label[:4, :4], rng(seed))
            counts[part] += bool(np.abs(changed - image[:4, :4]).max() > 1e-3)
    assert all(60 < count < 120 for count in counts.values()), counts


def test_gamma_of_the_negative_darkens_and_brightens_the_bright_end():
    ends = np.array([[[0.0], [127.5], [255.0]]], np.float32)
    label = np.zeros((1, 3), np.uint8)
    for seed in range(20):
        plain, _ = RandomIntensity(gamma=1.0)(ends, label, rng(seed))
        negative, _ = RandomIntensity(gamma=1.0, gamma_inverted=1.0)(ends, label, rng(seed))
        np.testing.assert_allclose(negative.ravel(), 255 - plain.ravel()[::-1], atol=1e-2)


def test_a_shift_moves_whole_pixels_either_way_up_to_its_limit():
    image, numbers = coordinates()
    transform = RandomAffinePatch(size=(11, 13), shift=4, foreground=1.0)
    seen = set()
    for seed in range(400):
        _, where = transform(image, numbers, rng(seed), np.array([[30, 40]]))
        row, column = divmod(int(where[5, 6]), COLUMNS)
        seen.add((row - 30, column - 40))
    assert {down for down, _ in seen} == {right for _, right in seen} == set(range(-4, 5))


@pytest.mark.parametrize("key", ["rotation", "scale", "shift"])
def test_turns_scales_and_shifts_happen_as_often_as_asked(key):
    image, numbers = coordinates()
    values = {"rotation": 60, "scale": (2, 3), "shift": 8}
    transform = RandomAffinePatch(size=(9, 9), foreground=1.0, **{key: values[key], f"{key}_prob": 0.25})
    plain = numbers[26:35, 36:45]
    same = sum(
        np.array_equal(transform(image, numbers, rng(seed), np.array([[30, 40]]))[1], plain)
        for seed in range(300)
    )
    assert 195 < same < 255


def test_a_blur_has_a_width_in_its_range():
    image, label = np.zeros((61, 61, 1), np.float32), np.zeros((61, 61), np.uint8)
    image[30, 30] = 255
    place = np.arange(61) - 30
    widths = []
    for seed in range(60):
        spread = RandomGaussianBlur(sigma=(1, 3), prob=1)(image, label, rng(seed))[0][..., 0].sum(axis=0)
        widths.append(float(np.sqrt((spread * place**2).sum() / spread.sum())))
    assert 0.97 < min(widths) < 1.3
    assert 2.7 < max(widths) < 3.03


def test_channels_are_blurred_apart_when_asked():
    image = np.repeat(blobs()[0][..., :1], 3, axis=2)
    label = np.zeros(image.shape[:2], np.uint8)
    together, _ = RandomGaussianBlur(prob=1)(image, label, rng())
    apart, _ = RandomGaussianBlur(prob=1, per_channel=True)(image, label, rng())
    assert (together[..., :1] == together).all()
    assert len({apart[..., c].std() for c in range(3)}) == 3
    hit = [
        sum(bool((RandomGaussianBlur(prob=0.5, per_channel=True)(image, label, rng(s))[0] != image)[..., c].any())
            for s in range(100))
        for c in range(3)
    ]  # fmt: skip
    assert all(30 < count < 70 for count in hit)


def test_low_resolution_loses_detail_and_moves_nothing():
    rows, columns = np.mgrid[0:90, 0:90].astype(np.float32)
    stripes = np.where(columns % 2 == 0, 255, 0).astype(np.float32)
    image, label = np.stack([rows, columns, stripes], axis=-1), np.zeros((90, 90), np.uint8)
    for seed in range(10):
        coarse, _ = RandomLowResolution(zoom=(0.3, 0.45), prob=1)(image, label, rng(seed))
        inner = coarse[6:-6, 6:-6] - image[6:-6, 6:-6]
        assert np.abs(inner[..., :2]).max() < 0.5
        assert coarse[..., 2].std() < 0.5 * stripes.std()


@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_dropped_channels_are_blank_and_one_stays(fill):
    image, label = blobs()
    image = np.concatenate([image, image + 1], axis=2)
    counts = []
    for seed in range(60):
        dropped, _ = RandomChannelDrop(channels=9, fill=fill, prob=1)(image, label, rng(seed))
        blank = [c for c in range(6) if np.ptp(dropped[..., c]) == 0]
        assert all((dropped[..., c] == image[..., c]).all() for c in range(6) if c not in blank)
        for c in blank:
            assert dropped[0, 0, c] == pytest.approx(0 if fill == "zero" else image[..., c].mean(), rel=1e-5)
        counts.append(len(blank))
    assert set(counts) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_cutout_has_the_size_asked_for_the_mean_and_where_asked_no_label(kind):
    image, label = blobs()
    image, label = image.astype(kind), label + 1
    for seed in range(30):
        cut, mask = RandomCutout(size=(0.2, 0.4), label="ignore", prob=1)(image, label, rng(seed))
        rows, columns = np.nonzero(mask == 255)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == height * width
        assert 0.19 * ROWS < height < 0.41 * ROWS
        assert 0.19 * COLUMNS < width < 0.41 * COLUMNS
        np.testing.assert_allclose(cut[mask == 255].mean(axis=0), image.mean(axis=(0, 1)), atol=0.51)
        np.testing.assert_array_equal(cut[mask != 255], image[mask != 255])
        kept, same = RandomCutout(size=(0.2, 0.4), fill="zero", prob=1)(image, label, rng(seed))
        assert (kept[mask == 255] == 0).all()
        np.testing.assert_array_equal(same, label)


def test_what_recipes_from_before_draw_stays():
    """The figures of docs/results.md were measured on these draws."""
    image, numbers = coordinates()
    pixels = np.array([[30, 40], [10, 70], [55, 5]])
    patch = RandomAffinePatch((20, 24), 20, (0.8, 1.25), 0.5, 0.2, rotate90=0.5, foreground=0.5)
    drawn = [int(patch(image, numbers, rng(seed), pixels)[1][3, 5]) for seed in range(8)]
    assert drawn == [2030, 992, 2376, 2925, 478, 3930, 302, 2753]
    intensity = RandomIntensity(0.1, 0.2, 0.3, 0.05, per_channel=True)
    values = [float(intensity(image, numbers, rng(seed))[0][20, 30, 1]) for seed in range(8)]
    assert values == pytest.approx([8.675, 42.293, 7.102, 43.667, 13.464, 35.057, 13.102, 7.746], abs=1e-3)
    elastic = ElasticDeformation(4, 6, 0.7)
    moved = [int(elastic(image, numbers, rng(seed))[1][20, 30]) for seed in range(8)]
    assert moved == [1470, 1787, 1869, 1631, 1630, 1630, 1636, 1787]


def test_the_recipe_names_all_of_them():
    with_files = {"RandomFourierStyle", "RandomHistogramMatch"}  # see test_style.py
    preprocessing = {"StandardizeImage"}  # see test_standardize.py
    assert set(TRAIN_TRANSFORMS) == {*ids, *with_files, *preprocessing}
    assert TRAIN_TRANSFORMS["RandomAffinePatch"](size=[4, 5], scale=[1, 2]) == RandomAffinePatch(
        (4, 5), scale=(1.0, 2.0)
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RandomAffinePatch(size=[0, 4]), "size"),
        (lambda: RandomAffinePatch(size=[4, 4], scale=[2, 1]), "scale"),
        (lambda: RandomAffinePatch(size=[4, 4], scale=[0, 1]), "scale"),
        (lambda: RandomAffinePatch(size=[4, 4], rotation=-1), "rotation"),
        (lambda: RandomAffinePatch(size=[4, 4], foreground=1.1), "foreground"),
        (lambda: RandomAffinePatch(size=[4, 4], border="wrap"), "border"),
        (lambda: RandomIntensity(noise=-1), "noise"),
        (lambda: RandomIntensity(brightness="much"), "brightness"),
        (lambda: ElasticDeformation(alpha=1, sigma=0), "sigma"),
        (lambda: RandomAffinePatch(size=[4, 4], shift=1.5), "shift"),
        (lambda: RandomAffinePatch(size=[4, 4], shift_prob=2), "shift_prob"),
        (lambda: RandomIntensity(gamma_prob=-1), "gamma_prob"),
        (lambda: RandomGaussianBlur(sigma=[2, 1]), "sigma"),
        (lambda: RandomLowResolution(zoom=[0.5, 1.5]), "zoom"),
        (lambda: RandomChannelDrop(channels=0), "channels"),
        (lambda: RandomChannelDrop(fill="noise"), "fill"),
        (lambda: RandomCutout(holes=[2, 1]), "holes"),
        (lambda: RandomCutout(label="drop"), "label"),
    ],
)
def test_wrong_parameters_are_recipe_errors(make, words):
    with pytest.raises(RecipeError, match=words):
        make()
