"""Copies are found however they were changed, and pictures of one kind are not copies of each other."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_paddle.io.images import read_samples
from medseg_paddle.preprocess.duplicates import Appearance, appearance, near_duplicates


def eye(seed: int, side: int = 256) -> np.ndarray:
    """A picture of a kind: a bright disc on black with a bright spot, and fine lines that are its own."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    picture = np.where(rows**2 + columns**2 < 0.2, 110.0, 5.0)
    picture += 60 * np.exp(-((rows - 0.02) ** 2 + (columns - 0.2) ** 2) / 0.005)
    lines = np.zeros((side, side), np.float32)
    for _ in range(12):
        points = np.cumsum(rng.normal(0, side / 12, (6, 2)), axis=0) + side / 2
        cv2.polylines(lines, [points.astype(np.int32)], isClosed=False, color=1.0, thickness=side // 64)
    picture -= 45 * lines * (picture > 50)
    return np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)


KIND = [eye(seed) for seed in range(40)]
LOOKS = [appearance(picture) for picture in KIND]

UPRIGHT = {
    "same": lambda p: p,
    "JPEG": lambda p: jpeg(p, 40),
    "smaller": lambda p: cv2.resize(p, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA),
    "larger": lambda p: cv2.resize(p, None, fx=1.7, fy=1.7),
    "other proportions": lambda p: cv2.resize(p, (200, 300), interpolation=cv2.INTER_AREA),
    "brighter": lambda p: np.minimum(p.astype(int) + 25, 255).astype(np.uint8),
    "less contrast": lambda p: (p * 0.7 + 20).astype(np.uint8),
    "colour": lambda p: np.stack([p, p // 2, p // 3], axis=-1),
    "sixteen bits": lambda p: p.astype(np.uint16) * 257,
    "five channels": lambda p: np.stack([p] * 5, axis=-1),
    "all of it": lambda p: jpeg((cv2.resize(p, None, fx=0.5, fy=0.5) * 0.9 + 20).astype(np.uint8), 60),
}
TURNED = {
    "mirrored": lambda p: p[:, ::-1],
    "upside down": lambda p: p[::-1],
    "quarter turn": np.rot90,
    "three quarters": lambda p: np.rot90(p, 3),
    "transposed and smaller": lambda p: cv2.resize(p.T, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
}


def found(copies: list[Appearance], *, turned: bool) -> list[tuple[int, int, bool]]:
    groups = ["original"] * len(LOOKS) + ["copy"] * len(copies)
    return [
        (p.first, p.second, p.turned)
        for p in near_duplicates([*LOOKS, *copies], groups=groups, turned=turned)
    ]


def test_pictures_of_one_kind_are_not_copies_of_each_other():
    assert near_duplicates(LOOKS, turned=True) == []


@pytest.mark.parametrize("change", UPRIGHT)
def test_changed_copies_are_found_and_belong_to_their_originals(change):
    copies = [appearance(UPRIGHT[change](picture)) for picture in KIND]
    assert found(copies, turned=False) == [(i, i + len(KIND), False) for i in range(len(KIND))]


@pytest.mark.parametrize("change", TURNED)
def test_turned_copies_are_found_where_they_are_looked_for(change):
    copies = [appearance(TURNED[change](picture)) for picture in KIND]
    assert found(copies, turned=False) == []
    assert found(copies, turned=True) == [(i, i + len(KIND), True) for i in range(len(KIND))]


def test_pictures_of_one_group_are_not_compared():
    looks = [LOOKS[0], LOOKS[0], LOOKS[1], LOOKS[1]]
    assert near_duplicates(looks, groups=["a", "a", "b", "c"]) == near_duplicates(looks, groups=[0, 0, 1, 2])
    assert [(p.first, p.second) for p in near_duplicates(looks, groups=["a", "a", "b", "c"])] == [(2, 3)]
    assert [(p.first, p.second) for p in near_duplicates(looks)] == [(0, 1), (2, 3)]


def test_each_copy_is_named_and_ten_thousand_are_no_flood():
    looks = [LOOKS[0]] * 100
    pairs = near_duplicates(looks, groups=[i % 2 for i in range(100)])
    assert {place for pair in pairs for place in (pair.first, pair.second)} == set(range(100))
    assert len(pairs) <= 100


@pytest.mark.parametrize(
    "flat", [np.zeros((40, 40)), np.full((9, 30), 255, np.uint8), np.full((40, 40, 3), 7, np.uint8)]
)
def test_empty_pictures_are_not_copies_of_each_other(flat):
    assert appearance(flat).flat
    assert near_duplicates([appearance(flat)] * 3) == []
    assert not LOOKS[0].flat


def test_hash_and_details_must_both_agree():
    one, other = LOOKS[0], LOOKS[1]
    same_hash = Appearance(one.hash, other.details, flat=False)
    same_details = Appearance(other.hash, one.details, flat=False)
    assert near_duplicates([one, same_hash]) == near_duplicates([one, same_details]) == []


def test_nothing_and_one_picture_have_no_copies():
    assert near_duplicates([]) == near_duplicates(LOOKS[:1]) == []


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 39), st.floats(0.5, 1.5), st.integers(-10, 10))
def test_the_hash_keeps_most_bits_under_brightness_and_contrast(which, contrast, brightness):
    picture = KIND[which].astype(np.float32)
    changed = picture * contrast + 40 + brightness
    assert (appearance(picture).hash ^ appearance(changed).hash).bit_count() <= 20
    assert 0 <= appearance(picture).hash < 2**256


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 7), min_size=2, max_size=12), st.randoms())
def test_the_order_does_not_matter(which, random):
    looks = [LOOKS[i] for i in which]
    order = random.sample(range(len(which)), len(which))
    one = {frozenset((which[p.first], which[p.second])) for p in near_duplicates(looks)}
    other = {
        frozenset((which[order[p.first]], which[order[p.second]]))
        for p in near_duplicates([looks[i] for i in order])
    }
    assert one == other == {frozenset((i,)) for i in which if which.count(i) > 1}


def test_ten_thousand_pictures_take_seconds():
    rng = np.random.default_rng(0)
    details = rng.integers(-60, 60, (10_000, 64, 64), dtype=np.int8)
    looks = [Appearance(int.from_bytes(rng.bytes(32), "big"), own, flat=False) for own in details]
    looks[9_998] = looks[7]
    start = time.process_time()
    pairs = near_duplicates(looks, groups=[i % 2 for i in range(len(looks))])
    assert [(p.first, p.second) for p in pairs] == [(7, 9_998)]
    assert time.process_time() - start < 20


# --- real data --------------------------------------------------------------------------------------------


def test_the_eyes_of_forty_people_are_forty_pictures(real_data):
    pictures = [read_samples(path) for path in sorted((real_data / "drive").glob("*/images/*.tif"))]
    looks = [appearance(picture) for picture in pictures]
    assert len(looks) == 40
    assert near_duplicates(looks, turned=True) == []
    copies = [appearance(jpeg(cv2.resize(p, None, fx=0.5, fy=0.5), 50)) for p in pictures]
    pairs = near_duplicates([*looks, *copies], groups=[0] * 40 + [1] * 40)
    assert [(p.first, p.second) for p in pairs] == [(i, i + 40) for i in range(40)]
