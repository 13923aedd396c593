from __future__ import annotations

import json
import shutil

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg_paddle.bundle import Bundle
from medseg_paddle.core import Geometry, LabelMap, LabelSet, Volume
from medseg_paddle.errors import DataError, ModelError, SetupError
from medseg_paddle.predictor import Predictor
from medseg_paddle.preprocess import InferencePlan, Preprocessing, segment

RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def predictor(exported) -> Predictor:
    return Predictor(exported)


@pytest.fixture(scope="module")
def edges(tmp_path_factory, write_bundle, edge_model, description) -> Predictor:
    destination = tmp_path_factory.mktemp("edges") / "bundle"
    return Predictor(write_bundle(destination, edge_model(), description()).path, "cpu")


@pytest.mark.parametrize("size", [(1, 1), (17, 23), (64, 64), (301, 33)])
def test_a_picture_is_answered_pixel_by_pixel_in_its_own_size(predictor, size):
    picture = RNG.integers(0, 256, (*size, 1)).astype(np.uint8)
    answer = predictor.predict(picture)
    assert answer.labels.dtype == np.uint8
    np.testing.assert_array_equal(answer.labels, picture[:, :, 0] > 127)
    assert answer.probabilities is None
    assert answer.bundle_id == predictor.bundle.id
    assert answer.seconds > 0


def test_probabilities_on_request_are_the_model_s_by_hand(predictor):
    answer = predictor.predict(np.array([[[0.0], [127.5], [140.25]]]), probabilities=True)
    expected = 1 / (1 + np.exp(-20 * np.array([-1, 0, 0.1])))
    assert answer.probabilities.shape == (2, 1, 3)
    np.testing.assert_allclose(answer.probabilities[1, 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("specs", "plan"),
    [
        ([{"type": "Resize", "target_size": [48, 32]}], InferencePlan(divisor=16)),
        ([{"type": "ResizeByLong", "long_size": 50}], InferencePlan(mode="tiles", tile=(32, 32), divisor=16)),
        ([], InferencePlan(mode="tiles", tile=(32, 48), overlap=0.25, divisor=16)),
    ],
)
def test_the_predictor_equals_the_trained_model_on_the_same_path(
    tmp_path, write_bundle, small_unet, dynamic, description, specs, plan
):
    steps = Preprocessing.from_specs([*specs, {"type": "Normalize", "mean": [0.4], "std": [0.3]}])
    model = small_unet()
    said = description(preprocessing=steps, plan=plan, labels=LabelSet.generic(3))
    picture = RNG.uniform(0, 255, (71, 93, 1)).astype(np.float32)
    answer = Predictor(write_bundle(tmp_path / "b", model, said).path, "cpu").predict(
        picture, probabilities=True
    )
    expected = segment(dynamic(model), picture, steps, plan)
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)
    assert (answer.labels != expected.argmax(axis=0)).mean() < 1e-3


def test_tiles_and_the_whole_agree_on_a_large_picture(tmp_path, write_bundle, small_unet, description):
    model, picture = small_unet(), RNG.uniform(0, 255, (640, 896, 1)).astype(np.float32)
    answers = [
        Predictor(
            write_bundle(
                tmp_path / plan.mode, model, description(plan=plan, labels=LabelSet.generic(3))
            ).path,
            "cpu",
        ).predict(picture, probabilities=True)
        for plan in (InferencePlan(divisor=16), InferencePlan("tiles", (256, 256), 0.5, 16))
    ]
    whole, tiled = (answer.probabilities for answer in answers)
    # Tiles start at multiples of 128, so that pooling meets the same pairs of pixels as in the whole.
    # This network looks 6 pixels far: within them of a tile's border it answers otherwise there, at a
    # weight of exp(-(1 - 6 / 128)**2 * 8) = 0.0007 against the neighbour's centre.
    assert np.abs(tiled - whole).max() < 2e-3
    far = np.abs(np.arange(640) % 128 - 64) < 50
    np.testing.assert_allclose(tiled[:, far][:, :, 8:120], whole[:, far][:, :, 8:120], atol=1e-4)


def test_pictures_are_answered_after_postprocessing(tmp_path, write_bundle, threshold_model, description):
    rules = ({"type": "KeepLargest"}, {"type": "RemoveSmall", "pixels": 5})
    kept = Predictor(
        write_bundle(tmp_path / "b", threshold_model(), description(postprocessing=rules)).path, "cpu"
    )
    picture = np.zeros((9, 12, 1), np.uint8)
    picture[1:3, 1:4] = picture[6:8, 8:10] = 200
    answer = kept.predict(picture, probabilities=True)
    assert answer.array[1:3, 1:4].all()
    assert answer.array.sum() == 6
    assert (answer.probabilities[1] > 0.5).sum() == 10  # what the network said
    assert not kept.predict(picture[:, 6:]).array.any()
    with pytest.raises(DataError, match=r"does not segment volumes: .*pixels"):
        kept.predict(Volume(np.zeros((2, 8, 8), np.float32), axial((2, 8, 8))))


def test_slices_are_postprocessed_as_their_volume(tmp_path, write_bundle, threshold_model, description):
    rules = ({"type": "KeepLargest"}, {"type": "RemoveSmall", "ml": 0.001})
    kept = Predictor(
        write_bundle(tmp_path / "b", threshold_model(), description(postprocessing=rules)).path, "cpu"
    )
    array = np.zeros((4, 9, 12), np.float32)
    array[:, 1, 1] = 200  # four voxels in a row across the slices
    array[2, 5:7, 8] = 200
    found = kept.predict(Volume(array, axial(array.shape))).array  # of 1.12 mm3 each
    assert found[:, 1, 1].all()
    assert found.sum() == 4
    assert not kept.predict(Volume(array / 2, axial(array.shape))).array.any()
    with pytest.raises(DataError, match=r"does not segment pictures: .*ml"):
        kept.predict(np.zeros((8, 8, 1), np.uint8))


def test_mirrored_answers_are_averaged_as_the_bundle_says(tmp_path, write_bundle, edge_model, description):
    plan = InferencePlan(divisor=16, mirror=(1,))
    both = Predictor(write_bundle(tmp_path / "b", edge_model(), description(plan=plan)).path, "cpu")
    picture = np.zeros((16, 16, 1), np.uint8)
    picture[:, 8:] = 200  # brighter to the right of column 7; in the mirror the step goes down
    found = both.predict(picture, probabilities=True).probabilities[1]
    one = 1 / (1 + np.exp(4 - 20 * 200 / 127.5))
    np.testing.assert_allclose(found[4, 7], (one + 1 / (1 + np.exp(4))) / 2, atol=1e-5)


def axial(shape, **turned) -> Geometry:
    """2 x 0.8 x 0.7 mm; LPS index axes unless turned."""
    affine = np.diag([0.0, 0, 0, 1])
    affine[2, 0], affine[1, 1], affine[0, 2] = 2, turned.get("rows", 1) * 0.8, turned.get("columns", 1) * 0.7
    return Geometry(shape, affine)


def test_a_volume_is_answered_on_its_own_grid(predictor):
    array = RNG.integers(0, 256, (3, 20, 31)).astype(np.float32)
    answer = predictor.predict(Volume(array, axial(array.shape)), probabilities=True)
    assert isinstance(answer.labels, LabelMap)
    assert answer.labels.geometry.affine.tolist() == axial(array.shape).affine.tolist()
    assert answer.labels.labels.names == ("background", "bright")
    np.testing.assert_array_equal(answer.array, array > 127)
    assert answer.probabilities.shape == (2, 3, 20, 31)
    np.testing.assert_array_equal(answer.probabilities.argmax(axis=0), answer.array)


def test_the_bundle_s_window_makes_grey_values_of_hounsfield_units(
    tmp_path, write_bundle, threshold_model, description
):
    from medseg_paddle.description import Window

    said = description(window=Window(level=-600, width=1500))
    lung = Predictor(write_bundle(tmp_path / "b", threshold_model(), said).path, "cpu")
    hounsfield = np.array([[[-2000, -700, -610, -590, 0, 3000]]], np.float32)
    # Grey 127 ends at -601 HU: (127.5 / 255 - 0.5) * 1500 - 600 = -600.
    assert lung.predict(Volume(hounsfield, axial((1, 1, 6)))).array.tolist() == [[[0, 0, 0, 1, 1, 1]]]


def test_a_grey_volume_feeds_a_network_of_three_channels(
    tmp_path, write_bundle, threshold_model, description
):
    colour = Predictor(
        write_bundle(tmp_path / "b", threshold_model(3), description(in_channels=3)).path, "cpu"
    )
    array = RNG.integers(0, 256, (2, 9, 9)).astype(np.float32)
    np.testing.assert_array_equal(colour.predict(Volume(array, axial(array.shape))).array, array > 127)


@pytest.mark.parametrize(("rows", "columns"), [(1, -1), (-1, 1), (-1, -1)])
def test_storage_order_does_not_change_what_is_found_in_the_patient(edges, rows, columns):
    array = RNG.integers(0, 256, (2, 24, 40)).astype(np.float32)
    expected = edges.predict(Volume(array, axial(array.shape))).array
    # By hand: class 1 where the neighbour to the patient's left is brighter by more than 25.5.
    rise = np.zeros(array.shape, bool)
    rise[:, :, :-1] = np.diff(array, axis=2) > 25.5
    np.testing.assert_array_equal(expected[:, :, :-1], rise[:, :, :-1])
    turned = array[:, ::rows, ::columns]
    found = edges.predict(Volume(turned, axial(array.shape, rows=rows, columns=columns))).array
    np.testing.assert_array_equal(found[:, ::rows, ::columns], expected)


def test_files_of_every_kind(predictor, tmp_path, write_series):
    grey = RNG.integers(0, 256, (21, 13)).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(predictor.predict_file(tmp_path / "grey.png").array, grey > 127)
    stored = RNG.integers(0, 256, (5, 6, 2)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(stored, np.diag([2, 2, 3, 1])), tmp_path / "v.nii.gz")
    np.testing.assert_array_equal(predictor.predict_file(str(tmp_path / "v.nii.gz")).array, stored.T > 127)
    write_series(tmp_path / "ct", stored.T)
    np.testing.assert_array_equal(predictor.predict_file(tmp_path / "ct").array, stored.T > 127)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((8, 8), np.uint8), "shape"),
        (np.zeros((8, 8, 3), np.uint8), r"\[height, width, 1\]"),
        (np.zeros((0, 8, 1), np.uint8), "shape"),
        (np.zeros((8, 8, 1), np.uint16), "uint16"),
        (np.full((8, 8, 1), np.nan), "not finite"),
    ],
)
def test_a_picture_the_model_does_not_take_is_refused(predictor, picture, message):
    with pytest.raises(DataError, match=message):
        predictor.predict(picture)


def test_a_volume_for_a_bundle_of_pictures_is_refused(tmp_path, write_bundle, threshold_model, description):
    pictures = Predictor(write_bundle(tmp_path / "b", threshold_model(), description(window=None)).path)
    with pytest.raises(ModelError, match="no window for volumes"):
        pictures.predict(Volume(np.zeros((2, 8, 8), np.float32), axial((2, 8, 8))))


def test_weights_that_give_no_numbers_are_noticed(tmp_path, predictor, monkeypatch):
    monkeypatch.setattr(
        predictor, "_forward", lambda batch: np.full((1, 2, *batch.shape[2:]), np.nan, np.float32)
    )
    with pytest.raises(ModelError, match="not numbers"):
        predictor.predict(np.zeros((8, 8, 1), np.uint8))


def test_self_check_repeats_the_export_s_answer_and_notices_another(predictor, monkeypatch):
    assert predictor.self_check() <= 1e-6
    forward = predictor._forward
    monkeypatch.setattr(predictor, "_forward", lambda batch: forward(batch + np.float32(0.01)))
    with pytest.raises(ModelError, match="sample differs"):
        predictor.self_check()


def test_a_machine_that_computes_something_else_is_noticed_as_the_bundle_is_loaded(exported, monkeypatch):
    from medseg_paddle.engine import static_graph

    load = static_graph.load_static

    def spoilt(*arguments, **options):
        forward = load(*arguments, **options)
        return lambda batch: forward(batch[..., ::-1])

    monkeypatch.setattr(static_graph, "load_static", spoilt)
    with pytest.raises(ModelError, match="sample differs"):
        Predictor(exported, "cpu")


def test_rounding_on_another_machine_is_no_error(exported, monkeypatch):
    from medseg_paddle.engine import static_graph

    load = static_graph.load_static

    def rounded(*arguments, **options):
        forward = load(*arguments, **options)
        return lambda batch: forward(batch).round(2)

    monkeypatch.setattr(static_graph, "load_static", rounded)
    Predictor(exported, "cpu")


def test_a_bundle_a_path_and_a_string_are_taken(exported):
    found = {Predictor(one, "cpu").bundle.id for one in (exported, str(exported), Bundle.open(exported))}
    assert len(found) == 1


def test_slices_done_are_reported(predictor):
    seen = []
    volume = Volume(np.zeros((3, 8, 8), np.float32), axial((3, 8, 8)))
    predictor.predict(volume, on_part=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_spoilt_bundle_does_not_load(bundle):
    weights = bundle / "model.pdiparams"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelError, match="changed since the export"):
        Predictor(bundle)


def test_a_gpu_that_is_not_there_is_refused(exported):
    import paddle

    if paddle.is_compiled_with_cuda():
        pytest.skip("this Paddle has CUDA")
    with pytest.raises(SetupError, match="gpu"):
        Predictor(exported, "gpu")


def test_a_moved_bundle_works(exported, tmp_path, predictor):
    moved = Predictor(shutil.copytree(exported, tmp_path / "anders wohin"))
    assert moved.bundle.id == predictor.bundle.id
    assert str(exported) not in json.dumps(json.loads((exported / "bundle.json").read_text()))
    assert moved.predict(np.full((4, 4, 1), 200, np.uint8)).labels.all()


def test_the_answer_is_postprocessed_in_pictures_and_in_whole_volumes(
    tmp_path, write_bundle, threshold_model, description
):
    rules = ({"type": "KeepLargest", "classes": ["bright"], "connectivity": "faces"},)
    bundle = write_bundle(tmp_path / "bundle", threshold_model(), description(postprocessing=rules))
    predictor = Predictor(bundle.path, "cpu")
    picture = np.zeros((6, 8, 1), np.uint8)
    picture[0, 0] = picture[3:, 4:] = 255
    assert np.count_nonzero(predictor.predict(picture).labels) == 12
    # In each slice the other part is larger; in the volume the column is.
    array = np.zeros((5, 6, 8), np.float32)
    array[:, 0, 0] = 255
    array[2, 3:5, 3:5] = 255
    volume = Volume(array, Geometry(array.shape, np.diag([3.0, 1, 1, 1])), units="HU")
    expected = np.zeros(array.shape, bool)
    expected[:, 0, 0] = True
    np.testing.assert_array_equal(predictor.predict(volume).array, expected)


def test_a_bundle_with_a_rule_for_another_class_does_not_open(
    tmp_path, write_bundle, threshold_model, description
):
    bundle = write_bundle(tmp_path / "bundle", threshold_model(), description())
    text = json.loads((bundle.path / "bundle.json").read_text())
    assert text["postprocessing"] == []
    with pytest.raises(ModelError, match="spleen"):
        write_bundle(
            tmp_path / "other",
            threshold_model(),
            description(postprocessing=({"type": "KeepLargest", "classes": ["spleen"]},)),
        )
