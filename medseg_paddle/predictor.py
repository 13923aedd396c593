"""A bundle, loaded: pictures and volumes in, segmentations out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.bundle import Bundle, Window
from medseg_paddle.core import LabelMap, Volume
from medseg_paddle.engine import cpu
from medseg_paddle.errors import DataError, ModelError
from medseg_paddle.io.channels import read_channels
from medseg_paddle.io.dicom import DICOM_SUFFIXES, read_series
from medseg_paddle.io.dicom_pictures import read_dicom_picture
from medseg_paddle.io.images import read_image
from medseg_paddle.io.volumes import is_volume, read_volume
from medseg_paddle.preprocess import labels_of, rules_from_specs, segment
from medseg_paddle.preprocess.acquisition import order_as_trained
from medseg_paddle.preprocess.orientation import Upright
from medseg_paddle.preprocess.postprocessing import classes_of, cleaned
from medseg_paddle.preprocess.window import window_to_uint8, window_to_uint16, windowed_picture

# Largest difference of a probability that rounding on another machine makes.
_SAME_ANSWER = 0.01
_SAME_PLACE_MM = 0.05

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
        self._rules = rules_from_specs(self.bundle.description.postprocessing, self.bundle.labels)
        self._forward = load_static(self.bundle.graph_prefix, self.device, threads=cpu.maths_threads())
        self.self_check()
        _log.info("bundle %s (%s) on %s", self.bundle.description.name, self.bundle.id, self.device)

    def predict(
        self,
        image: NDArray[Any] | Volume | Sequence[Volume],
        *,
        probabilities: bool = False,
        on_slice: Callable[[int, int], None] | None = None,
    ) -> Segmentation:
        """Segment a picture, or a volume slice by slice.

        Parameters
        ----------
        image : ndarray, Volume or sequence of Volume
            Picture ``[H, W, C]``, uint8 or float on the 0..255 scale, C as the model takes (uint16 as stored
            where the bundle has windows for pictures); or a volume, for a model of several channels one for
            each on one grid, in the units of the bundle's window (HU for CT), with pixels about as large as
            those of the training set. Of a volume that was stored in another plane, the same voxels are cut
            in the plane that the model learned.
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
        if isinstance(image, np.ndarray):
            found = self._probabilities(self._checked_picture(image))
            kept = found if probabilities else None
            labels = labels_of(found, self.bundle.labels, self._rules)
            return Segmentation(labels, kept, self.bundle.id, time.perf_counter() - start)
        volumes = self._checked_volumes((image,) if isinstance(image, Volume) else tuple(image))
        first, trained_on = volumes[0], self.bundle.description.trained_on
        order = (0, 1, 2) if trained_on is None else order_as_trained(first, trained_on)
        cut, stored = [volume.transposed(order) for volume in volumes], np.argsort(order)
        upright, total = Upright.of(cut[0].geometry), cut[0].geometry.shape[0]
        planes, every = [], []
        for done, picture in enumerate(self._slices(cut, upright), start=1):
            found = upright.undo(self._probabilities(picture))
            planes.append(classes_of(found, self.bundle.labels, self._rules))
            if probabilities:
                every.append(found)
            if on_slice is not None:
                on_slice(done, total)
        answer = cleaned(np.stack(planes), self.bundle.labels, self._rules, cut[0].geometry.spacing)
        return Segmentation(
            LabelMap(np.ascontiguousarray(answer.transpose(stored)), first.geometry, self.bundle.labels),
            np.stack(every, axis=1).transpose(0, *(1 + stored)) if probabilities else None,
            self.bundle.id,
            time.perf_counter() - start,
        )

    def predict_file(self, path: Path | str, *, probabilities: bool = False) -> Segmentation:
        """Segment a picture, a volume (NIfTI, NRRD, MHA) or a folder with one DICOM series; see :meth:`predict`."""
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
        if is_volume(path):
            return read_volume(path)
        return self.read_picture(path)

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

    def _slices(self, volumes: Sequence[Volume], upright: Upright) -> Iterator[NDArray[np.float32]]:
        """Turn the slices into the pictures that `medseg prepare` makes of them."""
        description = self.bundle.description
        windows = description.channel_windows or (description.window,)
        for place in range(len(volumes[0].array)):
            planes = [
                _grey(upright.apply(volume.array[place]), window)
                for volume, window in zip(volumes, windows, strict=True)
                if window is not None
            ]
            picture = np.stack(planes, axis=-1)
            # One volume for a model of colour is repeated, as grey pictures are.
            yield picture if len(planes) > 1 else picture.repeat(description.in_channels, axis=2)

    def _checked_volumes(self, volumes: tuple[Volume, ...]) -> tuple[Volume, ...]:
        description = self.bundle.description
        if description.window is None and not description.channel_windows:
            raise ModelError(
                f"bundle '{description.name}' segments pictures, it has no window for volumes",
                hint="give pictures; or prepare volumes by a recipe with `prepare.window`, train and export",
            )
        wanted = len(description.channel_windows) or 1
        if len(volumes) != wanted:
            raise DataError(
                f"{len(volumes)} volume(s) are given, the model takes {wanted}",
                hint="give one volume for each channel, in the order of the recipe's `images`"
                if wanted > 1
                else "give one volume at a time",
            )
        first = volumes[0].geometry
        for volume in volumes[1:]:
            same = volume.geometry.shape == first.shape and np.allclose(
                volume.geometry.affine, first.affine, rtol=0, atol=_SAME_PLACE_MM
            )
            if not same:
                raise DataError(
                    "the channels' volumes do not lie on one grid",
                    hint="resample them to the first one's grid",
                )
        return volumes

    def _checked_picture(self, image: NDArray[Any]) -> NDArray[np.float32]:
        windows = self.bundle.description.picture_windows
        if windows and image.dtype == np.uint16:
            plain = windowed_picture(image, [(one.level, one.width) for one in windows], windows[0].bits)
            image = plain.astype(np.float32) / (257.0 if plain.dtype == np.uint16 else 1.0)
        return _checked(image, self.bundle.description.in_channels)

    def read_picture(self, path: Path, *others: Path) -> NDArray[np.float32]:
        """Read a picture on the 0..255 scale, as `medseg prepare` would have written it.

        Parameters
        ----------
        path : Path
        *others : Path
            Files of the second channel and those after it, where each channel has a file of its own.

        Returns
        -------
        ndarray, shape (height, width, channels), float32

        Raises
        ------
        DataError
            As for :func:`~medseg_paddle.io.images.read_image`.
        """
        description = self.bundle.description
        if path.suffix.lower() in DICOM_SUFFIXES and not others:
            return self._read_dicom(path)
        if not description.picture_windows and not others:
            return read_image(path, description.in_channels)
        samples = read_channels([path, *others])
        if not description.picture_windows:
            return _checked(
                samples if samples.dtype == np.uint8 else samples / np.float32(257), description.in_channels
            )
        if samples.dtype != np.uint16:
            raise DataError(
                f"{path} has 8 bits, the model was trained on pictures of 16 bits seen through a window",
                hint="give the picture as the detector wrote it",
            )
        if samples.shape[2] == 1:
            samples = samples.repeat(description.in_channels, axis=2)
        return self._checked_picture(samples)

    def _read_dicom(self, path: Path) -> NDArray[np.float32]:
        """One DICOM image, such as an X-ray, for a model of pictures."""
        description = self.bundle.description
        if description.window is not None or description.channel_windows:
            raise DataError(
                f"{path} is one DICOM file, series are segmented",
                hint="give the folder that holds its series",
            )
        windows = description.picture_windows
        bits: Literal[8, 16] = 8 if windows and windows[0].bits == 8 else 16
        array = read_dicom_picture(path, [(one.level, one.width) for one in windows], bits)
        grey = array.astype(np.float32) / np.float32(257 if bits == 16 else 1)
        return _checked(grey[:, :, None].repeat(description.in_channels, axis=2), description.in_channels)


def _grey(values: NDArray[Any], window: Window) -> NDArray[np.float32]:
    """Numbers of a volume on the 0..255 scale."""
    if window.bits == 16:
        deep = window_to_uint16(values, window.level, window.width)
        return np.asarray(deep / np.float32(257), dtype=np.float32)
    return window_to_uint8(values, window.level, window.width).astype(np.float32)


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
