"""From what was seen of a training set, and the machine, to a network, its patches and its training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from medseg_paddle.config.network_cost import NetworkCost, VolumeModel, network_cost, training_memory
from medseg_paddle.core.planning import (
    LARGE_PATCH,
    LEAST_BATCH,
    MASKED_BELOW,
    THICK,
    Millimetres,
    PatchPlan,
    Topology,
    Triple,
    batch_size,
    largest_patch,
    median_shape,
    names_a_side,
    target_spacing,
    topology,
)
from medseg_paddle.errors import DataError, RecipeError, SetupError
from medseg_paddle.preprocess import ForegroundRange
from medseg_paddle.steps.plan.facts import DataFacts
from medseg_paddle.steps.plan.machine import GB, Machine

MODELS = {get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(VolumeModel)}
"""The networks that are planned, by name."""
WIDTHS = {"gpu": 32, "cpu": 16}
"""Channels of the first level: nnU-Net's; half as many are a quarter of the work."""
MAX_WIDTH = 320
NNUNET_ITERS = 250_000
LEAST_ITERS = 1000
LEAST_WHOLE = 10
"""Training cases, from which on a class that is one part in each of them is taken for one part in all patients."""
_ALIKE = 0.5  # of the range of all channels, that the range of each covers where one range suits all
_LEAST_DEPTH = {"AttentionUNet3D": 2}  # the finest level has no gate
_LIKE_AIR = -900.0  # no MR is as low
_PASSES = 3  # a forward pass, and the gradients of features and of weights
# Of the speed of a product of matrices, what a training step reaches: 0.53 to 0.69 of four networks, by processor time.
_EFFICIENCY = 0.6


@dataclass(frozen=True, eq=False)
class Plan:
    """What was chosen.

    Attributes
    ----------
    data : DataFacts
    machine : Machine
    model : str
        Name of the network.
    width : int
        Channels of its first level.
    spacing : three floats
        mm along slices, rows and columns.
    coarse : int or None
        The axis whose spacing is not the median.
    shape : three ints
        The median volume's at this spacing.
    kept : float
        Median share of the voxels that the crop leaves.
    network : PatchPlan
    batch_size : int
    limited_by_data : bool
        Whether more patches would fit a batch.
    memory : int
        Bytes that a training is forecast to take.
    intensities : ForegroundRange or None
        Of the foreground; of CT only, and of several channels only where they are alike.
    side : str or None
        A class that names a side of the body.
    whole_classes : tuple of str
        Classes that are one part in each case, where these are :data:`LEAST_WHOLE` or more.
    seconds : float or None
        That an iteration is estimated to take.
    hours : float
        That the training may take.
    iters : int
    """

    data: DataFacts
    machine: Machine
    model: str
    width: int
    spacing: Millimetres
    coarse: int | None
    shape: Triple
    kept: float
    network: PatchPlan
    batch_size: int
    limited_by_data: bool
    memory: int
    intensities: ForegroundRange | None
    side: str | None
    whole_classes: tuple[str, ...]
    seconds: float | None
    hours: float
    iters: int

    @property
    def thin(self) -> int | None:
        """The axis along which a patch is so short that it is turned and scaled within the others only."""
        patch = self.network.patch
        shortest = int(np.argmin(patch))
        return shortest if max(patch) > THICK * patch[shortest] else None

    @property
    def share(self) -> float:
        """Of the median volume, that a patch holds."""
        sides = zip(self.network.patch, self.shape, strict=True)
        return math.prod(min(1.0, side / of) for side, of in sides)

    @property
    def large_patch(self) -> bool:
        """Whether a patch holds a quarter of the median volume or more."""
        return self.share >= LARGE_PATCH

    @property
    def masked(self) -> bool:
        """Whether voxels of value 0 are left out of the normalisation."""
        return self.intensities is None and self.kept < MASKED_BELOW

    @property
    def notes(self) -> tuple[str, ...]:
        """What the one who planned should know before training."""
        found, lowest = [], min(case.lowest for case in self.data.cases)
        if self.data.units != "HU" and lowest <= _LIKE_AIR:
            found.append(
                f"values go down to {lowest:g}, as in CT, but the data set does not say that they are "
                "Hounsfield units; if they are, prepare it again with `units: HU`"
            )
        if absent := [name for name, counts in self.data.parts.items() if not any(counts)]:
            found.append(f"no training case holds {' or '.join(absent)}, which cannot be learned")
        if 1 in self.shape:
            found.append(
                "the median volume is a single slice: a network for pictures learns as much of it in less time; "
                "prepare it with `volumes: slices`"
            )
        if not self.data.has_val:
            found.append(
                "the data set has no validation case: no checkpoint can be chosen by its scores, and `medseg export` "
                "has nothing to compare the bundle on; prepare it again with `val_fraction` or `folds`"
            )
        if self.seconds is not None and self.seconds * self.iters > 3600 * self.hours:
            found.append(
                f"{self.iters} iterations take longer than {self.hours:g} hours on this CPU; a GPU is the better "
                "place, or a smaller --memory, which makes smaller patches"
            )
        return tuple(found)

    @property
    def mirror(self) -> tuple[int, ...]:
        """Axes that may be mirrored; the last runs from left to right."""
        return (0, 1) if self.side else (0, 1, 2)


def choose(data: DataFacts, machine: Machine, *, model: str = "UNet3D", hours: float = 8.0) -> Plan:
    """Apply the rules of :mod:`medseg_paddle.core.planning` to a training set.

    Parameters
    ----------
    data : DataFacts
    machine : Machine
    model : str
        One of :data:`MODELS`.
    hours : float
        That a training on a CPU may take.

    Raises
    ------
    RecipeError
        No such network, or no time.
    DataError
        The volumes are too small for a network that sees volumes, or no CT has foreground.
    SetupError
        Not even the smallest patch fits the memory.
    """
    if model not in MODELS:
        raise RecipeError(f"--model {model}: no network for volumes", hint=f"use {', '.join(MODELS)}")
    if not 0 < hours < math.inf:
        raise RecipeError(f"--hours {hours:g}: no time to train", hint="write for example --hours 8")
    spacings = [case.spacing for case in data.cases]
    shapes = [case.shape for case in data.cases]
    spacing, coarse = target_spacing(spacings, shapes)
    shape = median_shape(spacings, shapes, spacing)
    width = WIDTHS[machine.device]

    def cost(patch: Triple, network: Topology) -> NetworkCost:
        return network_cost(_spec(model, width, network, data), patch)

    def fits(patch: Triple, network: Topology) -> bool:
        if network.depth < _LEAST_DEPTH.get(model, 1):
            return False
        return training_memory(cost(patch, network), LEAST_BATCH) <= machine.memory

    found = largest_patch(spacing, shape, fits)
    if found is None:
        raise _no_patch(shape, spacing, model, machine)
    one = cost(found.patch, found.topology)
    fitting = LEAST_BATCH
    while training_memory(one, fitting + 1) <= machine.memory:
        fitting += 1
    batch, limited = batch_size(fitting, found.patch, shape, len(data.cases))
    seconds = None
    if machine.speed is not None:
        seconds = _PASSES * batch * one.multiplications / (_EFFICIENCY * machine.speed * machine.threads)
    return Plan(
        data=data,
        machine=machine,
        model=model,
        width=width,
        spacing=spacing,
        coarse=coarse,
        shape=shape,
        kept=float(np.median([case.kept for case in data.cases])),
        network=found,
        batch_size=batch,
        limited_by_data=limited,
        memory=training_memory(one, batch),
        intensities=_intensities(data),
        side=names_a_side(data.labels.names),
        whole_classes=_whole_classes(data),
        seconds=seconds,
        hours=hours,
        iters=_iterations(seconds, hours),
    )


def _spec(model: str, width: int, network: Topology, data: DataFacts) -> VolumeModel:
    values: dict[str, Any] = {
        "type": model,
        "num_classes": len(data.labels),
        "in_channels": data.channels,
        "width": width,
        "max_width": MAX_WIDTH,
        "depth": network.depth,
        "strides": network.strides,
        "kernels": network.kernels,
        "deep_supervision": max(0, network.depth - 2),
    }
    spec: VolumeModel = MODELS[model].model_validate(values)
    return spec


def _no_patch(shape: Triple, spacing: Millimetres, model: str, machine: Machine) -> DataError | SetupError:
    if topology(spacing, shape).depth < _LEAST_DEPTH.get(model, 1):
        return DataError(
            f"the median volume has {' x '.join(map(str, shape))} voxels: too few for {model} to make them fewer",
            hint="use a network for pictures, on slices, or look whether the spacing of the files is right",
        )
    return SetupError(
        f"not even the smallest patch fits {machine.memory / GB:.3g} GB",
        hint="free memory, or give more with --memory",
    )


def _intensities(data: DataFacts) -> ForegroundRange | None:
    """One range for all channels; None where they are no CT, or as unlike as CT and PET."""
    if data.units != "HU":
        return None
    found = ForegroundRange.of([values for case in data.cases for values in case.foreground])
    for of_channel in zip(*(case.foreground for case in data.cases), strict=True):
        low, high = np.percentile(np.concatenate(of_channel), (0.5, 99.5))
        if high - low < _ALIKE * (found.high - found.low):
            return None
    return found


def _whole_classes(data: DataFacts) -> tuple[str, ...]:
    """Classes that are there in every case, as one part; none where the cases are too few to say so of others."""
    if len(data.cases) < LEAST_WHOLE:
        return ()
    return tuple(name for name, counts in data.parts.items() if set(counts) == {1})


def _iterations(seconds: float | None, hours: float) -> int:
    """As many as the time allows, rounded down to 1, 2 or 5 and zeros: an estimate is no exact number."""
    if seconds is None:
        return NNUNET_ITERS
    possible = int(3600 * hours / seconds)
    if possible < LEAST_ITERS:
        return LEAST_ITERS
    power: int = 10 ** int(math.log10(possible))
    return min(NNUNET_ITERS, max(lead * power for lead in (1, 2, 5) if lead * power <= possible))
