"""Whose kernels compute a model's convolutions on the CPU: Paddle's or oneDNN's."""

from __future__ import annotations

from paddle import nn

from medseg_paddle.config.recipe import CpuKernels
from medseg_paddle.engine.onednn import Unavailable, accelerate, version
from medseg_paddle.errors import SetupError


def use_cpu_kernels(model: nn.Layer, choice: CpuKernels, device: str) -> str:
    """Let `model` compute as the recipe's `cpu_kernels` says.

    Parameters
    ----------
    model : nn.Layer
        Stays what it is: names, state dict and a graph traced from it do not change.
    choice : {"auto", "onednn", "paddle"}
    device : str
        As :func:`medseg_paddle.engine.device.set_device` returned it; on a GPU nothing is done.

    Returns
    -------
    str
        What computes, for the log: ``"oneDNN 3.6.2"``, ``"Paddle (<why not oneDNN>)"``; ``""`` on a GPU.

    Raises
    ------
    SetupError
        ``"onednn"`` is asked for and not to be had.
    """
    if device != "cpu":
        return ""
    if choice == "paddle":
        return "Paddle"
    try:
        accelerate(model)
    except Unavailable as reason:
        if choice == "onednn":
            raise SetupError(
                f"cpu_kernels: onednn cannot be had: {reason}",
                hint="set `cpu_kernels: auto`, which then takes Paddle's own kernels",
            ) from reason
        return f"Paddle ({reason})"
    return f"oneDNN {version()}"


def expected_cpu_kernels(choice: CpuKernels, device: str) -> str:
    """What :func:`use_cpu_kernels` would say of any model, before there is one."""
    return use_cpu_kernels(nn.Identity(), choice, device)
