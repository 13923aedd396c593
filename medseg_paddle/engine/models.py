"""Networks: PaddleSeg's U-Net family by name, and ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray
from paddle import nn

from medseg_paddle.config import Recipe
from medseg_paddle.config.base import component_arguments
from medseg_paddle.engine.paddleseg_adapter import manager
from medseg_paddle.errors import ModelError


def _double_convolution(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    make_norm = nn.BatchNorm2D if norm == "batch" else nn.InstanceNorm2D
    layers: list[nn.Layer] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2D(channels, outputs, 3, padding=1, bias_attr=False), make_norm(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


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
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        width: int = 32,
        max_width: int = 512,
        depth: int = 4,
        norm: str = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [min(width * 2**level, max_width) for level in range(depth + 1)]
        self.down = nn.LayerList(
            [_double_convolution(i, o, norm) for i, o in zip([in_channels, *widths], widths, strict=False)]
        )
        self.dropout = nn.Dropout2D(dropout) if dropout else None
        self.up = nn.LayerList(
            [
                _double_convolution(widths[level + 1] + widths[level], widths[level], norm)
                for level in reversed(range(depth))
            ]
        )
        self.head = nn.Conv2D(widths[0], num_classes, 1)

    def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Logits ``[N, K, H, W]`` of images ``[N, C, H, W]``, in a list as PaddleSeg wants them."""
        skips = []
        for level, block in enumerate(self.down):
            if level:
                x = F.max_pool2d(x, 2)
            x = block(x)
            skips.append(x)
        skips.pop()
        if self.dropout is not None:
            x = self.dropout(x)
        for block in self.up:
            skip = skips.pop()
            x = F.interpolate(x, size=paddle.shape(skip)[2:], mode="bilinear", align_corners=False)
            x = block(paddle.concat([x, skip], axis=1))
        return [self.head(x)]


@manager.MODELS.add_component
class SimpleUNet(ScalableUNet):
    """A two-level U-Net to learn and test with."""

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 16) -> None:
        super().__init__(num_classes, in_channels, width=width, depth=2)


def build_model(recipe: Recipe) -> nn.Layer:
    """The recipe's network with fresh (or locally pretrained) weights.

    Raises
    ------
    ModelError
        The pretrained file is missing or does not fit.
    """
    arguments = component_arguments(recipe.model)
    pretrained = arguments.pop("pretrained", None)
    model = manager.MODELS[recipe.model.type](**arguments)
    if pretrained is not None:
        load_weights(model, Path(pretrained))
    return model


def load_model(recipe: Recipe, checkpoint: Path) -> nn.Layer:
    """The recipe's network with trained weights, ready to predict.

    Raises
    ------
    ModelError
        The checkpoint is missing, damaged or of another model.
    """
    arguments = component_arguments(recipe.model)
    arguments.pop("pretrained", None)
    model = manager.MODELS[recipe.model.type](**arguments)
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
    if not path.is_file():
        raise ModelError(f"checkpoint {path} is not there", hint="give a run that has been trained")
    try:
        state = paddle.load(str(path))
        shapes = {name: tuple(value.shape) for name, value in state.items()}
    except Exception as error:  # paddle.load raises whatever pickle raises
        raise ModelError(
            f"checkpoint {path} cannot be read ({type(error).__name__})",
            hint="use another checkpoint of the run",
        ) from error
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


class ForwardFunction:
    """A network as a plain function of arrays.

    Calling it with float32 ``[N, C, H, W]`` gives probabilities, float32 ``[N, K, H, W]``. The network
    is put into evaluation mode for the call and back. `amp_level` (``"O1"``, ``"O2"``) computes in mixed
    precision, as the network was trained.
    """

    def __init__(self, model: nn.Layer, amp_level: str | None = None) -> None:
        self._model, self._amp_level = model, amp_level

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities of a batch."""
        training = self._model.training
        self._model.eval()
        try:
            with (
                paddle.no_grad(),
                paddle.amp.auto_cast(self._amp_level is not None, level=self._amp_level or "O1"),
            ):
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
