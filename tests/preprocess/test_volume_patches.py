from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess.augment.volume_augmentation import VolumeAugmentation
from medseg_paddle.preprocess.augment.volume_elastic import elastic_shift
from medseg_paddle.preprocess.augment.volume_foreground import ForegroundVoxels
from medseg_paddle.preprocess.augment.volume_patch import RandomVolumePatch, rotation_matrix
from medseg_paddle.preprocess.augment.volume_sampling import Placement

IGNORED = 255
NOTHING = ForegroundVoxels.of(np.zeros((1, 1, 1), np.uint8), IGNORED)
PLAIN = {"rotation_prob": 0, "scale_prob": 0, "foreground": 0}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def coordinates(shape: tuple[int, int, int]) -> np.ndarray:
    """An image of three channels that tell each voxel's slice, row and column."""
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(np.float32)


def numbers(shape: tuple[int, int, int]) -> np.ndarray:
    """A label, of which a voxel tells its slice, row and column where the shape is at most (4, 8, 8)."""
    slices, rows, columns = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return (slices * 64 + rows * 8 + columns).astype(np.uint8)


def drawn(patch: RandomVolumePatch, image, label, seed: int, **more):
    foreground = ForegroundVoxels.of(label, IGNORED) if patch.foreground else NOTHING
    place = patch.draw(label.shape, foreground, rng(seed), **more)
    return place.cut(image, label, ignore_index=IGNORED)


@pytest.mark.parametrize(
    ("axis", "lands"),
    [
        # A quarter turn carries the lower of the other axes to the higher: patch (0, 1, 3) of 5 x 5 x 5 is 2, 1 and -1
        # from the middle, (-2, -1, 1), and shows what lies there after the turn.
        (0, (0, 1, 1)),  # (-2, -1, 1) -> (-2, -1, -1)
        (1, (1, 1, 0)),  # (-2, -1, 1) -> (-1, -1, -2)
        (2, (3, 0, 3)),  # (-2, -1, 1) -> (1, -2, 1)
    ],
)
def test_a_quarter_turn_shows_the_voxel_worked_out_by_hand(axis, lands):
    image, label = np.zeros((1, 5, 5, 5), np.float32), np.zeros((5, 5, 5), np.uint8)
    image[0][lands] = label[lands] = 7
    angles = [0.0, 0.0, 0.0]
    angles[axis] = math.pi / 2
    place = Placement((5, 5, 5), np.full(3, 2.0), rotation_matrix(angles))
    patch, mask = place.cut(image, label, ignore_index=IGNORED)
    assert np.argwhere(mask == 7).tolist() == [[0, 1, 3]]
    np.testing.assert_allclose(patch[0], np.where(mask == 7, 7, 0), atol=1e-4)


def test_a_half_turn_of_an_even_patch_turns_about_the_corner_of_its_middle_voxels():
    image = rng().standard_normal((2, 4, 6, 8), dtype=np.float32)
    label = rng(1).integers(0, 5, (4, 6, 8)).astype(np.uint8)
    place = Placement((4, 6, 8), np.array([1.5, 2.5, 3.5]), rotation_matrix([math.pi, 0, 0]))
    patch, mask = place.cut(image, label, ignore_index=IGNORED)
    np.testing.assert_allclose(patch, image[:, :, ::-1, ::-1], atol=1e-5)
    np.testing.assert_array_equal(mask, label[:, ::-1, ::-1])


def test_double_size_shows_quarters_of_voxels():
    """Voxel 0 of 4 that show 2 voxels lies a quarter before the first, half of voxel size; by hand."""
    image = np.array([10.0, 20.0], np.float32).reshape(1, 1, 1, 2)
    label = np.array([1, 2], np.uint8).reshape(1, 1, 2)
    place = Placement((1, 1, 4), np.array([0, 0, 0.5]), np.diag([1, 1, 0.5]))
    patch, mask = place.cut(image, label, ignore_index=IGNORED)
    # Places -0.25, 0.25, 0.75, 1.25; beyond the volume is 0.
    np.testing.assert_allclose(patch.ravel(), [7.5, 12.5, 17.5, 15.0])
    assert mask.ravel().tolist() == [1, 1, 2, 2]


def placements() -> st.SearchStrategy:
    sides = st.tuples(*[st.integers(1, 9)] * 3)
    number = st.floats(-1.5, 1.5)
    return st.tuples(
        sides,
        sides,
        st.lists(number, min_size=9, max_size=9),
        st.lists(st.floats(-0.4, 1.4), min_size=3, max_size=3),
        st.integers(0, 99),
        st.booleans(),
    )


@settings(max_examples=150, deadline=None)
@given(placements())
def test_any_placement_shows_what_scipy_finds_there(drawn):
    shape, size, entries, share, seed, elastic = drawn
    image = rng(seed).standard_normal((2, *shape), dtype=np.float32)
    label = rng(seed).integers(0, 4, shape).astype(np.uint8)
    matrix, centre = np.reshape(entries, (3, 3)).astype(float), np.array(share) * shape
    shift = rng(seed).normal(0, 0.7, (3, *size)).astype(np.float32) if elastic else None
    patch, mask = Placement(size, centre, matrix, shift).cut(image, label, ignore_index=IGNORED)
    moved = coordinates(size) if shift is None else coordinates(size) + shift
    half = (np.array(size) - 1) / 2
    places = (
        np.einsum("ij,jdhw->idhw", matrix, moved - half[:, None, None, None]) + centre[:, None, None, None]
    )
    for channel, found in zip(image, patch, strict=True):
        expected = scipy.ndimage.map_coordinates(channel, places, order=1, mode="grid-constant")
        np.testing.assert_allclose(found, expected, atol=2e-4)
    require_votes(mask, label, places)


def require_votes(mask: np.ndarray, label: np.ndarray, places: np.ndarray) -> None:
    """Each voxel is of the class that has the greatest share; beyond the volume all is ignored."""
    padded = np.pad(label, 1, constant_values=IGNORED)
    classes = np.unique(padded)
    shares = np.stack(
        [scipy.ndimage.map_coordinates((padded == value).astype(float), places + 1, order=1, mode="nearest")
         for value in classes]
    )  # fmt: skip
    ranked = np.sort(shares, axis=0)
    clear = ranked[-1] - (ranked[-2] if len(ranked) > 1 else 0) > 1e-3
    np.testing.assert_array_equal(mask[clear], classes[shares.argmax(axis=0)][clear])


@pytest.mark.parametrize("size", [(3, 170, 130), (40, 20, 60), (2, 3, 20_000)])
def test_patches_that_are_worked_on_in_parts_are_whole(size):
    shape = (20, 60, 50)
    image = rng().standard_normal((1, *shape), dtype=np.float32)
    label = rng(1).integers(0, 4, shape).astype(np.uint8)
    matrix = rotation_matrix([0.3, -0.2, 0.1]) * np.array(shape) / size
    centre = (np.array(shape) - 1) / 2
    patch, mask = Placement(size, centre, matrix).cut(image, label, ignore_index=IGNORED)
    offset = centre - matrix @ ((np.array(size) - 1) / 2)
    places = np.einsum("ij,jdhw->idhw", matrix, coordinates(size)) + offset[:, None, None, None]
    expected = scipy.ndimage.map_coordinates(image[0], places, order=1, mode="grid-constant")
    np.testing.assert_allclose(patch[0], expected, atol=2e-4)
    require_votes(mask, label, places)


def test_a_bent_tube_that_is_turned_is_the_turned_tube():
    """By the nearest voxel, Dice is 0.89."""

    def tube(places):
        across = places[1] - 20.3 - 5 * np.sin(places[0] / 8), places[2] - 19.6
        return (across[0] ** 2 + across[1] ** 2 < 4).astype(np.uint8)

    label, centre = tube(coordinates((40, 40, 40))), np.array([19.5, 20.3, 19.6])
    size, found = (24, 24, 24), []
    for seed in range(10):
        turn = rotation_matrix(rng(seed).uniform(-0.5, 0.5, 3))
        _, mask = Placement(size, centre, turn).cut(
            label[None].astype(np.float32), label, ignore_index=IGNORED
        )
        places = np.einsum("ij,jdhw->idhw", turn, coordinates(size) - 11.5) + centre[:, None, None, None]
        found.append(2 * (mask & tube(places)).sum() / (mask.sum() + tube(places).sum()))
    assert np.mean(found) > 0.92


@pytest.mark.parametrize("seed", range(20))
def test_image_and_label_move_alike(seed):
    shape = (4, 8, 8)
    patch = RandomVolumePatch((4, 9, 5), rotation=(180, 60, 60), rotation_prob=1, scale_prob=1, elastic_prob=1,
                              elastic_alpha=(0.5, 1, 1), elastic_sigma=(2, 3, 3), mirror=(0, 1, 2))  # fmt: skip
    image, mask = drawn(patch, coordinates(shape), numbers(shape), seed)
    label = np.stack([mask // 64, mask % 64 // 8, mask % 8]).astype(float)
    within = (
        (label >= 1).all(axis=0)
        & (label < np.reshape(shape, (3, 1, 1, 1)) - 1).all(axis=0)
        & (mask != IGNORED)
    )
    assert (np.abs(image - label).max(axis=0) <= 0.5 + 1e-3)[within].all()
    assert (mask != IGNORED).any()


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 12)] * 3), st.tuples(*[st.integers(1, 12)] * 3), st.integers(0, 10**6))
def test_a_patch_that_is_not_changed_is_an_exact_copy_and_the_rest_is_padded(shape, size, seed):
    image = rng(seed).standard_normal((2, *shape), dtype=np.float32)
    label = rng(seed).integers(0, 3, shape).astype(np.uint8)
    patch, mask = drawn(RandomVolumePatch(size, **PLAIN), image, label, seed)
    known = mask != IGNORED
    sides = [min(a, b) for a, b in zip(shape, size, strict=True)]
    assert known.sum() == math.prod(sides)  # no more is padded than has to be
    block = patch[:, known].reshape(2, *sides)
    windows = np.lib.stride_tricks.sliding_window_view(image, sides, axis=(1, 2, 3))
    assert (windows == block[:, None, None, None]).all(axis=(0, 4, 5, 6)).any()
    assert (patch[:, ~known] == 0).all()


def test_a_smaller_volume_lies_anywhere_in_the_patch_and_a_larger_one_is_seen_to_its_borders():
    image, label = coordinates((2, 9, 4)), np.ones((2, 9, 4), np.uint8)
    cut = RandomVolumePatch((4, 3, 4), **PLAIN)
    found = [drawn(cut, image, label, seed) for seed in range(200)]
    assert {tuple(np.flatnonzero((mask == 1).any(axis=(1, 2)))) for _, mask in found} == {
        (0, 1),
        (1, 2),
        (2, 3),
    }
    rows = [patch[1][mask == 1].min() for patch, mask in found]
    assert set(rows) == set(range(7))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_patch_is_the_patch_turned_round_along_that_axis(axis):
    image, label = coordinates((4, 8, 8)), numbers((4, 8, 8))
    cut = RandomVolumePatch((4, 8, 8), mirror=(axis,), **PLAIN)
    mirrored = 0
    for seed in range(20):
        patch, mask = drawn(cut, image, label, seed)
        if (mask != label).any():
            mirrored += 1
            patch, mask = np.flip(patch, axis + 1), np.flip(mask, axis)
        np.testing.assert_array_equal(patch, image)
        np.testing.assert_array_equal(mask, label)
    assert 0 < mirrored < 20


def test_every_other_patch_is_mirrored_along_each_axis():
    cut, generator = RandomVolumePatch((4, 8, 8), mirror=(0, 2), **PLAIN), rng()
    drawn_axes = [cut.draw((9, 9, 9), NOTHING, generator).mirror for _ in range(2000)]
    for axes in ((), (0,), (2,), (0, 2)):
        assert abs(drawn_axes.count(axes) - 500) < 5 * math.sqrt(2000 * 0.25 * 0.75)


def test_nothing_is_mirrored_unless_asked_for():
    cut = RandomVolumePatch((4, 8, 8), **PLAIN)
    for seed in range(50):
        np.testing.assert_array_equal(drawn(cut, coordinates((4, 8, 8)), numbers((4, 8, 8)), seed)[1],
                                      numbers((4, 8, 8)))  # fmt: skip


def test_the_share_of_patches_around_a_class_and_of_classes_is_as_asked():
    label = np.zeros((20, 30, 40), np.uint8)
    label[5:15, 5:25, 5:20] = 1  # 3000 voxels
    label[10, 20, 30] = 2  # one
    label[0] = IGNORED
    image = label[None].astype(np.float32)
    cut = RandomVolumePatch((1, 1, 1), foreground=0.4, rotation_prob=0, scale_prob=0)
    foreground = ForegroundVoxels.of(label, IGNORED)
    generator = rng(7)
    places = (cut.draw(label.shape, foreground, generator) for _ in range(4000))
    seen = [place.cut(image, label, ignore_index=IGNORED)[1].item() for place in places]
    count = np.bincount(seen, minlength=256)
    # One voxel is of class 2 with 0.4 / 2 + 0.6 / 24000, of class 1 with 0.2 + 0.6 * 3000 / 24000; five deviations.
    for value, share in ((2, 0.2 + 0.6 / 24000), (1, 0.2 + 0.6 / 8)):
        assert abs(count[value] - 4000 * share) < 5 * math.sqrt(4000 * share * (1 - share))


@pytest.mark.parametrize("first", [(0, 0, 0), (8, 18, 28), (5, 10, 2)])
def test_a_patch_around_a_class_holds_it_and_stays_in_the_volume(first):
    label = np.zeros((10, 20, 30), np.uint8)
    label[tuple(slice(i, i + 2) for i in first)] = 1
    cut = RandomVolumePatch((6, 8, 10), foreground=1, rotation_prob=0, scale=(1.2, 1.5), scale_prob=0.5)
    for seed in range(30):
        patch, mask = drawn(cut, label[None].astype(np.float32), label, seed)
        assert (mask == 1).any()
        assert (mask != IGNORED).all()
        assert patch.shape == (1, 6, 8, 10)


def test_a_patch_around_a_class_has_it_in_the_middle_however_it_is_turned():
    label = np.zeros((30, 30, 30), np.uint8)
    label[15, 14, 13] = 1
    cut = RandomVolumePatch((7, 7, 7), foreground=1, rotation=(180, 180, 180), rotation_prob=1, scale_prob=1)
    for seed in range(20):
        assert drawn(cut, label[None].astype(np.float32), label, seed)[1][3, 3, 3] == 1


def test_a_case_without_a_class_gives_patches_from_anywhere():
    label = np.zeros((5, 5, 5), np.uint8)
    foreground = ForegroundVoxels.of(label, IGNORED)
    assert foreground.draw(rng()) is None
    cut = RandomVolumePatch((1, 1, 1), foreground=1)
    assert len({tuple(cut.draw((5, 5, 5), foreground, rng(seed)).centre) for seed in range(100)}) > 50


def test_an_angle_is_one_of_the_patient_where_slices_are_thick():
    """Of 5 mm slices, 30 degrees about the columns' axis move 10 mm along rows to 5 mm: one slice."""
    cut = RandomVolumePatch((9, 41, 5), rotation=(0, 0, 180), rotation_prob=1, scale_prob=0, foreground=0)
    spacing = np.array([5.0, 1.0, 1.0])
    angles = []
    for seed in range(40):
        matrix = cut.draw((60, 60, 60), NOTHING, rng(seed), spacing=spacing).matrix
        in_mm = np.diag(spacing) @ matrix @ np.diag(1 / spacing)
        np.testing.assert_allclose(in_mm @ in_mm.T, np.eye(3), atol=1e-12)  # lengths and angles stay
        assert np.linalg.det(in_mm) == pytest.approx(1)
        angles.append(math.degrees(math.atan2(in_mm[1, 0], in_mm[0, 0])))
    assert min(angles) < -120
    assert max(angles) > 120
    thirty = np.diag(1 / spacing) @ rotation_matrix([0, 0, math.radians(30)]) @ np.diag(spacing)
    assert (thirty @ [0, 10, 0])[0] == pytest.approx(-1)


def test_turns_within_slices_leave_the_slices_as_they_are():
    label = np.zeros((6, 60, 60), np.uint8)
    label[3, 30, 30] = 1
    cut = RandomVolumePatch((4, 16, 16), rotation=(180, 0, 0), rotation_prob=1, scale_prob=1, scale_axes=(1, 2),
                            elastic_prob=1, elastic_alpha=(0, 1, 1), foreground=1)  # fmt: skip
    for seed in range(10):
        patch, _ = drawn(cut, coordinates(label.shape), label, seed)
        np.testing.assert_array_equal(
            patch[0], np.broadcast_to(np.arange(1.0, 5).reshape(4, 1, 1), (4, 16, 16))
        )
        assert (np.abs(patch[1:] - np.rint(patch[1:])) > 0.01).any()


def test_magnification_lies_within_its_range():
    cut = RandomVolumePatch((5, 5, 5), rotation_prob=0, scale=(0.5, 2), scale_prob=1)
    factors = [1 / cut.draw((20, 20, 20), NOTHING, rng(seed)).matrix[0, 0] for seed in range(400)]
    assert 0.5 <= min(factors) < 0.52
    assert 1.9 < max(factors) <= 2
    assert 150 < sum(factor < 1 for factor in factors) < 250  # as often smaller as larger


@pytest.mark.parametrize("size", [(24, 40, 32), (3, 40, 40), (1, 1, 1)])
def test_elastic_displacement_has_the_strength_and_smoothness_asked_for(size):
    shift = elastic_shift(size, (0, 1.5, 3), (4, 4, 4), rng(1))
    assert shift.shape == (3, *size)
    assert (shift[0] == 0).all()
    for axis, strength in ((1, 1.5), (2, 3)):
        assert math.sqrt(np.mean(np.square(shift[axis]))) == pytest.approx(strength, rel=1e-3)


def test_elastic_displacement_is_as_smooth_as_white_noise_behind_a_gaussian():
    """Its correlation at a distance d is exp(-d^2 / (4 sigma^2))."""
    fields = np.stack([elastic_shift((48, 48, 48), (0, 0, 1), (4, 6, 8), rng(seed))[2] for seed in range(8)])
    inner = fields[:, 12:36, 12:36, 12:36]
    for axis, sigma in ((1, 4), (2, 6), (3, 8)):
        ahead = np.roll(fields, -5, axis=axis)[:, 12:36, 12:36, 12:36]
        found = np.mean(inner * ahead) / math.sqrt(np.mean(inner**2) * np.mean(ahead**2))
        assert found == pytest.approx(math.exp(-25 / (4 * sigma**2)), abs=0.12)


def test_foreground_voxels_are_of_their_class_evenly_spread_and_bounded():
    label = np.zeros((40, 50, 60), np.uint8)
    label[:, :, 30:] = 3  # 60,000 voxels
    label[7, 8, 9:12] = 1
    label[1] = IGNORED
    found = ForegroundVoxels.of(label, IGNORED)
    assert found.classes.tolist() == [1, 3]
    assert found.ends.tolist() == [3, 10_003]
    assert found.voxels[:3].tolist() == [[7, 8, 9], [7, 8, 10], [7, 8, 11]]
    many = found.voxels[3:]
    assert (label[tuple(many.T)] == 3).all()
    assert len(np.unique(many, axis=0)) == 10_000
    each = np.bincount(many[:, 0], minlength=40)
    assert each[1] == 0
    assert each[0] == pytest.approx(10_000 / 39, abs=1)
    again = ForegroundVoxels.from_arrays(found.arrays)
    assert [again.draw(rng(seed)) for seed in range(9)] == [found.draw(rng(seed)) for seed in range(9)]


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 6)] * 3), st.integers(0, 10**6))
def test_of_small_classes_every_voxel_is_kept(shape, seed):
    label = rng(seed).choice(np.array([0, 1, 2, IGNORED], np.uint8), shape)
    found = ForegroundVoxels.of(label, IGNORED)
    begin = 0
    for value, end in zip(found.classes, found.ends, strict=True):
        np.testing.assert_array_equal(found.voxels[begin:end], np.argwhere(label == value))
        begin = end
    assert set(found.classes) == set(np.unique(label)) - {0, IGNORED}


def test_the_same_generator_gives_the_same_bits_from_a_file_too(tmp_path):
    image = rng().standard_normal((2, 12, 20, 20), dtype=np.float32)
    label = rng(1).integers(0, 4, (12, 20, 20)).astype(np.uint8)
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "label.npy", label)
    mapped = [np.load(tmp_path / name, mmap_mode="r") for name in ("image.npy", "label.npy")]
    specs = [
        {"type": "RandomVolumePatch", "size": [8, 12, 12], "rotation_prob": 0.5, "scale_prob": 0.5,
         "elastic_prob": 0.5, "mirror": [0, 2]},
        {"type": "RandomVolumeIntensity", "noise_prob": 0.5, "blur_prob": 0.5, "gamma_prob": 0.5},
    ]  # fmt: skip
    augmentation = VolumeAugmentation.from_specs(specs, ignore_index=IGNORED)
    assert augmentation.size == (8, 12, 12)
    foreground = ForegroundVoxels.of(label, IGNORED)
    patches = []
    for seed in range(12):
        first = augmentation.patch(image, label, foreground, rng(seed))
        second = augmentation.patch(*mapped, ForegroundVoxels.from_arrays(foreground.arrays), rng(seed))
        for one, other, kind in zip(first, second, (np.float32, np.uint8), strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == kind
            assert one.flags.c_contiguous
            assert one.flags.writeable
            assert not np.shares_memory(one, image)
        assert np.isfinite(first[0]).all()
        assert set(np.unique(first[1])) <= {0, 1, 2, 3, IGNORED}
        patches.append(first[0])
    assert len({patch.tobytes() for patch in patches}) == 12


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ([], "RandomVolumePatch is needed"),
        ([{"type": "RandomVolumeIntensity"}], "RandomVolumePatch is needed"),
        ([{"type": "RandomVolumePatch", "size": [4, 4, 4]}] * 2, "two RandomVolumePatch"),
        ([{"type": "RandomVolumePatch"}], "needs 'size'"),
        ([{"type": "RandomVolumePatch", "size": [4, 4]}], "three whole numbers"),
        ([{"type": "RandomVolumePatch", "size": [4, 4, 0]}], "at least 1"),
        ([{"type": "RandomVolumePatch", "size": 4}], "must be a list"),
        ([{"type": "RandomVolumePatch", "size": [4, 4, 4], "mirror": [3]}], "mirror must be different ones"),
        ([{"type": "RandomVolumePatch", "size": [4, 4, 4], "scale_axes": [1, 1]}], "scale_axes must be different"),
        ([{"type": "RandomVolumePatch", "size": [4, 4, 4], "scale": [2, 1]}], "scale must be"),
        ([{"type": "RandomVolumePatch", "size": [4, 4, 4], "rotation": [200, 0, 0]}], "rotation must be"),
        ([{"type": "RandomVolumePatch", "size": [4, 4, 4], "rotation": [20]}], "three numbers"),
        ([{"type": "RandomVolumePatch", "size": [4, 4, 4], "shear": 1}], "no parameter 'shear'"),
    ],
)  # fmt: skip
def test_wrong_words_are_refused(specs, words):
    with pytest.raises(RecipeError) as error:
        VolumeAugmentation.from_specs(specs, ignore_index=IGNORED)
    assert words in error.value.message
    assert error.value.hint
