"""Networks: PaddleSeg's U-Net family by name, and ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray
from paddle import nn

from medseg_paddle.config import Recipe
from medseg_paddle.config.base import component_arguments
from medseg_paddle.config.networks import Model
from medseg_paddle.engine import encoders, networks_3d  # noqa: F401  (register networks with the manager)
from medseg_paddle.engine.blocks import double_convolution, resized
from medseg_paddle.engine.paddleseg_adapter import manager
from medseg_paddle.engine.precision import MixedPrecision, auto_cast
from medseg_paddle.errors import ModelError
from medseg_paddle.io.plain_pickle import load_plain


@manager.MODELS.add_component
class ScalableUNet(nn.Layer):  # type: ignore[misc]
    """U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) of any width and depth.

    Two 3x3 convolutions with normalisation and ReLU at each level, max pooling down, bilinear
    interpolation up to the size of the skip connection, so that any image size goes through.

    Parameters
    ----------
    num_classes, in_channels : int
    width : int
        Channels of the first level; doubled at each level down, up to `max_width`.
    depth : int
        Times that the image is halved.
    norm : str
        ``"batch"`` or ``"instance"``.
    dropout : float
        Share of channels dropped at the bottom while training.
    deep_supervision : int
        While training, as many lower levels of the decoder (1/2, 1/4, ... of the size) have a head of their
        own (Lee et al. 2015, https://arxiv.org/abs/1409.5185). Fewer than `depth`.
    """

    # What `freeze.layers` may call a part besides its name.
    parts: ClassVar[dict[str, str]] = {"encoder": "down", "decoder": "up"}

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        width: int = 32,
        max_width: int = 512,
        depth: int = 4,
        norm: str = "batch",
        dropout: float = 0.0,
        deep_supervision: int = 0,
    ) -> None:
        super().__init__()
        self.bottom_channels = min(width * 2**depth, max_width)
        widths = [min(width * 2**level, max_width) for level in range(depth + 1)]
        self.down = nn.LayerList(
            [double_convolution(i, o, norm) for i, o in zip([in_channels, *widths], widths, strict=False)]
        )
        self.dropout = nn.Dropout2D(dropout) if dropout else None
        self.up = nn.LayerList(
            [
                double_convolution(widths[level + 1] + widths[level], widths[level], norm)
                for level in reversed(range(depth))
            ]
        )
        self.head = nn.Conv2D(widths[0], num_classes, 1)
        # Last, so that the names of all other parameters are those of a network without.
        self.lower_heads = (
            nn.LayerList(
                [nn.Conv2D(widths[level], num_classes, 1) for level in range(1, deep_supervision + 1)]
            )
            if deep_supervision
            else None
        )

    def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Logits ``[N, K, H, W]`` of images ``[N, C, H, W]``, in a list as PaddleSeg wants them.

        While training with deep supervision, those of the lower levels follow, interpolated to ``H, W``.
        """
        return self.decode(self.encode(x))

    def encode(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Features of images at each level, the finest first; the last have `bottom_channels` channels."""
        levels = []
        for level, block in enumerate(self.down):
            if level:
                x = F.max_pool2d(x, 2)
            x = block(x)
            levels.append(x)
        return levels

    def decode(self, levels: list[paddle.Tensor]) -> list[paddle.Tensor]:
        """What :meth:`forward` returns, from what :meth:`encode` did."""
        x, skips = levels[-1], levels[:-1]
        if self.dropout is not None:
            x = self.dropout(x)
        decoded = []
        for block in self.up:
            skip = skips.pop()
            x = block(paddle.concat([resized(x, paddle.shape(skip)[2:]), skip], axis=1))
            decoded.append(x)
        logits = [self.head(x)]
        if self.training and self.lower_heads is not None:
            size, lower = paddle.shape(levels[0])[2:], decoded[-2::-1]
            logits += [resized(head(lower[n]), size) for n, head in enumerate(self.lower_heads)]
        return logits


@manager.MODELS.add_component
class SimpleUNet(ScalableUNet):
    """A two-level U-Net to learn and test with."""

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 16) -> None:
        super().__init__(num_classes, in_channels, width=width, depth=2)


def build_network(spec: Model) -> nn.Layer:
    """A network with fresh weights; files of weights that `spec` names are not read."""
    arguments = component_arguments(spec)
    arguments.pop("pretrained", None)
    return manager.MODELS[spec.type](**arguments)


def build_model(recipe: Recipe) -> nn.Layer:
    """The recipe's network with fresh weights; :mod:`medseg_paddle.engine.initialise` has those to start from."""
    return build_network(recipe.model)


def load_model(recipe: Recipe, checkpoint: Path) -> nn.Layer:
    """The recipe's network with trained weights, ready to predict.

    Raises
    ------
    ModelError
        The checkpoint is missing, damaged or of another model.
    """
    model = build_network(recipe.model)
    load_weights(model, checkpoint)
    model.eval()
    return model


def load_weights(model: nn.Layer, path: Path) -> None:
    """Put the weights of a ``.pdparams`` file into `model`; all of them must fit.

    Raises
    ------
    ModelError
        The file is missing, damaged, or holds the weights of another model.
    """
    state = read_weights(path)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if shapes != wanted:
        differing = sorted(set(shapes.items()) ^ set(wanted.items()))
        name = differing[0][0]
        raise ModelError(
            f"checkpoint {path} is of another model: {name} is {shapes.get(name, 'absent')} there, "
            f"{wanted.get(name, 'absent')} in the recipe ({len({n for n, _ in differing})} such)",
            hint="use the recipe that the checkpoint was trained with (recipe.yml in its run folder)",
        )
    model.set_state_dict(state)


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a ``.pdparams`` file by name.

    Raises
    ------
    ModelError
        The file is missing, damaged or holds something else than arrays.
    """
    if not path.is_file():
        raise ModelError(f"checkpoint {path} is not there", hint="give a run that has been trained")
    try:
        state = load_paddle_file(path)
        return {name: np.asarray(value) for name, value in state.items()}
    except ModelError:
        raise
    except Exception as error:  # paddle.load raises whatever pickle raises
        raise ModelError(
            f"checkpoint {path} cannot be read ({type(error).__name__})",
            hint="use another checkpoint of the run",
        ) from error


def load_paddle_file(path: Path) -> Any:
    """What `paddle.save` wrote, with arrays of numpy; nothing in it is run.

    Raises
    ------
    ModelError
        It holds more than numbers.
    OSError
        It cannot be read. Of a damaged file, whatever pickle raises.
    """
    load_plain(path)  # Paddle's own reader, which knows how tensors are wrapped, would run what it finds
    return paddle.load(str(path), return_numpy=True)


class ForwardFunction:
    """A network as a plain function of arrays.

    Calling it with float32 ``[N, C, H, W]`` gives probabilities, float32 ``[N, K, H, W]``. The network
    is put into evaluation mode for the call and back. `mixed` is the precision that the network was trained
    in, None for fp32.
    """

    def __init__(self, model: nn.Layer, mixed: MixedPrecision | None = None) -> None:
        self._model, self._mixed = model, mixed

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities of a batch."""
        training = self._model.training
        self._model.eval()
        try:
            with paddle.no_grad(), auto_cast(self._mixed):
                logits = self._model(paddle.to_tensor(images))[0].astype("float32")
                return np.asarray(F.softmax(logits, axis=1).numpy())
        finally:
            if training:
                self._model.train()


def mean_of(members: Sequence[ForwardFunction]) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Several networks as one function: the mean of their probabilities. Of a single one, itself."""
    if len(members) == 1:
        return members[0]

    def forward(images: NDArray[np.float32]) -> NDArray[np.float32]:
        total = members[0](images)
        for member in members[1:]:
            total = total + member(images)
        return np.asarray(total / np.float32(len(members)))

    return forward


def count_parameters(model: nn.Layer) -> int:
    """Trainable and running parameters."""
    return int(sum(np.prod(p.shape) for p in model.parameters()))
