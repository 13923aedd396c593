"""Where Paddle computes."""

from __future__ import annotations

import os

import paddle

from medseg_paddle.config import Recipe
from medseg_paddle.engine.cpu_kernels import expected_cpu_kernels
from medseg_paddle.engine.ordered_interpolation import interpolate_in_order
from medseg_paddle.errors import SetupError

# What lets a GPU choose another order of additions from run to run. Paddle refuses the first together with
# an exhaustive search. The gradient of interpolation has no flag, see `ordered_interpolation`; what else there is:
# docs/howto/reproduce.md.
DETERMINISTIC_FLAGS = {
    "FLAGS_cudnn_deterministic": True,
    "FLAGS_cudnn_exhaustive_search": False,
    "FLAGS_embedding_deterministic": 1,
}
# Read by cuBLAS and cuDNN when they start. TF32 repeats itself, but not on a GPU of another generation.
_NO_TF32 = ("NVIDIA_TF32_OVERRIDE", "0")


def set_device(device: str, precision: str = "fp32", *, deterministic: bool = False) -> str:
    """Choose the device of this process.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"gpu"`` or ``"auto"`` (a GPU if there is one).
    precision : str
        ``"fp16"`` needs a GPU. ``"bf16"`` one that can; on a CPU see :mod:`medseg_paddle.engine.cpu_kernels`.
    deterministic : bool
        Let a GPU compute the same bits each time, as far as Paddle can. To be asked for before anything was
        computed; without effect on a CPU.

    Returns
    -------
    str
        What was chosen, ``"cpu"`` or ``"gpu:N"``.

    Raises
    ------
    SetupError
        The device is not there, or cannot compute in that precision.
    """
    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if device == "gpu" and gpus == 0:
        why = (
            "Paddle sees none" if paddle.is_compiled_with_cuda() else "the installed Paddle is the CPU build"
        )
        raise SetupError(
            f"device gpu is asked for, but {why}",
            hint="set `device: cpu` (or auto), or install paddlepaddle-gpu; `medseg doctor` shows what is there",
        )
    use_gpu = gpus > 0 and device != "cpu"
    if precision == "fp16" and not use_gpu:
        raise SetupError(
            "precision fp16 works on GPU only; on CPU Paddle would silently compute in fp32",
            hint="set `precision: fp32`, or train on a GPU",
        )
    number = paddle.distributed.ParallelEnv().device_id if use_gpu else 0
    if use_gpu and number >= gpus:
        raise SetupError(
            f"GPU {number} is asked for, but Paddle sees {gpus}, counted from 0",
            hint="name those that `medseg doctor` shows as --devices",
        )
    chosen = f"gpu:{number}" if use_gpu else "cpu"
    if precision == "bf16" and use_gpu and not paddle.amp.is_bfloat16_supported(chosen):
        raise SetupError(
            "this GPU cannot compute in bf16 (NVIDIA's can from Ampere on)",
            hint="set `precision: fp16` or `precision: fp32`",
        )
    if deterministic and use_gpu:
        variable, value = _NO_TF32
        os.environ[variable] = value
        paddle.set_flags(DETERMINISTIC_FLAGS)
        interpolate_in_order()
    paddle.set_device(chosen)
    return chosen


def set_training_device(recipe: Recipe, device: str | None = None) -> str:
    """Choose the device that a recipe asks for (or that `device` does), to train on.

    Returns
    -------
    str
        See :func:`set_device`.

    Raises
    ------
    SetupError
        As there, or it has no kernels that compute as the recipe wants; told before anything was done.
    """
    chosen = set_device(device or recipe.device, recipe.precision, deterministic=recipe.deterministic)
    expected_cpu_kernels(recipe, chosen)
    return chosen
