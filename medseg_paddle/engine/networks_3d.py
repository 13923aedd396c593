"""Networks that see volumes: U-Nets as nnU-Net builds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import paddle
import paddle.nn.functional as F
from paddle import nn

from medseg_paddle.config.networks_3d import Triple, blocks_of, kernels_of, strides_of
from medseg_paddle.engine.paddleseg_adapter import manager

_SLOPE = 0.01  # nnU-Net's leaky ReLU
_NO_STRIDE = (1, 1, 1)


@dataclass(frozen=True)
class _Level:
    """A level on the way down: its channels, and how it is reached from the one above."""

    inputs: int
    outputs: int
    stride: Triple
    kernel: Triple


def _levels(
    in_channels: int,
    width: int,
    max_width: int,
    depth: int,
    strides: tuple[Triple, ...] | None,
    kernels: tuple[Triple, ...] | None,
) -> list[_Level]:
    widths = [min(width * 2**level, max_width) for level in range(depth + 1)]
    return [
        _Level(*level)
        for level in zip(
            [in_channels, *widths[:-1]],
            widths,
            [_NO_STRIDE, *strides_of(strides, depth)],
            kernels_of(kernels, depth),
            strict=True,
        )
    ]


class _UNetOfVolumes(nn.Layer):  # type: ignore[misc]
    """What the networks share: the order of computation, the heads and their names.

    Parameters
    ----------
    down, up : sequence of nn.Layer
        One for each level from the finest down; one for each step up from the lowest.
    widths : sequence of int
        Channels of each level, the finest first.
    num_classes, deep_supervision : int
    """

    # What `freeze.layers` may call a part besides its name.
    parts: ClassVar[dict[str, str]] = {"encoder": "down", "decoder": "up"}

    def __init__(
        self,
        down: Sequence[nn.Layer],
        up: Sequence[nn.Layer],
        widths: Sequence[int],
        num_classes: int,
        deep_supervision: int,
    ) -> None:
        super().__init__()
        self.bottom_channels = widths[-1]
        self.down, self.up = nn.LayerList(down), nn.LayerList(up)
        self.head = _head(widths[0], num_classes)
        # Last, so that the names of all other parameters are those of a network without.
        self.lower_heads = (
            nn.LayerList([_head(width, num_classes) for width in widths[1 : deep_supervision + 1]])
            if deep_supervision
            else None
        )

    def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Logits ``[N, K, D, H, W]`` of volumes ``[N, C, D, H, W]``, in a list as PaddleSeg wants them.

        While training with deep supervision, those of the lower levels follow, each of its level's size. Any
        size goes through; the lowest level should have more than one voxel, or an instance norm has none to compare.
        """
        return self.decode(self.encode(x))

    def encode(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Features of volumes at each level, the finest first; the last have `bottom_channels` channels."""
        levels = []
        for block in self.down:
            x = block(x)
            levels.append(x)
        return levels

    def decode(self, levels: list[paddle.Tensor]) -> list[paddle.Tensor]:
        """What :meth:`forward` returns, from what :meth:`encode` did."""
        x, skips = levels[-1], levels[:-1]
        decoded = []
        for step in self.up:
            x = step(x, skips.pop())
            decoded.append(x)
        logits = [self.head(x)]
        if self.training and self.lower_heads is not None:
            lower = decoded[-2::-1]
            logits += [head(lower[n]) for n, head in enumerate(self.lower_heads)]
        return logits


@manager.MODELS.add_component
class UNet3D(_UNetOfVolumes):
    """U-Net for volumes as nnU-Net builds it (Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z).

    Two convolutions with normalisation and leaky ReLU at each level, the first of them strided on the way down,
    transposed convolutions on the way up. Two differences to nnU-Net: a convolution before a norm has no bias,
    which the norm would take away again, and no random numbers are drawn for it.

    Parameters
    ----------
    num_classes, in_channels : int
    width : int
        Channels of the first level; doubled at each level down, up to `max_width`.
    depth : int
        Times that the volume is made smaller.
    norm : str
        ``"instance"`` or ``"batch"``.
    deep_supervision : int
        While training, as many lower levels of the decoder have a head of their own (Lee et al. 2015,
        https://arxiv.org/abs/1409.5185). Fewer than `depth`.
    strides : sequence of (int, int, int), optional
        How many times smaller each step down makes slices, rows and columns; 2 each where absent.
    kernels : sequence of (int, int, int), optional
        Of the convolutions of each level, the finest first; 3 each where absent.
    """

    # Whether skip connections are weighed.
    gated: ClassVar[bool] = False

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        *,
        width: int = 32,
        max_width: int = 320,
        depth: int = 4,
        norm: str = "instance",
        deep_supervision: int = 0,
        strides: tuple[Triple, ...] | None = None,
        kernels: tuple[Triple, ...] | None = None,
    ) -> None:
        levels = _levels(in_channels, width, max_width, depth, strides, kernels)
        down = [_two_convolutions(level, norm) for level in levels]
        up = [
            _Up(above, below, norm, convolutions=2, gated=self.gated and above is not levels[0])
            for above, below in _from_below(levels)
        ]
        super().__init__(down, up, [level.outputs for level in levels], num_classes, deep_supervision)


@manager.MODELS.add_component
class ResUNet3D(_UNetOfVolumes):
    """nnU-Net's U-Net for volumes with a residual encoder (Isensee et al. 2024, https://arxiv.org/abs/2404.09556).

    A convolution, then residual blocks (He et al. 2016, variant D of https://arxiv.org/abs/1812.01187) at each level;
    one convolution at each level of the decoder.

    Parameters
    ----------
    num_classes, in_channels, width, max_width, depth, norm, deep_supervision, strides, kernels
        See :class:`UNet3D`.
    blocks : sequence of int, optional
        Residual blocks of each level, the finest first; 1, 3, 4 and then 6 where absent.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        *,
        width: int = 32,
        max_width: int = 320,
        depth: int = 4,
        norm: str = "instance",
        deep_supervision: int = 0,
        strides: tuple[Triple, ...] | None = None,
        kernels: tuple[Triple, ...] | None = None,
        blocks: tuple[int, ...] | None = None,
    ) -> None:
        levels = _levels(in_channels, width, max_width, depth, strides, kernels)
        down = []
        for level, count in zip(levels, blocks_of(blocks, depth), strict=True):
            inputs, parts = level.inputs, []
            if level is levels[0]:
                parts, inputs = [_convolutions(inputs, width, level.kernel, norm, count=1)], width
            for number in range(count):
                stride = level.stride if number == 0 else _NO_STRIDE
                parts.append(_Residual(inputs, level.outputs, level.kernel, norm, stride))
                inputs = level.outputs
            down.append(nn.Sequential(*parts))
        up = [_Up(above, below, norm, convolutions=1) for above, below in _from_below(levels)]
        super().__init__(down, up, [level.outputs for level in levels], num_classes, deep_supervision)


@manager.MODELS.add_component
class AttentionUNet3D(UNet3D):
    """:class:`UNet3D` whose skip connections are weighed by attention gates, all but the finest.

    After Oktay et al. 2018 (https://arxiv.org/abs/1804.03999), who leave the finest out too, since its features say
    little yet. Takes what :class:`UNet3D` takes.
    """

    gated = True


def _from_below(levels: Sequence[_Level]) -> list[tuple[_Level, _Level]]:
    """Each level with the one below it, the lowest pair first."""
    return list(pairwise(levels))[::-1]


def _two_convolutions(level: _Level, norm: str) -> nn.Sequential:
    """nnU-Net's plain block of the way down."""
    return _convolutions(level.inputs, level.outputs, level.kernel, norm, stride=level.stride, count=2)


class _Up(nn.Layer):  # type: ignore[misc]
    """A step up: what comes from below is enlarged and joined with the features of the way down."""

    def __init__(
        self, above: _Level, below: _Level, norm: str, *, convolutions: int, gated: bool = False
    ) -> None:
        super().__init__()
        width = above.outputs
        self.gate = _Gate(width, below.outputs, below.stride, norm) if gated else None
        self.enlarge = nn.Conv3DTranspose(
            below.outputs, width, below.stride, stride=below.stride, weight_attr=_he()
        )
        self.block = _convolutions(2 * width, width, above.kernel, norm, count=convolutions)

    def forward(self, x: paddle.Tensor, skip: paddle.Tensor) -> paddle.Tensor:
        """Features of `skip`'s size."""
        if self.gate is not None:
            skip = self.gate(skip, x)
        return self.block(paddle.concat([_first_voxels(self.enlarge(x), skip), skip], axis=1))


class _Residual(nn.Layer):  # type: ignore[misc]
    """Two convolutions beside a way past them; along it a stride is an average, and channels change by 1 x 1 x 1."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple, norm: str, stride: Triple) -> None:
        super().__init__()
        self.first = _convolutions(inputs, outputs, kernel, norm, stride=stride, count=1)
        self.second = nn.Sequential(_convolution(outputs, outputs, kernel), _norm(norm, outputs))
        # An average over what is there: the last voxels of an odd size are not averaged with padding.
        self.shrink = None if stride == _NO_STRIDE else nn.AvgPool3D(stride, stride, ceil_mode=True)
        self.widen = (
            None
            if inputs == outputs
            else nn.Sequential(_convolution(inputs, outputs, _NO_STRIDE), _norm(norm, outputs))
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Features of `x`, as many times smaller as the stride says."""
        y = self.second(self.first(x))
        for change in (self.shrink, self.widen):
            x = x if change is None else change(x)
        return F.leaky_relu(y + x, _SLOPE)


class _Gate(nn.Layer):  # type: ignore[misc]
    """An attention gate: weights 0..1 for the voxels of a skip connection, from it and the features below it.

    Both are brought to the lower level's size, added, and give one weight for each place there, which is interpolated.
    """

    def __init__(self, width: int, below: int, stride: Triple, norm: str) -> None:
        super().__init__()
        between = max(width // 2, 1)
        self.of_skip = nn.Conv3D(width, between, 1, stride=stride, weight_attr=_he(), bias_attr=False)
        self.of_below = nn.Conv3D(below, between, 1, weight_attr=_he())
        self.weigh = nn.Conv3D(between, 1, 1, weight_attr=_he())
        self.out = nn.Sequential(_convolution(width, width, _NO_STRIDE), _norm(norm, width))

    def forward(self, skip: paddle.Tensor, below: paddle.Tensor) -> paddle.Tensor:
        """The weighed `skip`."""
        weights = F.sigmoid(self.weigh(F.relu(self.of_skip(skip) + self.of_below(below))))
        weights = F.interpolate(
            weights,
            size=paddle.shape(skip)[2:],
            mode="trilinear",
            align_corners=False,
            data_format="NCDHW",
        )
        return self.out(skip * weights)


def _convolutions(
    inputs: int, outputs: int, kernel: Triple, norm: str, *, stride: Triple = _NO_STRIDE, count: int
) -> nn.Sequential:
    """So many convolutions, each with normalisation and leaky ReLU; the first has the stride."""
    layers: list[nn.Layer] = []
    for number in range(count):
        first = number == 0
        layers += [
            _convolution(inputs if first else outputs, outputs, kernel, stride if first else _NO_STRIDE),
            _norm(norm, outputs),
            nn.LeakyReLU(_SLOPE),
        ]
    return nn.Sequential(*layers)


def _convolution(inputs: int, outputs: int, kernel: Triple, stride: Triple = _NO_STRIDE) -> nn.Conv3D:
    padding = [side // 2 for side in kernel]
    return nn.Conv3D(
        inputs, outputs, kernel, stride=stride, padding=padding, weight_attr=_he(), bias_attr=False
    )


def _head(width: int, num_classes: int) -> nn.Conv3D:
    return nn.Conv3D(width, num_classes, 1, weight_attr=_he())


def _norm(norm: str, channels: int) -> nn.Layer:
    return (nn.BatchNorm3D if norm == "batch" else nn.InstanceNorm3D)(channels)


def _he() -> paddle.ParamAttr:
    """Initial weights after He et al. 2015 (https://arxiv.org/abs/1502.01852) for nnU-Net's leaky ReLU."""
    he = nn.initializer.KaimingNormal(negative_slope=_SLOPE, nonlinearity="leaky_relu")
    return paddle.ParamAttr(initializer=he)


def _first_voxels(x: paddle.Tensor, like: paddle.Tensor) -> paddle.Tensor:
    """As many as `like` has: of a size that a stride does not divide, the way up makes some too many."""
    if paddle.in_dynamic_mode() and x.shape == like.shape:
        return x
    size = paddle.shape(like)
    return x[:, :, : size[2], : size[3], : size[4]]
