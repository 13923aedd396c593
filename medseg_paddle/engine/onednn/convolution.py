"""Convolutions and transposed convolutions of one shape: what oneDNN needs to compute them and their gradients."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from medseg_paddle.engine.onednn.kernels import (
    BIAS,
    DIFF_BIAS,
    DIFF_DST,
    DIFF_SRC,
    DIFF_WEIGHTS,
    DST,
    SRC,
    TRAINING,
    WEIGHTS,
    Kernel,
    PaddedPassage,
    Passage,
    contiguous_strides,
    pointer_or_null,
)
from medseg_paddle.engine.onednn.library import BF16, F32, Handle, Library, dimensions
from medseg_paddle.engine.onednn.runtime import Workspace

_DIRECT, _TRANSPOSED_DIRECT = 1, 10
_VOLUME = 5  # axes of an array of volumes
_FEW_CHANNELS = 2


@dataclass(frozen=True)
class Shape:
    """A convolution's sizes, in Paddle's terms; the key that a prepared one is kept under.

    Attributes
    ----------
    transposed : bool
    x : tuple of int
        ``[N, C, (D,) H, W]``.
    w : tuple of int
        ``[O, C / groups, *kernel]``, or ``[C, O / groups, *kernel]`` where transposed.
    bias : bool
    stride, dilation : tuple of int
        Per axis of space.
    before, after : tuple of int
        Padding at both ends of each axis of space.
    extra : tuple of int
        Output padding of a transposed convolution.
    groups : int
    """

    transposed: bool
    x: tuple[int, ...]
    w: tuple[int, ...]
    bias: bool
    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    extra: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def out_channels(self) -> int:
        """O."""
        return self.w[1] * self.groups if self.transposed else self.w[0]

    @property
    def kind(self) -> str:
        """Paddle's name of such an operator."""
        return f"conv{len(self.w) - 2}d" + ("_transpose" if self.transposed else "")

    @property
    def y(self) -> tuple[int, ...]:
        """Shape of the result."""
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.w[2:], strict=True)]
        ends = [a + b for a, b in zip(self.before, self.after, strict=True)]
        if self.transposed:
            space = [
                (n - 1) * s - p + r + e
                for n, s, p, r, e in zip(self.x[2:], self.stride, ends, reach, self.extra, strict=True)
            ]
        else:
            space = [
                (n + p - r) // s + 1 for n, s, p, r in zip(self.x[2:], self.stride, ends, reach, strict=True)
            ]
        return (self.x[0], self.out_channels, *space)

    @property
    def is_sound(self) -> bool:
        """Whether channels agree and nothing is empty; else Paddle shall say what it thinks of it."""
        inputs = self.w[0] if self.transposed else self.w[1] * self.groups
        return (
            len(self.x) == len(self.w)
            and self.x[1] == inputs
            and self.out_channels % self.groups == 0
            and min(*self.x, *self.w, *self.y, *self.stride, *self.dilation, self.groups) > 0
            and min(*self.before, *self.after, *self.extra) >= 0
        )


class Convolution:
    """One shape's forward and backward computation. To be used under the runtime's lock.

    Parameters
    ----------
    library : Library
    workspace : Workspace
    shape : Shape
    bf16 : bool
        Round what is multiplied to bf16; sums, results and gradients stay float32.
    """

    def __init__(self, library: Library, workspace: Workspace, shape: Shape, *, bf16: bool = False) -> None:
        self._library, self._workspace, self.shape = library, workspace, shape
        self._factors = BF16 if bf16 else F32
        self._kind = "deconvolution" if shape.transposed else "convolution"
        self._algorithm = _TRANSPOSED_DIRECT if shape.transposed else _DIRECT
        self._x, self._y = self._plain(shape.x), self._plain(shape.y)
        self._w_shape, self._w = self._plain_weights()
        self._b = self._plain((shape.out_channels,)) if shape.bias else None
        self._description = self._describe_forward(shape)
        given = {} if self._b is None else {BIAS: self._b}
        self._forward = Kernel(library, workspace, self._description, (SRC, WEIGHTS, DST), given)
        layouts = self._forward.layouts
        self._into_x = self._passage(self._x, layouts[SRC], "in")
        self._into_w = self._passage(self._w, layouts[WEIGHTS], "weights")
        self._from_y = self._passage(self._y, layouts[DST], "out")
        self._source_gradient: tuple[Kernel, Passage, Passage, Passage] | None = None
        self._weight_gradient: tuple[Kernel, Passage, Passage | PaddedPassage, Passage] | None = None

    def prepare_backward(self, *, source: bool, weights: bool) -> None:
        """Make sure that the gradients can be computed.

        Raises
        ------
        OneDnnError
            They cannot.
        """
        if source and self._source_gradient is None:
            description = self._describe(
                "backward_data", self.shape, self._free("x", "w", "y", factors="wy"), hint=self._description
            )
            kernel = Kernel(self._library, self._workspace, description, (DIFF_SRC, WEIGHTS, DIFF_DST))
            self._source_gradient = (
                kernel,
                self._passage(self._y, kernel.layouts[DIFF_DST], "in"),
                self._passage(self._w, kernel.layouts[WEIGHTS], "weights"),
                self._passage(self._x, kernel.layouts[DIFF_SRC], "out"),
            )
        if weights and self._weight_gradient is None:
            self._weight_gradient = self._make_weight_gradient()

    def _make_weight_gradient(self) -> tuple[Kernel, Passage, Passage | PaddedPassage, Passage]:
        shape, bare = self.shape, _without_slices_of_padding(self.shape)
        description = self._describe_weight_gradient(shape, self._description)
        if bare is not None and _unfolds(self._library, description):
            # Without AVX-512 there is no other kernel for padded slices; it takes up to four times as long as one
            # for a volume that brings them with it.
            description = self._describe_weight_gradient(bare, self._describe_forward(bare))
        else:
            bare = None
        given = {} if self._b is None else {DIFF_BIAS: self._b}
        kernel = Kernel(self._library, self._workspace, description, (SRC, DIFF_WEIGHTS, DIFF_DST), given)
        into_x: Passage | PaddedPassage
        if bare is None:
            into_x = self._passage(self._x, kernel.layouts[SRC], "out")
        else:
            begin = (0, 0, shape.before[0], 0, 0)
            into_x = PaddedPassage(
                self._library, self._workspace, self._x, kernel.layouts[SRC], shape.x, begin, "out"
            )
        return (
            kernel,
            self._passage(self._y, kernel.layouts[DIFF_DST], "in"),
            into_x,
            self._passage(self._w, kernel.layouts[DIFF_WEIGHTS], "weights"),
        )

    def forward(self, x: int, w: int, b: int | None, y: int) -> None:
        """Compute the result at address `y`."""
        addresses = {SRC: self._into_x.bring(x), WEIGHTS: self._into_w.bring(w), DST: self._from_y.stage(y)}
        if b is not None:
            addresses[BIAS] = b
        self._forward.run(addresses)
        self._from_y.deliver(y)

    def backward(self, x: int, w: int, dy: int, *, dx: int | None, dw: int | None, db: int | None) -> None:
        """Compute the gradients that are given an address; `dw` and `db` together, if the shape has a bias."""
        brought: tuple[Passage, int] | None = None
        if dx is not None:
            assert self._source_gradient is not None  # noqa: S101  (prepare_backward)
            kernel, into_dy, into_w, from_dx = self._source_gradient
            brought = (into_dy, into_dy.bring(dy))
            kernel.run({DIFF_DST: brought[1], WEIGHTS: into_w.bring(w), DIFF_SRC: from_dx.stage(dx)})
            from_dx.deliver(dx)
        if dw is not None:
            assert self._weight_gradient is not None  # noqa: S101
            kernel, into_dy, into_x, from_dw = self._weight_gradient
            again = brought is not None and into_dy.leads_where(brought[0])
            dy_address = brought[1] if brought is not None and again else into_dy.bring(dy)
            addresses = {DIFF_DST: dy_address, SRC: into_x.bring(x), DIFF_WEIGHTS: from_dw.stage(dw)}
            if db is not None:
                addresses[DIFF_BIAS] = db
            kernel.run(addresses)
            from_dw.deliver(dw)

    def _describe_forward(self, shape: Shape) -> Handle:
        return self._describe(
            "forward",
            shape,
            [
                *self._free("x", "w", x=shape.x, factors="xw"),
                pointer_or_null(self._b),
                *self._free("y"),
            ],
            purpose=(TRAINING,),
        )

    def _describe_weight_gradient(self, shape: Shape, forward: Handle) -> Handle:
        arrays = [
            *self._free("x", "w", x=shape.x, factors="x"),
            pointer_or_null(self._b),
            *self._free("y", factors="y"),
        ]
        return self._describe("backward_weights", shape, arrays, hint=forward)

    def _describe(
        self,
        what: str,
        shape: Shape,
        arrays: Sequence[Handle | ctypes.c_void_p],
        *,
        purpose: tuple[int, ...] = (),
        hint: Handle | None = None,
    ) -> Handle:
        # oneDNN takes a result that is larger than it need be for padding that is less.
        after = [p - e for p, e in zip(shape.after, shape.extra, strict=True)]
        dilates = [d - 1 for d in shape.dilation]
        geometry = map(dimensions, (shape.stride, dilates, shape.before, after))
        ending = (self._library.attributes,) if hint is None else (hint, self._library.attributes)
        return self._library.primitive_description(
            f"{self._kind}_{what}", *purpose, self._algorithm, *arrays, *geometry, *ending
        )

    def _free(self, *names: str, x: tuple[int, ...] | None = None, factors: str = "") -> list[Handle]:
        """Arrays in layouts of the library's choice; those named in `factors` are multiplied."""
        shapes = {"x": x or self.shape.x, "w": self._w_shape, "y": self.shape.y}
        return [
            self._library.free_description(shapes[name], self._factors if name in factors else F32)
            for name in names
        ]

    def _plain(self, shape: tuple[int, ...]) -> Handle:
        return self._library.description(shape, contiguous_strides(shape))

    def _plain_weights(self) -> tuple[tuple[int, ...], Handle]:
        """Paddle's weights as oneDNN names their axes: ``[(groups,) outputs, inputs, *kernel]``."""
        groups, (first, second, *kernel) = self.shape.groups, self.shape.w
        inner = contiguous_strides(kernel)
        volume = math.prod(kernel)
        if self.shape.transposed:
            axes, strides = (second, first // groups), (volume, second * volume)
        else:
            axes, strides = (first // groups, second), (second * volume, volume)
        shape, steps = (*axes, *kernel), (*strides, *inner)
        if groups > 1:
            shape, steps = (groups, *shape), (first // groups * second * volume, *steps)
        return shape, self._library.description(shape, steps)

    def _passage(self, plain: Handle, wanted: Handle, role: str) -> Passage:
        return Passage(self._library, self._workspace, plain, wanted, role)


def _without_slices_of_padding(shape: Shape) -> Shape | None:
    """The same convolution of a volume that brings the slices of zeros at its ends with it.

    None where it has none, and of few channels, where it takes longer.
    """
    padded = len(shape.x) == _VOLUME and shape.before[0] + shape.after[0] > 0
    if shape.transposed or not padded or shape.x[1] <= _FEW_CHANNELS:
        return None
    slices = shape.x[2] + shape.before[0] + shape.after[0]
    return replace(
        shape,
        x=(*shape.x[:2], slices, *shape.x[3:]),
        before=(0, *shape.before[1:]),
        after=(0, *shape.after[1:]),
    )


def _unfolds(library: Library, description: Handle) -> bool:
    """Whether the library would unfold the image and multiply matrices."""
    return "gemm" in library.implementation(description)
