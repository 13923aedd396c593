"""What PaddleSeg 2.8.0 still does wrong on this Paddle. A test that fails here says: this fix can go."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddleseg.models.losses import CrossEntropyLoss, DiceLoss
from paddleseg.transforms import RandomPaddingCrop, ScalePadding
from paddleseg.utils import metrics
from visualdl import LogWriter

LOGITS = paddle.zeros([1, 2, 4, 4])
LABELS = paddle.full([1, 4, 4], 255, "int64")


def test_stock_cross_entropy_cannot_be_computed() -> None:
    with pytest.raises(TypeError):
        CrossEntropyLoss()(LOGITS, LABELS)


def test_stock_dice_cannot_be_indexed_and_changes_the_labels() -> None:
    labels = LABELS.clone()
    loss = DiceLoss()(LOGITS, labels)
    assert loss.ndim == 0
    assert (labels.numpy() == 0).any()


def test_stock_evaluation_cannot_count_areas() -> None:
    prediction, label = paddle.zeros([1, 1, 4, 4], "int64"), paddle.zeros([1, 1, 4, 4], "int64")
    with pytest.raises(ValueError, match=r"(?i)concat|axis|rank|dimension"):
        metrics.calculate_area(prediction, label, 2)


def test_stock_sampler_is_empty_for_a_set_smaller_than_a_batch() -> None:
    class Three(paddle.io.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> np.ndarray:
            return np.zeros(1)

    assert (
        len(list(paddle.io.DistributedBatchSampler(Three(), batch_size=4, shuffle=True, drop_last=True))) == 0
    )


def test_stock_writer_starts_a_new_file_for_each_session(tmp_path: Path) -> None:
    import time

    for _ in range(2):
        with LogWriter(str(tmp_path)) as writer:
            writer.add_scalar("loss", 1.0, 0)
        time.sleep(1.1)
    assert len(list(tmp_path.glob("*vdlrecords*"))) == 2


def test_stock_training_neither_loads_an_average_or_a_scaler_nor_looks_at_its_loss() -> None:
    module = importlib.import_module("paddleseg.core.train")
    loop, resume = inspect.getsource(module.train), inspect.getsource(module.resume)
    assert "ema" not in resume
    assert "scaler" not in resume
    assert "state_dict" not in loop.partition("while iter < iters")[0], "nothing is loaded before the loop"
    assert not re.search("isnan|isfinite|bf16|bfloat16", loop)
    # An average that is not the best at its first evaluation; and where our hook is.
    assert "best_ema_model_iter =" not in loop.partition("while iter < iters")[0]
    assert loop.count("float(") == 1
    # Of several processes each has its own loss, and Paddle takes the mean of their gradients.
    assert "ddp_model = paddle.distributed.fleet.distributed_model(model)" in loop
    assert "all_gather" not in loop


def test_stock_save_leaves_a_part_of_a_file_where_a_file_was(tmp_path: Path) -> None:
    program = f"""
import os, paddle
path = {str(tmp_path / "model.pdparams")!r}
class Kills:
    def __reduce__(self):
        os._exit(9)
paddle.save({{"a": 1}}, path)
before = os.path.getsize(path)
paddle.save({{"a": "x" * 10**6, "b": Kills()}}, path)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    with pytest.raises(Exception, match=r".*"):
        paddle.load(str(tmp_path / "model.pdparams"))


def test_stock_scale_padding_makes_labels_that_were_not_there() -> None:
    label = np.zeros((40, 60), np.uint8)
    label[10:30, 20:40] = 2
    data = {"img": np.zeros((40, 60, 3), np.float32), "label": label, "gt_fields": ["label"]}
    assert set(np.unique(ScalePadding((37, 41))(data)["label"])) - {0, 2, 255}


def test_stock_padding_crop_gives_the_label_for_the_image() -> None:
    label = np.zeros((40, 60), np.uint8)
    label[:, ::2] = 1
    data = {"img": np.full((40, 60, 3), 90, np.float32), "label": label, "gt_fields": ["label"]}
    data = RandomPaddingCrop((20, 20), category_max_ratio=0.75)(data)
    np.testing.assert_array_equal(data["img"], data["label"])


def test_paddle_takes_sigterm_as_it_is_imported() -> None:
    program = "import os, signal, paddle; os.kill(os.getpid(), signal.SIGTERM)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "C++ Traceback" in done.stdout + done.stderr


def test_stock_visualdl_goes_on_when_a_record_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with LogWriter(str(tmp_path)) as writer:
        monkeypatch.setattr("visualdl.io.bfile.LocalFileSystem.append", full)
        writer.add_scalar("loss", 1.0, 0)
        writer.flush()
    assert "No space left" in capsys.readouterr().out


def test_the_stock_average_leaves_whole_numbers_as_they_were() -> None:
    from paddleseg.utils import update_ema_model

    average, model = paddle.nn.ReLU(), paddle.nn.ReLU()
    for layer, steps in ((average, 0), (model, 5)):
        layer.register_buffer("steps", paddle.full([1], steps, "int64"))
    update_ema_model(average, model, step=1)
    assert average.steps.item() == 0
