"""nnU-Net's rules, worked out by hand and, where they are known, as its own planner published them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_paddle.core.planning import (
    PatchPlan,
    Topology,
    Triple,
    batch_size,
    largest_patch,
    median_shape,
    names_a_side,
    supervision_weights,
    target_spacing,
    topology,
)

ANY_SIZE = 10**12
ALL, WITHIN = (2, 2, 2), (1, 2, 2)  # steps down: of every axis, within slices


def planned(spacing: tuple[float, float, float], shape: Triple, voxels: int = ANY_SIZE) -> PatchPlan:
    found = largest_patch(spacing, shape, lambda patch, _: math.prod(patch) <= voxels)
    assert found is not None
    return found


def test_hippocampus() -> None:
    """36 x 50 x 35 voxels of 1 mm: 36 -> 18 -> 9 -> 5 and so on, then fewer than 8 are left of each.

    nnU-Net's published plan: patches of 40 x 56 x 40, three steps, batches of 9 for the 260 cases.
    """
    assert target_spacing([(1, 1, 1)] * 3, [(36, 50, 35)] * 3) == ((1, 1, 1), None)
    found = planned((1, 1, 1), (36, 50, 35))
    assert found == PatchPlan((40, 56, 40), Topology((ALL,) * 3, ((3, 3, 3),) * 4), (40, 56, 40))
    assert batch_size(100, found.patch, (36, 50, 35), 260) == (9, True)
    assert batch_size(5, found.patch, (36, 50, 35), 260) == (5, False)
    assert batch_size(100, found.patch, (36, 50, 35), 3) == (2, True)


def test_heart_in_thick_slices() -> None:
    """10 slices of 320 x 320 voxels, 10 x 1.25 x 1.25 mm.

    Rows and columns are halved to 2.5, 5 and 10 mm; there slices are as near, and their 10 become 5; then the others
    alone, 20 -> 10 -> 5.
    """
    spacing, coarse = target_spacing([(10, 1.25, 1.25)] * 5, [(10, 320, 320)] * 5)
    assert (spacing, coarse) == ((10, 1.25, 1.25), 0)
    found = planned(spacing, (10, 320, 320))
    assert found.patch == (10, 320, 320)
    assert found.topology.strides == (WITHIN, WITHIN, WITHIN, ALL, WITHIN, WITHIN)
    # At 5 mm the slices of 10 mm are twice as far, not less: still no neighbours.
    assert found.topology.kernels == ((1, 3, 3),) * 3 + ((3, 3, 3),) * 4


def test_acdc_as_nnunet_published_it() -> None:
    """Cine-MR of the heart: 5 x 1.5625 x 1.5625 mm and patches of 20 x 256 x 224."""
    found = topology((5, 1.5625, 1.5625), (20, 256, 224))
    assert found.strides == (WITHIN, ALL, ALL, WITHIN, WITHIN)
    assert found.kernels == ((1, 3, 3),) + ((3, 3, 3),) * 5
    assert found.divisors == (4, 32, 32)


def test_ct_of_3_mm_slices() -> None:
    """512 x 512 voxels of 0.8 mm in 100 slices of 3 mm, cut to two million voxels for the memory."""
    spacing, coarse = target_spacing([(3, 0.8, 0.8)] * 4, [(100, 512, 512)] * 4)
    assert (spacing, coarse) == ((3, 0.8, 0.8), 0)
    # A cube of 318 mm is 106 x 398 x 398 voxels; the volume has 100 slices, which 16 divides to 112.
    whole = planned(spacing, (100, 512, 512))
    assert whole.topology.strides == (WITHIN, ALL, ALL, ALL, ALL, WITHIN)
    assert whole.topology.kernels == ((1, 3, 3),) + ((3, 3, 3),) * 6
    assert whole.first == (112, 448, 448)
    cut = planned(spacing, (100, 512, 512), voxels=2_000_000)
    assert cut.first == whole.first
    assert 1_400_000 < math.prod(cut.patch) <= 2_000_000
    shares = [side / of for side, of in zip(cut.patch, (100, 512, 512), strict=True)]
    assert max(shares) < 1.3 * min(shares)


def test_coarse_slices_take_the_10th_percentile_but_are_never_finer_than_the_rest() -> None:
    shapes = [(10, 300, 300)] * 11
    slices = [
        4.0,
        5,
        6,
        7,
        8,
        9,
        10,
        10,
        10,
        10,
        10,
    ]  # 5 is the 10th percentile, 9 the median
    assert target_spacing([(mm, 1, 1) for mm in slices], shapes) == ((5, 1, 1), 0)
    assert target_spacing([(1, mm, 1) for mm in slices], [(300, 10, 300)] * 11) == ((1, 5, 1), 1)
    finer = [0.5, 0.5, *slices[2:]]
    assert target_spacing([(mm, 2, 2) for mm in finer], shapes) == ((2, 2, 2), 0)
    # Just three times as far is not more; as many slices as rows are no thick slices.
    assert target_spacing([(3, 1, 1)] * 2, shapes[:2]) == ((3, 1, 1), None)
    assert target_spacing([(mm, 1, 1) for mm in slices], [(300, 300, 300)] * 11) == ((9, 1, 1), None)


def test_the_median_volume_is_that_of_the_new_spacing() -> None:
    spacings = [(2.0, 1, 1), (4.0, 0.5, 0.5), (1.0, 1, 1)]
    shapes = [(10, 100, 101), (20, 300, 302), (30, 60, 60)]
    # Brought to 2 x 1 x 1 mm: (10, 100, 101), (40, 150, 151), (15, 60, 60).
    assert median_shape(spacings, shapes, (2, 1, 1)) == (15, 100, 101)


def test_a_single_slice_does_not_make_rows_and_columns_coarse() -> None:
    """Its spacing may be anything: a header's 1 mm beside pixels of 3 mm."""
    assert topology((1, 3, 3), (1, 64, 64)).kernels[0] == (3, 3, 3)
    assert topology((9, 3, 3), (1, 64, 64)).kernels[0] == (1, 3, 3)


def test_what_has_no_room_has_no_plan() -> None:
    assert largest_patch((1, 1, 1), (7, 7, 7), lambda *_: True) is None
    assert largest_patch((1, 1, 1), (64, 64, 64), lambda *_: False) is None


def test_weights_of_the_levels_are_halved() -> None:
    assert supervision_weights(4) == (0.5714, 0.2857, 0.1429)
    assert supervision_weights(2) == supervision_weights(1) == (1,)


@pytest.mark.parametrize(
    "name",
    [
        "left kidney",
        "Kidney_Right",
        "lung-L",
        "r hippocampus",
        "LH",
        "LeftKidney",
        "kidneyR",
        "LKidney",
        "arteria sinistra",
    ],
)
def test_a_side_is_found_in_a_name(name: str) -> None:
    assert names_a_side(["background", "liver", name]) == name


@pytest.mark.parametrize("name", ["copyright", "cleft", "liver", "rl", "bright spot", "CTVessel"])
def test_words_that_hold_a_side_name_none(name: str) -> None:
    assert names_a_side(["background", name]) is None


SPACINGS = st.tuples(*[st.floats(0.3, 10)] * 3)
SHAPES = st.tuples(*[st.integers(4, 400)] * 3)


@settings(deadline=None, max_examples=60)
@given(spacing=SPACINGS, shape=SHAPES, voxels=st.integers(500, 10**8))
def test_a_patch_fits_and_its_network_takes_it(
    spacing: tuple[float, float, float], shape: Triple, voxels: int
) -> None:
    found = largest_patch(spacing, shape, lambda patch, _: math.prod(patch) <= voxels)
    if found is None:
        return
    patch, network = found.patch, found.topology
    assert math.prod(patch) <= voxels
    assert all(side % by == 0 for side, by in zip(patch, network.divisors, strict=True))
    assert network == topology(spacing, patch)
    deepest = [side // by for side, by in zip(patch, network.divisors, strict=True)]
    assert all(left >= 4 for left, by in zip(deepest, network.divisors, strict=True) if by > 1)
    for stride, kernel in zip(network.strides, network.kernels[1:], strict=True):
        assert all(step <= side for step, side in zip(stride, kernel, strict=True))
    for above, below in pairwise(network.kernels):
        assert all(one <= other for one, other in zip(above, below, strict=True))


@settings(deadline=None, max_examples=20)
@given(
    cases=st.lists(st.tuples(SPACINGS, SHAPES), min_size=1, max_size=9),
    random=st.randoms(use_true_random=False),
)
def test_the_order_of_cases_does_not_matter(
    cases: list[tuple[tuple[float, float, float], Triple]], random: object
) -> None:
    def answer(of: list[tuple[tuple[float, float, float], Triple]]) -> object:
        spacings, shapes = [one for one, _ in of], [one for _, one in of]
        target, coarse = target_spacing(spacings, shapes)
        return target, coarse, median_shape(spacings, shapes, target)

    mixed = list(cases)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert answer(mixed) == answer(cases)
