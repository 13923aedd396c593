"""A bundle, loaded: pictures and volumes in, segmentations out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.bundle import Bundle
from medseg_paddle.core import LabelMap, Volume
from medseg_paddle.engine import cpu
from medseg_paddle.errors import DataError, ModelError, RecipeError
from medseg_paddle.io.case_volumes import CHANNELS_APART_MM, read_channels_of
from medseg_paddle.io.dicom import read_series
from medseg_paddle.io.volumes import is_volume
from medseg_paddle.predictor.answer import OnPart, Segmentation
from medseg_paddle.predictor.pictures import checked_picture, read_picture
from medseg_paddle.predictor.slices import segment_slices
from medseg_paddle.predictor.volumes import segment_whole
from medseg_paddle.preprocess import VolumePreprocessing, labels_of, rules_from_specs, segment
from medseg_paddle.preprocess.postprocessing import require_sizes
from medseg_paddle.preprocess.tiling import require_numbers

# Largest difference of a probability that rounding on another machine makes.
_SAME_ANSWER = 0.01

_log = logging.getLogger(__name__)


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
        max_memory: int | None = None,
        on_part: OnPart | None = None,
        on_forecast: Callable[[str], None] | None = None,
    ) -> Segmentation:
        """Segment a picture, or a volume: slice by slice, or as a whole by a 3-D model.

        Parameters
        ----------
        image : ndarray, Volume or sequence of Volume
            Picture ``[H, W, C]``, uint8 or float on the 0..255 scale, C as the model takes (uint16 as stored
            where the bundle has windows for pictures); or a volume, for a model of several channels one for
            each on one grid, in the units that the model learned (HU for CT). For a model of slices its pixels
            must be about as large as those of the training set, and of a volume that was stored in another plane,
            the same voxels are cut in the plane that the model learned. A 3-D model takes volumes alone, and brings
            them to its own axes and spacing.
        probabilities : bool
            Keep the probabilities of all classes.
        max_memory : int, optional
            Of a 3-D model: bytes that the volume and what is made of it may take, the network's own not counted.
        on_part : callable, optional
            Called with the number of slices (of a 3-D model: tiles) done and their total.
        on_forecast : callable, optional
            Of a 3-D model: called with the memory that a volume takes, in words, before anything is computed.

        Returns
        -------
        Segmentation
            In the size or geometry of `image`.

        Raises
        ------
        DataError
            Shape, channels, type or values are not what the model takes; a volume's units, plane, tilt or spacing
            are none that the model learned.
        ModelError
            The bundle has no window for volumes, or the model returns numbers that are none.
        MemoryShortError
            More memory is needed than `max_memory`.
        RecipeError
            `max_memory` for a model that is not 3-D.
        """
        start = time.perf_counter()
        description, preprocessing = self.bundle.description, self.bundle.description.preprocessing
        labels: NDArray[Any] | LabelMap
        if isinstance(preprocessing, VolumePreprocessing):
            labels, kept, notes = segment_whole(
                self._forward,
                self._checked_volumes(image),
                description,
                preprocessing,
                self._rules,
                probabilities=probabilities,
                max_memory=max_memory,
                on_part=on_part,
                on_forecast=on_forecast,
            )
            return Segmentation(labels, kept, self.bundle.id, time.perf_counter() - start, notes)
        if max_memory is not None:
            raise RecipeError(
                "a limit of memory is for 3-D models, and this is one of pictures",
                hint="leave it out; large pictures go through the network in tiles anyway",
            )
        self._require_sizes(volumes=not isinstance(image, np.ndarray))

        def network(picture: NDArray[np.float32]) -> NDArray[np.float32]:
            return require_numbers(
                segment(self._forward, picture, preprocessing, description.plan), "picture"
            )

        if isinstance(image, np.ndarray):
            found = network(checked_picture(description, image))
            labels, kept = labels_of(found, self.bundle.labels, self._rules), found if probabilities else None
        else:
            labels, kept = segment_slices(
                network,
                self._checked_volumes(image),
                description,
                self._rules,
                probabilities=probabilities,
                on_part=on_part,
            )
        return Segmentation(labels, kept, self.bundle.id, time.perf_counter() - start)

    def predict_file(self, path: Path | str, *, probabilities: bool = False) -> Segmentation:
        """Segment a picture, a volume (NIfTI, NRRD, MHA) or a folder with one DICOM series; see :meth:`predict`."""
        return self.predict(self.read(Path(path)), probabilities=probabilities)

    def read(self, path: Path) -> NDArray[np.float32] | tuple[Volume, ...]:
        """Read a file or folder as :meth:`predict` takes it; of a NIfTI file the fourth axis is that of the channels.

        Raises
        ------
        DataError
            It cannot be read; see :mod:`medseg_paddle.io`.
        """
        if path.is_dir():
            return (read_series(path, compact=True),)
        if is_volume(path):
            return read_channels_of(path, compact=True)
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
        sample, expected = self.bundle.sample()
        found = self.bundle.description.answer_to_sample(self._forward, sample)
        if found.shape != expected.shape:
            raise ModelError(
                f"of the bundle's sample the network makes {found.shape}, its description says {expected.shape}",
                hint="export the run again; graph and description are of different models",
            )
        difference = float(np.abs(found - expected).max())
        allowed = max(self.bundle.description.tolerance, _SAME_ANSWER)
        if not difference <= allowed:
            raise ModelError(
                f"on {self.device} the bundle's sample differs by {difference:.3g} from the exporting"
                f" machine's answer (allowed {allowed:.3g})",
                hint="predict on the CPU, or export the run on this machine",
            )
        return difference

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
        return read_picture(self.bundle.description, path, *others)

    def _checked_volumes(self, given: NDArray[Any] | Volume | Sequence[Volume]) -> tuple[Volume, ...]:
        """As many volumes as the model takes, on one grid."""
        description = self.bundle.description
        if isinstance(given, np.ndarray):
            raise DataError(
                f"an array of shape {given.shape}, the model takes volumes with their place in the patient",
                hint="give a Volume, or a file or folder to `predict_file`",
            )
        volumes = (given,) if isinstance(given, Volume) else tuple(given)
        wanted = description.volumes_per_case
        if len(volumes) != wanted:
            raise DataError(
                f"{len(volumes)} volume(s) are given, the model takes {wanted}",
                hint="give one volume for each channel, in the order of the recipe's `images`"
                if wanted > 1
                else "give one volume at a time",
            )
        first = volumes[0].geometry
        for volume in volumes[1:]:
            if not volume.geometry.is_at(first, CHANNELS_APART_MM):
                raise DataError(
                    "the channels' volumes do not lie on one grid",
                    hint="resample them to the first one's grid",
                )
        # To the last digit, which the files may round each in its own way.
        return tuple(replace(volume, geometry=first) for volume in volumes)

    def _require_sizes(self, *, volumes: bool) -> None:
        try:
            require_sizes(self._rules, volumes=volumes)
        except RecipeError as error:
            raise DataError(
                f"the bundle does not segment {'volumes' if volumes else 'pictures'}: {error.message}",
                hint="give what it was trained on, or export it again with another `--set postprocessing=...`",
            ) from None
