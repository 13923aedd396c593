"""Closed surfaces of labels, for models to look at and to print: STL and OBJ."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array
from scipy.sparse.csgraph import connected_components

from medseg_paddle.core import Box, Geometry
from medseg_paddle.io.files import write_bytes

MeshFormat = Literal["stl", "obj"]
MESH_FORMATS: tuple[MeshFormat, ...] = get_args(MeshFormat)

_ROUNDS = 15
_SHRINK, _GROW = 0.5, -0.53
_VOLUME_TOLERANCE, _HALVINGS = 0.05, 4
_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_SPACE = "SPACE=LPS"  # as 3D Slicer reads and writes it


@dataclass(frozen=True, eq=False)
class Mesh:
    """A surface of triangles.

    Attributes
    ----------
    points : ndarray, shape (n, 3), float64
        LPS mm.
    triangles : ndarray, shape (m, 3), int64
        Indices of points, counter-clockwise seen from outside.
    """

    points: NDArray[np.float64]
    triangles: NDArray[np.int64]

    @property
    def millilitres(self) -> float:
        """The volume within (by the divergence theorem)."""
        a, b, c = (self.points[self.triangles[:, corner]] - self.points[0] for corner in range(3))
        return float(np.einsum("ij,ij->", a, np.cross(b, c))) / 6000


def surface(mask: NDArray[Any], geometry: Geometry) -> Mesh:
    """The surface of the voxels of a mask, its stairs smoothed.

    It begins as the faces between voxels that belong to the mask and those that do not, and is smoothed so that it
    keeps its volume (Taubin, SIGGRAPH 1995), no point of it moving farther than half a voxel along each axis (Gibson,
    MICCAI 1998). No part of it gains or loses more than a twentieth of its volume; parts of a few voxels keep their
    corners for that. It is closed, also where the mask ends at the edge of the image: every edge of a triangle is run
    along as often one way as the other. That is once, but where voxels meet at an edge alone and hang together around
    both of its ends: four triangles share such an edge, and some programs call it non-manifold.

    Parameters
    ----------
    mask : ndarray, shape ``geometry.shape``
        Not 0 where it holds; in one voxel at least.
    geometry : Geometry

    Raises
    ------
    DataError
        The mask is empty.
    """
    box = Box.around(mask)
    inside = np.pad(mask[box.slices] != 0, 1)
    corners, quads = _faces(inside)
    points = _smoothed(corners, quads)
    # Corner (0, 0, 0) of the padded part is half a voxel before its first voxel's centre, a voxel before the box.
    placed = geometry.to_lps(points + np.array(box.start) - 1.5)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    if np.linalg.det(geometry.affine[:3, :3]) < 0:
        triangles = triangles[:, ::-1]
    return Mesh(placed, np.ascontiguousarray(triangles))


def write_mesh(path: Path, mesh: Mesh, name: str) -> None:
    """Write a surface in LPS mm as binary STL or as OBJ, by the ending of `path`; atomic.

    Parameters
    ----------
    path : Path
    mesh : Mesh
    name : str
        Of the structure; in an OBJ alone.

    Raises
    ------
    SetupError
        `path` cannot be written.
    """
    write_bytes(path, _stl(mesh) if path.suffix == ".stl" else _obj(mesh, name))


def _stl(mesh: Mesh) -> bytes:
    corners = mesh.points[mesh.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    records = np.zeros(len(corners), _STL_TRIANGLE)
    records["normal"] = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    records["corners"] = corners
    count = np.array(len(corners), "<u4")
    head = f"medseg-paddle, mm, {_SPACE}".encode().ljust(80)
    return b"".join((head, count.tobytes(), records.tobytes()))


def _obj(mesh: Mesh, name: str) -> bytes:
    lines = [f"# medseg-paddle, mm, {_SPACE}", f"o {'_'.join(name.split())}"]
    lines += [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in mesh.points]
    lines += [f"f {a} {b} {c}" for a, b, c in mesh.triangles + 1]
    return ("\n".join(lines) + "\n").encode()


def _faces(inside: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Corners ``(n, 3)`` of the voxels' outer faces and the faces ``(m, 4)``, counter-clockwise seen from outside.

    Corner (i, j, k) is the one of voxel (i, j, k) nearest to the origin. Where voxels meet at a corner or an edge
    alone, each side has a copy of it, so that the surface does not cross itself there.
    """
    shape = tuple(side + 1 for side in inside.shape)
    flat = []  # of all corners: one number each
    for axis in range(3):
        across = np.diff(inside.astype(np.int8), axis=axis)
        for sign in (-1, 1):  # -1: the mask ends here, and the face looks along the axis
            voxels = np.argwhere(across == sign)
            places = np.repeat(voxels[:, None], 4, axis=1)
            places[..., axis] += 1  # of the face between a voxel and the next one
            turn = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])[::-sign]
            places[..., [(axis + 1) % 3, (axis + 2) % 3]] += turn
            voxels[:, axis] += sign > 0
            side = _sides(inside, places, voxels[:, None])
            flat.append(np.ravel_multi_index(tuple(np.moveaxis(places, -1, 0)), shape) * 8 + side)
    unique, quads = np.unique(np.concatenate(flat), return_inverse=True)
    corners = np.stack(np.unravel_index(unique // 8, shape), axis=1)
    return corners.astype(np.float64), quads.reshape(-1, 4).astype(np.int64)


def _sides(
    inside: NDArray[np.bool_], places: NDArray[np.int64], voxels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Which of the parts that meet at a corner a voxel belongs to; parts hang together by faces."""
    around = np.zeros(places.shape[:-1], np.uint8)
    for bit, (i, j, k) in enumerate(product((-1, 0), repeat=3)):
        around |= inside[places[..., 0] + i, places[..., 1] + j, places[..., 2] + k].view(np.uint8) << bit
    which = (voxels - places + 1) @ np.array([4, 2, 1])
    return np.asarray(_parts()[around, which])


def _parts() -> NDArray[np.int64]:
    """Of each filling of the 2 x 2 x 2 voxels around a corner, the smallest voxel that each hangs together with."""
    table = np.tile(np.arange(8), (256, 1))
    for filling in range(256):
        row = table[filling]
        for _ in range(3):
            for one, two in product(range(8), repeat=2):
                is_neighbour = (one ^ two).bit_count() == 1
                if is_neighbour and filling >> one & 1 and filling >> two & 1:
                    row[two] = min(row[one], row[two])
    return table


def _smoothed(corners: NDArray[np.float64], quads: NDArray[np.int64]) -> NDArray[np.float64]:
    """Corners moved between their neighbours, at most half a voxel along each axis."""
    count = len(corners)
    ends = np.concatenate([quads[:, [a, (a + 1) % 4]] for a in range(4)])
    links = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count)).tocsr()
    links.data[:] = 1
    mean: csr_array = diags_array(1 / links.sum(axis=1)) @ links
    points = corners
    for _ in range(_ROUNDS):
        for weight in (_SHRINK, _GROW):
            points = points + weight * (mean @ points - points)
        points = np.clip(points, corners - 0.5, corners + 0.5)
    return _of_the_same_volume(corners, points, quads, connected_components(links, directed=False)[1])


def _of_the_same_volume(
    corners: NDArray[np.float64],
    points: NDArray[np.float64],
    quads: NDArray[np.int64],
    part: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Parts of a few voxels moved less, or not at all, so that they do not vanish."""

    def volumes(places: NDArray[np.float64]) -> NDArray[np.float64]:
        a, b, c, d = (places[quads[:, corner]] for corner in range(4))
        each = np.einsum("ij,ij->i", a, np.cross(b, c) + np.cross(c, d))
        return np.asarray(np.bincount(part[quads[:, 0]], each), np.float64)

    whole, share = volumes(corners), np.ones(part.max() + 1)
    for last in (*[False] * _HALVINGS, True):
        placed = corners + share[part][:, None] * (points - corners)
        too_far = np.abs(volumes(placed) - whole) > _VOLUME_TOLERANCE * np.abs(whole)
        if not too_far.any():
            break
        share[too_far] = 0 if last else share[too_far] / 2
    return corners + share[part][:, None] * (points - corners)
