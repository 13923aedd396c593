"""Whose kernels compute a model's convolutions on the CPU: Paddle's or oneDNN's."""

from __future__ import annotations

from paddle import nn

from medseg_paddle.config.recipe import CpuKernels, Recipe
from medseg_paddle.engine.onednn import Unavailable, accelerate, require_bf16, version
from medseg_paddle.errors import SetupError


def use_cpu_kernels(model: nn.Layer, choice: CpuKernels, device: str, *, bf16: bool = False) -> str:
    """Let `model` compute as the recipe's `cpu_kernels` says.

    Parameters
    ----------
    model : nn.Layer
        Stays what it is: names, state dict and a graph traced from it do not change.
    choice : {"auto", "onednn", "paddle"}
    device : str
        As :func:`medseg_paddle.engine.device.set_device` returned it; on a GPU nothing is done.

    bf16 : bool
        Let convolutions multiply in bf16 while the model trains; Paddle's own cannot.

    Returns
    -------
    str
        What computes, for the log: ``"oneDNN 3.6.2"``, ``"oneDNN 3.6.2 in bf16"``, ``"Paddle (<why not oneDNN>)"``;
        ``""`` on a GPU.

    Raises
    ------
    SetupError
        ``"onednn"`` or bf16 is asked for and not to be had.
    """
    if device != "cpu":
        return ""
    if choice == "paddle":
        if bf16:
            raise SetupError(
                "precision bf16 with cpu_kernels: paddle: on a CPU Paddle would silently compute in fp32",
                hint="set `cpu_kernels: auto`, or `precision: fp32`",
            )
        return "Paddle"
    try:
        accelerate(model, bf16=bf16)
    except Unavailable as reason:
        if bf16:
            raise SetupError(
                f"precision bf16 on a CPU cannot be had: {reason}",
                hint="set `precision: fp32`, or train on a GPU",
            ) from reason
        if choice == "onednn":
            raise SetupError(
                f"cpu_kernels: onednn cannot be had: {reason}",
                hint="set `cpu_kernels: auto`, which then takes Paddle's own kernels",
            ) from reason
        return f"Paddle ({reason})"
    return f"oneDNN {version()} in bf16" if bf16 else f"oneDNN {version()}"


def train_with_cpu_kernels(model: nn.Layer, recipe: Recipe, device: str) -> str:
    """Let a model compute as its training's recipe says; see :func:`use_cpu_kernels`.

    Raises
    ------
    SetupError
        As there; or ``amp_level: O2`` is asked for on a CPU.
    """
    if device == "cpu" and recipe.precision == "bf16" and recipe.amp_level == "O2":
        raise SetupError(
            "amp_level O2 on a CPU: weights stay in fp32 there, convolutions alone multiply in bf16",
            hint="write `amp_level: O1`",
        )
    # A graph for training is traced from the model and has Paddle's operators.
    choice: CpuKernels = "paddle" if recipe.to_static_training else recipe.cpu_kernels
    return use_cpu_kernels(model, choice, device, bf16=recipe.precision == "bf16")


def expected_cpu_kernels(recipe: Recipe, device: str) -> str:
    """What :func:`train_with_cpu_kernels` would say of any model, before there is one."""
    return train_with_cpu_kernels(nn.Identity(), recipe, device)


def can_train_in_bf16(device: str) -> bool:
    """Whether ``precision: bf16`` can be had on this CPU, and gains; never said of a GPU.

    Where Paddle computes on a GPU, results that oneDNN is to write would lie there.
    """
    if device != "cpu":
        return False
    try:
        require_bf16()
    except Unavailable:
        return False
    return True
