"""A bundle, loaded: pictures and volumes in, segmentations out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.bundle import Bundle
from medseg_paddle.core import LabelMap, Volume
from medseg_paddle.engine import cpu
from medseg_paddle.errors import DataError, ModelError
from medseg_paddle.io.dicom import read_series
from medseg_paddle.io.images import read_image
from medseg_paddle.io.nifti import read_nifti
from medseg_paddle.preprocess import segment
from medseg_paddle.preprocess.acquisition import order_as_trained
from medseg_paddle.preprocess.orientation import Upright
from medseg_paddle.preprocess.window import window_to_uint8

NIFTI_SUFFIXES = (".nii", ".nii.gz")

# Largest difference of a probability that rounding on another machine makes.
_SAME_ANSWER = 0.01

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """An answer, on the pixels or voxels of the source.

    Attributes
    ----------
    labels : ndarray or LabelMap
        Of a picture: class indices ``[H, W]``; of a volume: a label map on the volume's geometry.
        uint8, or uint16 for more than 256 classes.
    probabilities : ndarray or None
        On request: ``[K, H, W]`` or ``[K, slices, rows, columns]`` float32.
    bundle_id : str
        Which bundle answered.
    seconds : float
        Time the prediction took, without reading the file.
    """

    labels: NDArray[Any] | LabelMap
    probabilities: NDArray[np.float32] | None
    bundle_id: str
    seconds: float

    @property
    def array(self) -> NDArray[Any]:
        """The class indices alone: ``[H, W]`` or ``[slice, row, column]``."""
        return self.labels.array if isinstance(self.labels, LabelMap) else self.labels


class Predictor:
    """A model ready to predict. One prediction at a time: not for several threads at once.

    Parameters
    ----------
    bundle : Bundle, Path or str
        What :func:`medseg_paddle.export` returned, or the folder that it wrote.
    device : str
        ``"auto"`` (a GPU if Paddle sees one), ``"cpu"`` or ``"gpu"``.

    Raises
    ------
    ModelError
        The bundle is damaged or of another version, or this machine computes something else than the one
        that exported it (see :meth:`self_check`).
    SetupError
        A GPU is asked for and there is none.
    """

    def __init__(self, bundle: Bundle | Path | str, device: str = "auto") -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(Path(bundle))
        # Paddle reads these settings when it is first imported, which takes seconds: first see that the
        # bundle is good.
        cpu.apply_defaults()
        from medseg_paddle.engine.device import set_device  # noqa: PLC0415
        from medseg_paddle.engine.static_graph import load_static  # noqa: PLC0415

        self.device = set_device(device)
        self._forward = load_static(self.bundle.graph_prefix, self.device, threads=cpu.available_cores())
        self.self_check()
        _log.info("bundle %s (%s) on %s", self.bundle.description.name, self.bundle.id, self.device)

    def predict(
        self,
        image: NDArray[Any] | Volume,
        *,
        probabilities: bool = False,
        on_slice: Callable[[int, int], None] | None = None,
    ) -> Segmentation:
        """Segment a picture, or a volume slice by slice.

        Parameters
        ----------
        image : ndarray or Volume
            Picture ``[H, W, C]``, uint8 or float on the 0..255 scale, C as the model takes; or a volume
            in the units of the bundle's window (HU for CT), with pixels about as large as those of the
            training set. Of a volume that was stored in another plane, the same voxels are cut in the plane
            that the model learned.
        probabilities : bool
            Keep the probabilities of all classes.
        on_slice : callable, optional
            Called with the number of slices done and their total.

        Returns
        -------
        Segmentation
            In the size or geometry of `image`.

        Raises
        ------
        DataError
            Shape, channels, type or values are not what the model takes; a volume's units, plane or spacing
            are none that the model learned.
        ModelError
            The bundle has no window for volumes, or the model returns numbers that are none.
        """
        start = time.perf_counter()
        if not isinstance(image, Volume):
            found = self._probabilities(_checked(image, self.bundle.description.in_channels))
            kept = found if probabilities else None
            return Segmentation(self._labels(found), kept, self.bundle.id, time.perf_counter() - start)
        trained_on = self.bundle.description.trained_on
        order = (0, 1, 2) if trained_on is None else order_as_trained(image, trained_on)
        cut, stored = image.transposed(order), np.argsort(order)
        upright, total = Upright.of(cut.geometry), cut.geometry.shape[0]
        labels, every = [], []
        for done, picture in enumerate(self._slices(cut, upright), start=1):
            found = upright.undo(self._probabilities(picture))
            labels.append(self._labels(found))
            if probabilities:
                every.append(found)
            if on_slice is not None:
                on_slice(done, total)
        return Segmentation(
            LabelMap(
                np.ascontiguousarray(np.stack(labels).transpose(stored)), image.geometry, self.bundle.labels
            ),
            np.stack(every, axis=1).transpose(0, *(1 + stored)) if probabilities else None,
            self.bundle.id,
            time.perf_counter() - start,
        )

    def predict_file(self, path: Path | str, *, probabilities: bool = False) -> Segmentation:
        """Segment a picture, a NIfTI volume or a folder with one DICOM series; see :meth:`predict`."""
        return self.predict(self.read(Path(path)), probabilities=probabilities)

    def read(self, path: Path) -> NDArray[np.float32] | Volume:
        """Read a file or folder as :meth:`predict` takes it.

        Raises
        ------
        DataError
            It cannot be read; see :mod:`medseg_paddle.io`.
        """
        if path.is_dir():
            return read_series(path)
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            return read_nifti(path)
        return read_image(path, self.bundle.description.in_channels)

    def self_check(self) -> float:
        """Predict the bundle's sample and compare with what the exporting machine computed.

        Done when a bundle is loaded. Rounding differs between machines (a GPU multiplies with 10 bits, TF32)
        and is allowed up to 0.01, or the bundle's tolerance where that is larger.

        Returns
        -------
        float
            Largest difference of a probability.

        Raises
        ------
        ModelError
            It is larger: this machine computes something else.
        """
        picture, expected = self.bundle.sample()
        found = self._probabilities(picture.astype(np.float32))
        difference = float(np.abs(found - expected).max())
        allowed = max(self.bundle.description.tolerance, _SAME_ANSWER)
        if not difference <= allowed:
            raise ModelError(
                f"on {self.device} the bundle's sample differs by {difference:.3g} from the exporting"
                f" machine's answer (allowed {allowed:.3g})",
                hint="predict on the CPU, or export the run on this machine",
            )
        return difference

    def _probabilities(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        description = self.bundle.description
        found = segment(self._forward, picture, description.preprocessing, description.plan)
        if not np.isfinite(found).all():
            raise ModelError(
                "the model returns values that are not numbers (NaN)",
                hint="check that the picture's intensities are ordinary; if they are, train and export again",
            )
        return found

    def _labels(self, probabilities: NDArray[np.float32]) -> NDArray[Any]:
        dtype = np.uint8 if len(self.bundle.labels) <= 256 else np.uint16
        return np.asarray(probabilities.argmax(axis=0), dtype=dtype)

    def _slices(self, volume: Volume, upright: Upright) -> Iterator[NDArray[np.float32]]:
        """Turn the slices into the pictures that `medseg prepare` makes of them."""
        window, channels = self.bundle.description.window, self.bundle.description.in_channels
        if window is None:
            raise ModelError(
                f"bundle '{self.bundle.description.name}' segments pictures, it has no window for volumes",
                hint="give pictures; or prepare volumes by a recipe with `prepare.window`, train and export",
            )
        for stored in volume.array:
            grey = window_to_uint8(upright.apply(stored), window.level, window.width).astype(np.float32)
            yield np.repeat(grey[:, :, None], channels, axis=2)


def _checked(image: NDArray[Any], channels: int) -> NDArray[np.float32]:
    if image.ndim != 3 or image.shape[2] != channels or 0 in image.shape:
        raise DataError(
            f"a picture of shape {image.shape}, the model takes [height, width, {channels}]",
            hint="give rows, columns, channels in this order; a grey picture as image[:, :, None]",
        )
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise DataError(
            f"a picture of {image.dtype}, the model takes the 0..255 scale as uint8 or float",
            hint="divide 16-bit values by 257",
        )
    picture = np.asarray(image, dtype=np.float32)
    if not np.isfinite(picture).all():
        raise DataError("the picture holds values that are not finite", hint="fill them on purpose first")
    return picture
