"""Medical-image segmentation with PaddlePaddle: one recipe from a folder of images to an exported U-Net.

>>> from medseg_paddle import train, evaluate, export, Predictor
>>> run = train("configs/unet_medical.yml")                     # doctest: +SKIP
>>> report = evaluate(run)                                       # doctest: +SKIP
>>> bundle = export(run)                                         # doctest: +SKIP
>>> answer = Predictor(bundle).predict_file("patient/ct/")       # doctest: +SKIP

Nothing is loaded at import; Paddle comes with the first call.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg_paddle.predictor import Predictor
    from medseg_paddle.steps.evaluate import evaluate
    from medseg_paddle.steps.export import export
    from medseg_paddle.steps.prepare import prepare
    from medseg_paddle.steps.train import train

__version__ = "0.1.0"

__all__ = ["Predictor", "__version__", "evaluate", "export", "prepare", "train"]

_HOME = {
    "Predictor": "medseg_paddle.predictor",
    "evaluate": "medseg_paddle.steps.evaluate",
    "export": "medseg_paddle.steps.export",
    "prepare": "medseg_paddle.steps.prepare",
    "train": "medseg_paddle.steps.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
