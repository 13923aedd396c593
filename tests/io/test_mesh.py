"""Surfaces of masks: closed, outward, as large as their voxels, in the patient's millimetres."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg_paddle.core import Geometry
from medseg_paddle.errors import DataError
from medseg_paddle.io.mesh import surface, write_mesh


def grid(shape, spacing=(2.5, 0.7, 0.5), *, mirrored=False) -> Geometry:
    """An oblique one; mirrored, its slices count the other way."""
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * np.sign(np.linalg.det(turn)) @ np.diag(spacing)
    affine[:3, 0] *= -1 if mirrored else 1
    affine[:3, 3] = [10, -20, 30]
    return Geometry(shape, affine)


def ball(radius: float, spacing=(2.5, 0.7, 0.5)) -> np.ndarray:
    axes = [np.arange(-radius // length - 1, radius // length + 2) * length for length in spacing]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return x**2 + y**2 + z**2 <= radius**2


def millilitres(mask, geometry) -> float:
    return np.count_nonzero(mask) * abs(np.linalg.det(geometry.affine[:3, :3])) / 1000


def edges(mesh) -> tuple[Counter, Counter]:
    """How often each directed edge is run along, and its opposite."""
    pairs = np.concatenate([mesh.triangles[:, [a, (a + 1) % 3]] for a in range(3)])
    return Counter(map(tuple, pairs.tolist())), Counter(map(tuple, pairs[:, ::-1].tolist()))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("radius", [6, 10, 15])
def test_a_ball_is_round_closed_and_as_large_as_its_voxels(radius, mirrored):
    mask = ball(radius)
    geometry = grid(mask.shape, mirrored=mirrored)
    mesh = surface(mask, geometry)
    forth, back = edges(mesh)
    assert forth == back
    assert max(forth.values()) == 1
    # Positive volume: the triangles look outwards.
    assert mesh.millilitres == pytest.approx(millilitres(mask, geometry), rel=0.05)
    centre = geometry.to_lps((np.array(mask.shape) - 1) / 2)
    distance = np.linalg.norm(mesh.points - centre, axis=1)
    assert distance == pytest.approx(radius, abs=2.5)
    assert distance.mean() == pytest.approx(radius, abs=0.3)


def test_points_lie_around_the_centres_of_the_voxels():
    """Of an axis-parallel block at the image's edge: half a voxel beyond its outermost centres, where it is flat."""
    geometry = Geometry(
        (6, 12, 14), np.array([[0, 0, 0.5, 10], [0, 0.7, 0, 20], [2.0, 0, 0, 30], [0, 0, 0, 1]])
    )
    mask = np.zeros(geometry.shape, bool)
    mask[:, :10, 4:] = True
    points = surface(mask, geometry).points
    low, high = np.array([10 + 3.5 * 0.5, 20 - 0.35, 29]), np.array([10 + 13.5 * 0.5, 20 + 9.5 * 0.7, 41])
    for axis in range(3):
        for edge in (low, high):
            middle = (low + high) / 2
            middle[axis] = edge[axis]
            nearest = points[np.linalg.norm(points - middle, axis=1).argmin()]
            assert nearest[axis] == pytest.approx(edge[axis], abs=0.02)


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(*[st.integers(1, 5)] * 3)).filter(np.any))
def test_any_mask_has_a_closed_surface_that_keeps_its_volume(mask):
    geometry = grid(mask.shape)
    mesh = surface(mask, geometry)
    forth, back = edges(mesh)
    assert forth == back
    assert mesh.millilitres == pytest.approx(millilitres(mask, geometry), rel=0.06)
    moved = geometry.to_index(mesh.points) + 0.5  # in voxels' corners: none is farther away than half a voxel
    assert moved.min() >= -0.5 - 1e-9
    assert (moved <= np.array(mask.shape) + 0.5 + 1e-9).all()


def test_voxels_that_meet_at_an_edge_alone_are_two_surfaces():
    mask = np.zeros((1, 2, 2), bool)
    mask[0, 0, 0] = mask[0, 1, 1] = True
    forth, _ = edges(surface(mask, grid(mask.shape)))
    assert len(surface(mask, grid(mask.shape)).points) == 16
    assert max(forth.values()) == 1


def test_an_empty_mask_has_none():
    with pytest.raises(DataError):
        surface(np.zeros((2, 2, 2)), grid((2, 2, 2)))


def test_stl_holds_the_triangles_and_their_normals(tmp_path):
    mask = ball(4)
    mesh = surface(mask, grid(mask.shape))
    write_mesh(tmp_path / "a.stl", mesh, "liver")
    data = (tmp_path / "a.stl").read_bytes()
    assert b"SPACE=LPS" in data[:80]
    assert not data.startswith(b"solid")  # which would be taken for the text form
    count = int.from_bytes(data[80:84], "little")
    assert len(data) == 84 + 50 * count
    records = np.frombuffer(data[84:], np.dtype([("floats", "<f4", (4, 3)), ("none", "<u2")]))["floats"]
    assert np.allclose(records[:, 1:], mesh.points[mesh.triangles], atol=1e-4)
    assert np.allclose(np.linalg.norm(records[:, 0], axis=1), 1, atol=1e-4)
    # Normals look away from the middle of a ball.
    outwards = records[:, 1:].mean(axis=1) - mesh.points.mean(axis=0)
    assert (np.einsum("ij,ij->i", outwards, records[:, 0]) > 0).all()


def test_obj_holds_the_same(tmp_path):
    mask = ball(4)
    mesh = surface(mask, grid(mask.shape))
    write_mesh(tmp_path / "a.obj", mesh, "left kidney")
    lines = (tmp_path / "a.obj").read_text().splitlines()
    assert "SPACE=LPS" in lines[0]
    assert "o left_kidney" in lines
    points = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    triangles = np.array([line.split()[1:] for line in lines if line.startswith("f ")], int)
    assert np.allclose(points, mesh.points, atol=1e-4)
    assert (triangles - 1 == mesh.triangles).all()
