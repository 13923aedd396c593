from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg_paddle.bundle import Bundle, ParityError
from medseg_paddle.errors import ModelError, SetupError
from medseg_paddle.preprocess import InferencePlan, Preprocessing, segment

NOTHING = Preprocessing(())
RNG = np.random.default_rng(11)


def pictures(channels: int, *sizes: tuple[int, int]) -> list[np.ndarray]:
    return [RNG.uniform(0, 255, (*size, channels)).astype(np.float32) for size in sizes]


@pytest.fixture(scope="module")
def saved(tmp_path_factory, small_unet):
    """A U-Net saved once, its folder's name with a blank and an umlaut, as users have them."""
    from medseg_paddle.engine.static_graph import save_static

    model = small_unet(in_channels=3)
    prefix = tmp_path_factory.mktemp("übung 1") / "model"
    save_static(model, prefix, 3)
    return model, prefix


@pytest.fixture(scope="module")
def static(saved):
    from medseg_paddle.engine.static_graph import load_static

    return load_static(saved[1], "cpu", threads=1)


@pytest.mark.parametrize(
    "shape", [(1, 3, 32, 32), (2, 3, 48, 80), (1, 3, 33, 47), (3, 3, 16, 160), (1, 3, 2, 2)]
)
def test_any_size_and_batch_gives_the_model_s_probabilities(saved, static, dynamic, shape):
    batch = RNG.normal(size=shape).astype(np.float32)
    found = static(batch)
    assert found.dtype == np.float32
    assert found.shape == (shape[0], 3, *shape[2:])
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found, dynamic(saved[0])(batch), atol=1e-5)


def test_the_answer_does_not_change_when_the_next_one_is_computed(static):
    one = RNG.normal(size=(1, 3, 16, 16)).astype(np.float32)
    first = static(one)
    kept = first.copy()
    static(-one)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(
        static(one[:, :, :, ::-1]), static(np.ascontiguousarray(one[:, :, :, ::-1]))
    )


@pytest.fixture
def threads(monkeypatch):
    """Tells how many threads OpenMP and MKL have in this process; three of OpenMP's during the test."""
    import ctypes

    import paddle

    from medseg_paddle.engine import cpu

    libraries = Path(paddle.__file__).parent / "libs"
    openmp = ctypes.CDLL(str(libraries / "libiomp5.so")).omp_get_max_threads
    mkl = ctypes.CDLL(str(libraries / "libmklml_intel.so")).MKL_Get_Max_Threads
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    paddle.base.core.set_num_threads(3)
    yield lambda: (openmp(), mkl())
    monkeypatch.undo()
    paddle.base.core.set_num_threads(cpu.maths_threads())


def test_a_prediction_leaves_the_process_as_many_threads_as_it_had(saved, static, threads):
    from medseg_paddle.engine.static_graph import load_static

    before = threads()  # MKL takes no more than there are cores
    assert before[0] == 3
    static(np.zeros((1, 3, 16, 16), np.float32))
    assert threads() == before
    load_static(saved[1], "cpu", threads=1)
    assert threads() == before


def test_stock_predictions_leave_it_one(saved, threads):
    from paddle import inference

    from medseg_paddle.engine.static_graph import graph_files

    config = inference.Config(*map(str, graph_files(saved[1])))
    config.set_cpu_math_library_num_threads(2)
    predictor = inference.create_predictor(config)
    predictor.get_input_handle("image").copy_from_cpu(np.zeros((1, 3, 16, 16), np.float32))
    predictor.run()
    assert threads() == (1, 1)


def test_parity_is_measured_on_the_padded_sizes_the_plan_makes_and_on_a_pair(saved, static, dynamic):
    from medseg_paddle.engine.static_graph import compare

    images = pictures(3, (37, 51), (64, 32))
    parity = compare(dynamic(saved[0]), static, images, NOTHING, InferencePlan(divisor=16))
    assert parity.shapes == ((2, 3, 48, 64), (1, 3, 48, 64), (1, 3, 64, 32))
    assert 0 <= parity.max_difference < 1e-4  # numbers up to 255 go into this network
    assert parity.differing_pixels < 1e-3


def test_parity_numbers_are_those_worked_out_by_hand():
    from medseg_paddle.engine.static_graph import compare

    def says(first_class):
        row = np.array(first_class, np.float32)
        return lambda batch: np.broadcast_to(np.stack([row, 1 - row])[None, :, None], (len(batch), 2, 1, 4))

    image = np.zeros((1, 4, 1), np.float32)
    parity = compare(
        says([0.9, 0.8, 0.6, 0.5]), says([0.9, 0.8, 0.3, 0.5]), [image], NOTHING, InferencePlan(divisor=1)
    )
    assert parity.max_difference == pytest.approx(0.3)
    assert parity.differing_pixels == 0.25


def test_a_nan_in_the_graph_is_a_difference():
    from medseg_paddle.engine.static_graph import compare

    calls = iter([np.nan, 0.5, 0.5])
    parity = compare(
        lambda batch: np.full((len(batch), 2, 4, 4), 0.5, np.float32),
        lambda batch: np.full((len(batch), 2, 4, 4), next(calls), np.float32),
        [np.zeros((4, 4, 1), np.float32)],
        NOTHING,
        InferencePlan(divisor=1),
    )
    assert np.isnan(parity.max_difference)


@pytest.mark.parametrize("spoil", ["weights changed after the save", "dropout left on"])
def test_a_graph_that_differs_is_not_exported(tmp_path, small_unet, dynamic, description, spoil):
    from medseg_paddle.core import LabelSet
    from medseg_paddle.engine.static_graph import compare, load_static, save_static

    model = small_unet(dropout=0.5)
    said = description(labels=LabelSet.generic(3))
    image = pictures(1, (40, 40))[0]

    def export() -> None:
        with Bundle.create(tmp_path / "bundle", said) as draft:
            save_static(model, draft.graph_prefix, 1)
            if spoil == "dropout left on":
                model.train()
            else:
                model.head.weight.set_value(model.head.weight * 1.01)
            static = load_static(draft.graph_prefix, "cpu", threads=1)
            parity = compare(dynamic(model), static, [image], said.preprocessing, said.plan)
            draft.accept(parity, image, segment(static, image, said.preprocessing, said.plan))

    with pytest.raises(ParityError, match="differs from the trained model"):
        export()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.json", "model.pdiparams"])
@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_a_graph_that_cannot_be_loaded_is_a_model_error(tmp_path, saved, name, content):
    from medseg_paddle.engine.static_graph import graph_files, load_static

    for path in graph_files(saved[1]):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_static(tmp_path / "model", "cpu", threads=1)


def test_a_batch_the_graph_cannot_take_is_a_model_error_and_the_next_one_works(static):
    with pytest.raises(ModelError, match=r"cannot process a batch of shape \(1, 1, 16, 16\)"):
        static(np.zeros((1, 1, 16, 16), np.float32))
    assert static(np.zeros((1, 3, 16, 16), np.float32)).shape == (1, 3, 16, 16)


def test_a_gpu_without_cuda_is_refused(saved):
    import paddle

    from medseg_paddle.engine.static_graph import load_static

    if paddle.is_compiled_with_cuda():
        pytest.skip("this Paddle has CUDA")
    with pytest.raises(SetupError, match="no GPU support"):
        load_static(saved[1], "gpu:0", threads=1)
