"""Bundles of 3-D models whose answers are known: what they keep, take and refuse."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from volume_models import bright, sealed, seen, volume_description, write_volume_bundle

from medseg_paddle.bundle import Bundle
from medseg_paddle.core import Geometry, Volume
from medseg_paddle.errors import DataError, MemoryShortError, ModelError, RecipeError
from medseg_paddle.predictor import Predictor
from medseg_paddle.preprocess import HuWindow, InferencePlan, VolumePreprocessing, ZScore
from medseg_paddle.steps.predict import predict

RNG = np.random.default_rng(12)
LEFT, BACK, HEAD = np.eye(3)


def grid(slices=2 * HEAD, rows=0.8 * BACK, columns=0.7 * LEFT, shape=(7, 9, 12)) -> Geometry:
    """Index axes as vectors in LPS mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([slices, rows, columns]).T
    return Geometry(shape, affine)


def tilted(degrees: float) -> Geometry:
    """Turned about the axis from right to left."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return grid(slices=2 * (c * HEAD + s * BACK), rows=0.8 * (c * BACK - s * HEAD))


def volume(geometry: Geometry | None = None, units="arbitrary", low=0) -> Volume:
    geometry = geometry or grid()
    return Volume(RNG.integers(low, 200, geometry.shape).astype(np.float32), geometry, units)


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    """Makes predictors."""
    folder = tmp_path_factory.mktemp("bundles")
    numbers = itertools.count()

    def make(model=None, **said) -> Predictor:
        place = folder / str(next(numbers))
        return Predictor(
            write_volume_bundle(place, model or bright(), volume_description(**said)).path, "cpu"
        )

    return make


@pytest.fixture(scope="module")
def plain(bundled) -> Predictor:
    return bundled()


def test_what_is_said_of_a_3d_model_is_read_again(tmp_path):
    said = volume_description(
        trained_on=seen(("HU", "unknown"), tilt=4.5),
        preprocessing=VolumePreprocessing(
            axes="SAR",
            spacing=(None, 1.5, 1.0),
            crop="nonzero",
            margin_mm=3,
            normalization=ZScore("nonzero", (0.5, 99.5)),
        ),
        plan=InferencePlan("tiles", (4, 16, 16), 0.25, (2, 4, 4), mirror=(0, 2), skip_below=-1.0),
        postprocessing=(
            {"type": "Threshold", "classes": ["bright"], "at_least": 0.4},
            {"type": "RemoveSmall", "classes": None, "ml": 0.5, "pixels": None, "connectivity": "faces"},
        ),
    )
    bundle = write_volume_bundle(tmp_path / "b", bright(), said)
    assert Bundle.open(tmp_path / "b").description == said
    assert bundle.description.dimensions == 3
    assert bundle.parity.shapes == ((2, 1, 4, 8, 8), (1, 1, 4, 8, 8))
    assert [one.shape for one in bundle.sample()] == [(1, 4, 8, 8), (2, 4, 8, 8)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(), (0,), (0, 1, 2)])
def test_a_volume_is_answered_on_its_own_grid_however_it_is_stored(plain, order, flips):
    geometry = grid().transposed(order).flipped(flips)
    one = volume(geometry)
    answer = plain.predict(one, probabilities=True)
    np.testing.assert_array_equal(answer.array, one.array > 100)
    np.testing.assert_array_equal(answer.labels.geometry.affine, geometry.affine)
    assert answer.array.dtype == np.uint8
    expected = 1 / (1 + np.exp(100 - one.array.astype(float)))
    np.testing.assert_allclose(answer.probabilities[1], expected, atol=1e-5)
    assert (answer.bundle_id, answer.notes) == (plain.bundle.id, ())


def test_postprocessing_and_mirrored_answers_are_part_of_the_bundle(bundled):
    rules = ({"type": "KeepLargest", "classes": ["bright"], "parts": 1, "together": False},)
    one = Volume(np.zeros((6, 8, 8), np.float32), grid(shape=(6, 8, 8)))
    one.array[1:4, 1:4, 1:4] = 150
    one.array[5, 6, 6] = 150
    kept = bundled(postprocessing=rules).predict(one).array
    assert (kept[1:4, 1:4, 1:4].all(), kept.sum()) == (True, 27)

    import paddle
    from paddle import nn

    class Before(nn.Layer):
        """Class 1 where the voxel before, along the last axis, is bright."""

        def __init__(self):
            super().__init__()
            self.model = bright()

        def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
            return self.model(nn.functional.pad(x[..., :-1], [1, 0, 0, 0, 0, 0], data_format="NCDHW"))

    plan = InferencePlan("tiles", (6, 8, 8), 0.5, 1, mirror=(2,))
    found = bundled(Before(), plan=plan).predict(one, probabilities=True).probabilities[1]
    bright_ones = (one.array > 100).astype(float)
    expected = np.zeros_like(bright_ones)
    expected[..., 1:] += bright_ones[..., :-1] / 2
    expected[..., :-1] += bright_ones[..., 1:] / 2
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_progress_is_told_tile_by_tile(plain):
    told = []
    plain.predict(volume(grid(shape=(6, 8, 12))), on_part=lambda *count: told.append(count))
    assert told == [(number, 4) for number in range(1, 5)]  # two positions of 4 in 6 slices, two of 8 in 12


# --- memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probabilities", [False, True])
def test_more_memory_than_is_allowed_is_refused_before_anything_is_made(plain, monkeypatch, probabilities):
    one = volume(grid(shape=(40, 64, 64)))
    voxels = one.array.size
    least = voxels * (4 + 1) + probabilities * voxels * 8  # as read, answer, probabilities
    with monkeypatch.context() as patched:
        patched.setattr("medseg_paddle.predictor.volumes.segment_volume", None)  # a call would be a TypeError
        with pytest.raises(MemoryShortError, match="MiB are allowed") as caught:
            plain.predict(one, max_memory=least, probabilities=probabilities)
    assert ("probabilities" in caught.value.hint) == probabilities
    told = []
    answer = plain.predict(one, max_memory=100 << 20, probabilities=probabilities, on_forecast=told.append)
    assert answer.array.any()
    (said,) = told
    assert said.startswith("40 x 64 x 64 voxels, about ")
    assert ("probabilities" in said) == probabilities


def test_of_a_part_that_is_cut_out_the_memory_is_known_when_it_is(bundled):
    large = volume(grid(shape=(40, 64, 64)))
    large.array[:] = 0
    large.array[:4, :8, :8] = 150
    predictor = bundled(preprocessing=VolumePreprocessing(crop="nonzero"))
    allowed = large.array.size * (4 + 1) + (8 << 20)
    assert predictor.predict(large, max_memory=allowed).array.sum() == 4 * 8 * 8
    with pytest.raises(MemoryShortError):
        predictor.predict(large, max_memory=1 << 20)


def test_a_region_takes_memory_to_find(bundled):
    large = volume(grid(shape=(40, 64, 64)), units="HU", low=-1000)
    window = HuWindow(100, 0.002)
    of_body = bundled(preprocessing=VolumePreprocessing(crop="body", normalization=window))
    needed = large.array.size * (4 + 7)
    with pytest.raises(MemoryShortError, match="to find the region"):
        of_body.predict(large, max_memory=needed - 1)


def test_a_limit_of_memory_is_for_3d_models(exported):
    with pytest.raises(RecipeError, match="3-D"):
        Predictor(exported, "cpu").predict(np.zeros((8, 8, 1), np.uint8), max_memory=1 << 30)


# --- unlike what was learned ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("geometry", "said"),
    [
        (grid(), None),
        (grid(rows=0.5 * BACK, columns=0.4 * LEFT), None),  # finer is averaged
        (grid(slices=2.5 * HEAD), None),
        (grid(slices=2.6 * HEAD), "along its slices the volume has voxels of 2.6 mm, coarser"),
        (grid(slices=0.8 * BACK, rows=3 * HEAD), "along its slices the volume has voxels of 3 mm"),
    ],
)
def test_voxels_that_are_coarser_than_all_that_were_learned_are_noted(bundled, geometry, said):
    isotropic = VolumePreprocessing(spacing=(1.0, 1.0, 1.0))
    answer = bundled(trained_on=seen(), preprocessing=isotropic).predict(volume(geometry))
    assert answer.array.shape == geometry.shape
    assert len(answer.notes) == (said is not None)
    if said:
        assert said in answer.notes[0]


@pytest.mark.parametrize(
    ("spacing", "geometry", "words"),
    [
        ((1.0, 1.0, 1.0), grid(slices=6.1 * HEAD), "structures of that size"),
        ((None, 1.0, 1.0), grid(slices=2.6 * HEAD), "slices .* takes them as they are"),
        ((1.0, None, 1.0), grid(rows=0.6 * BACK), "rows .* takes them as they are"),
        ((1.0, 1.0, 1.0), tilted(40), "tilted by 40 degrees .* by 0 at most"),
    ],
)
def test_volumes_too_far_from_what_was_learned_are_refused(bundled, spacing, geometry, words):
    predictor = bundled(trained_on=seen(), preprocessing=VolumePreprocessing(spacing=spacing))
    with pytest.raises(DataError, match=words):
        predictor.predict(volume(geometry))
    anything = bundled(trained_on=None, preprocessing=VolumePreprocessing(spacing=spacing))
    assert anything.predict(volume(geometry)).notes == ()


def test_a_model_of_tilted_volumes_takes_tilted_ones(bundled):
    one = volume(tilted(40))
    answer = bundled(trained_on=seen(tilt=40)).predict(one)
    np.testing.assert_array_equal(answer.array, one.array > 100)


def test_numbers_without_units_are_hounsfield_units_for_a_model_of_those(bundled):
    window = VolumePreprocessing(normalization=HuWindow(100, 0.002))  # 0 below 100, 1 above
    lung = bundled(bright(at=0.5), trained_on=seen(("HU",)), preprocessing=window)
    one = volume(units="HU", low=-100)
    expected = lung.predict(one)
    assert expected.notes == ()
    unknown = lung.predict(Volume(one.array, one.geometry))
    np.testing.assert_array_equal(unknown.array, expected.array)
    assert unknown.notes == ()
    (note,) = lung.predict(Volume(np.abs(one.array), one.geometry)).notes
    assert "none is below 0" in note
    with pytest.raises(DataError, match="arbitrary units"):
        lung.predict(volume())


def test_a_picture_is_refused(plain, tmp_path):
    with pytest.raises(DataError, match="takes volumes"):
        plain.predict(np.zeros((8, 8, 1), np.uint8))
    for name in ("a.png", "slice.dcm"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(DataError, match=f"{name} is one picture or slice"):
            plain.predict_file(tmp_path / name)


def test_a_graph_of_other_classes_than_its_description_names_is_refused(plain, tmp_path):
    folder = Path(shutil.copytree(plain.bundle.path, tmp_path / "b"))
    content = json.loads((folder / "bundle.json").read_text())
    content["labels"].append({"index": 2, "name": "more", "color": [1, 2, 3]})
    (folder / "bundle.json").write_text(json.dumps(content))
    np.save(folder / "sample" / "output.npy", np.zeros((3, 4, 8, 8), np.float32))
    with pytest.raises(ModelError, match=r"makes \(2, 4, 8, 8\), its description says \(3, 4, 8, 8\)"):
        Predictor(sealed(folder), "cpu")


def test_a_network_that_answers_no_numbers_is_noticed(bundled, monkeypatch):
    predictor = bundled()
    monkeypatch.setattr(
        predictor, "_forward", lambda batch: np.full((len(batch), 2, *batch.shape[2:]), np.nan, np.float32)
    )
    with pytest.raises(ModelError, match="not numbers"):
        predictor.predict(volume())
    with pytest.raises(ModelError, match="sample differs"):
        predictor.self_check()


# --- channels ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_two(bundled) -> Predictor:
    return bundled(bright(2), in_channels=2, files_per_case=2)


def test_channels_come_together_on_one_grid(of_two):
    first, second = volume(), volume()
    np.testing.assert_array_equal(of_two.predict((first, second)).array, second.array > 100)
    rounded = Geometry(second.geometry.shape, second.geometry.affine + 1e-3)
    answer = of_two.predict((first, Volume(second.array, rounded)))
    np.testing.assert_array_equal(answer.array, second.array > 100)
    with pytest.raises(DataError, match=r"1 volume\(s\) are given, the model takes 2"):
        of_two.predict(first)
    moved = Geometry(second.geometry.shape, second.geometry.affine + 0.1)
    with pytest.raises(DataError, match="one grid"):
        of_two.predict((first, Volume(second.array, moved)))


def test_channels_come_as_a_fourth_axis_or_a_file_each(of_two, tmp_path):
    array = RNG.integers(0, 200, (6, 8, 9, 2)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1, 2, 1])), tmp_path / "both.nii.gz")
    for channel in range(2):
        image = nibabel.Nifti1Image(array[..., channel], np.diag([1, 1, 2, 1]))
        nibabel.save(image, tmp_path / f"case_{channel:04d}.nii.gz")
    np.testing.assert_array_equal(of_two.predict_file(tmp_path / "both.nii.gz").array.T, array[..., 1] > 100)
    summary = predict(of_two.bundle.path, sorted(tmp_path.glob("*.nii.gz")), tmp_path / "out", overlays=False)
    assert summary.failures == ()
    for name in ("both", "case"):
        mask = np.asarray(nibabel.load(tmp_path / "out" / f"{name}_mask.nii.gz").dataobj)
        np.testing.assert_array_equal(mask, array[..., 1] > 100)


# --- files ------------------------------------------------------------------------------------------------


def test_every_format_gives_the_same_mask_at_the_same_place(plain, tmp_path):
    one = volume(grid(slices=-2 * HEAD, columns=-0.7 * LEFT))
    image = SimpleITK.GetImageFromArray(one.array.astype(np.int16))  # its axes are column, row, slice
    image.SetSpacing((0.7, 0.8, 2.0))
    image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, -1))
    image.SetOrigin((20, -30, 40))
    names = ("a.nii.gz", "b.nrrd", "c.mha")
    for name in names:
        SimpleITK.WriteImage(image, str(tmp_path / name))
    summary = predict(plain.bundle.path, [tmp_path / name for name in names], tmp_path / "out")
    assert summary.failures == ()
    for name in "abc":
        mask = SimpleITK.ReadImage(str(tmp_path / "out" / f"{name}_mask.nii.gz"))
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask), one.array > 100)
        np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(mask.GetDirection(), image.GetDirection(), atol=1e-5)
        assert (tmp_path / "out" / f"{name}_overlay.png").is_file()
    assert summary.results[0].extents[0].millilitres == pytest.approx(
        (one.array > 100).sum() * 0.7 * 0.8 * 2 / 1000
    )


def places(path: Path) -> set[tuple[float, ...]]:
    """Where a mask's voxels lie, RAS mm, by nibabel."""
    image = nibabel.load(path)
    found = np.argwhere(np.asarray(image.dataobj) == 1)
    return {tuple(one) for one in nibabel.affines.apply_affine(image.affine, found).round(2) + 0.0}


def test_a_series_in_any_order_and_direction_is_segmented_at_the_patient_s_places(
    bundled, tmp_path, write_series
):
    predictor = bundled(preprocessing=VolumePreprocessing(spacing=(1.5, 1.0, 1.0)))
    array = np.full((8, 20, 24), -500, np.int16)
    array[4:7, 3:9, 14:20] = 700  # to the patient's left, front and head
    write_series(tmp_path / "plain", array)
    write_series(tmp_path / "turned", array[:, ::-1, ::-1])
    files = sorted((tmp_path / "turned").iterdir())
    for number, path in enumerate(files):  # rows to the front, columns to the right, files from head to feet
        header = pydicom.dcmread(path)
        header.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
        x, y, z = header.ImagePositionPatient
        header.ImagePositionPatient = [x + 23 * 0.7, y + 19 * 0.8, z]
        header.save_as(tmp_path / "turned" / f"z{len(files) - number:03}.dcm")
        path.unlink()
    affine = np.diag([-0.7, -0.8, 2, 1])
    affine[:3, 3] = 40, 30, 100
    nibabel.save(nibabel.Nifti1Image(array.T, affine), tmp_path / "file.nii.gz")
    inputs = [tmp_path / name for name in ("plain", "turned", "file.nii.gz")]
    summary = predict(predictor.bundle.path, inputs, tmp_path / "out", overlays=False)
    assert summary.failures == ()
    found = [places(tmp_path / "out" / f"{name}_mask.nii.gz") for name in ("plain", "turned", "file")]
    assert found[0] == found[1] == found[2]
    low, high = np.min(list(found[0]), axis=0), np.max(list(found[0]), axis=0)
    np.testing.assert_allclose(
        low, [40 - 0.7 * 19, 30 - 0.8 * 8, 108], atol=0.71
    )  # a voxel, of interpolation
    np.testing.assert_allclose(high, [40 - 0.7 * 14, 30 - 0.8 * 3, 112], atol=0.71)


def test_a_volume_that_is_too_large_fails_alone_and_notes_are_told(bundled, tmp_path):
    predictor = bundled(trained_on=seen(), preprocessing=VolumePreprocessing(spacing=(1.0, 1.0, 1.0)))
    for name, shape in (("large", (80, 90, 90)), ("small", (9, 9, 9))):
        array = RNG.integers(0, 200, shape).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(array, np.diag([0.7, 0.8, 3, 1])), tmp_path / f"{name}.nii.gz")
    files = [tmp_path / "large.nii.gz", tmp_path / "small.nii.gz"]
    summary = predict(predictor.bundle.path, files, tmp_path / "out", overlays=False, max_memory=8 << 20)
    assert [one.name for one in summary.results] == ["small"]
    assert "MiB are allowed" in summary.failures[0].message
    (note,) = summary.notes
    assert note.startswith("small: along its slices the volume has voxels of 3 mm")
    assert "note: small" in str(summary)


def test_a_limit_of_memory_for_a_bundle_of_pictures_is_refused(exported, tmp_path):
    with pytest.raises(RecipeError, match="model of pictures"):
        predict(exported, [tmp_path], tmp_path / "out", max_memory=1 << 30)
