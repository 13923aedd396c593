"""Seeing that volumes are like those that a model learned from: a network fails on others without a word."""

from __future__ import annotations

from dataclasses import replace

from medseg_paddle.core import Acquisition, SpacingRange, Units, Volume, VolumeAcquisition
from medseg_paddle.errors import DataError
from medseg_paddle.preprocess.orientation import Upright
from medseg_paddle.preprocess.volumes import VolumePreprocessing

_SPACING_FACTOR = 1.25
_ROUNDING = 1e-6
_COARSEST_FACTOR = (
    3  # what is interpolated from voxels that much coarser than all that were learned is a guess
)
_TILT_DEGREES = 30.0  # as slices are called oblique beyond

_AXES = ("slices", "rows", "columns")
_UNITS: dict[Units, str] = {
    "HU": "Hounsfield units (CT)",
    "arbitrary": "arbitrary units, no HU (as of MR or PET)",
}


def order_as_trained(volume: Volume, trained: Acquisition) -> tuple[int, int, int]:
    """Find the order of a volume's axes in which its slices are like those that a model learned from.

    Slices that were stored in another plane are cut anew, along another axis of the same voxels; nothing is
    interpolated.

    Parameters
    ----------
    volume : Volume
    trained : Acquisition
        What the training set's slices were like.

    Returns
    -------
    tuple of int
        For :meth:`Volume.transposed`.

    Raises
    ------
    DataError
        The numbers mean something else; no axis gives slices in a plane that was learned; the spacing
        within these slices is more than a quarter below or above all that was learned.
    """
    _require_units(volume.units, trained.units)
    order = _order(volume, trained)
    cut = volume.geometry.transposed(order)
    rows, columns = Upright.of(cut).spacing(cut)
    if not (_near(rows, trained.rows) and _near(columns, trained.columns)):
        slices = "the slices" if order == (0, 1, 2) else f"cut anew, the {cut.plane} slices"
        raise DataError(
            f"{slices} have pixels of {rows:.3g} x {columns:.3g} mm (rows x columns), the model was trained on "
            f"{trained.rows} x {trained.columns}",
            hint=f"resample it to about {trained.rows.median:.2g} x {trained.columns.median:.2g} mm first (this "
            "program does not yet), or train a model on such volumes",
        )
    return order


def as_trained(
    volume: Volume, preprocessing: VolumePreprocessing, trained: VolumeAcquisition
) -> tuple[Volume, tuple[str, ...]]:
    """See that a 3-D network can segment a volume, and say what its numbers mean where the volume does not.

    Spacing is made the network's own, and so may differ; from coarse voxels, though, fine ones are only guessed.

    Parameters
    ----------
    volume : Volume
    preprocessing : VolumePreprocessing
        The network's.
    trained : VolumeAcquisition
        What the training set's volumes were like.

    Returns
    -------
    Volume
        In the training's units where its own are unknown.
    tuple of str
        What people should know, in sentences.

    Raises
    ------
    DataError
        The numbers mean something else; the volume lies tilted as none that was learned did; its voxels are too
        coarse, or of another size along an axis that the network takes as it is.
    """
    _require_units(volume.units, trained.units)
    tilt = volume.geometry.tilt
    if tilt > max(_TILT_DEGREES, trained.tilt) + _ROUNDING:
        raise DataError(
            f"the volume lies tilted by {tilt:.0f} degrees in the patient, those that the model was trained on by"
            f" {trained.tilt:.0f} at most",
            hint="resample the volume to straight axes first (this program does not yet), or train a model on such "
            "volumes",
        )
    notes = []
    kept = preprocessing.spacing or (None, None, None)
    along = volume.geometry.transposed(volume.geometry.turn_to(preprocessing.axes)[0]).spacing
    for name, found, learned, target in zip(_AXES, along, trained.spacing, kept, strict=True):
        where = f"along its {name} the volume has voxels of {found:.3g} mm"
        if target is None:
            if not _near(found, learned):
                raise DataError(
                    f"{where}, the model takes them as they are and was trained on {learned}",
                    hint=f"resample it to about {learned.median:.2g} mm first (this program does not yet), or train a "
                    "model on such volumes",
                )
        elif found > _COARSEST_FACTOR * learned.largest * (1 + _ROUNDING):
            raise DataError(
                f"{where}, the model was trained on {learned}: structures of that size are not in the volume",
                hint="give a finer reconstruction of the scan, or train a model on such volumes",
            )
        elif found > _SPACING_FACTOR * learned.largest * (1 + _ROUNDING):
            notes.append(f"{where}, coarser than those that the model was trained on ({learned})")
    if volume.units == "unknown" and trained.units == ("HU",):
        volume = replace(volume, units="HU")
        if float(volume.array.min()) >= 0:
            notes.append(
                "the file does not say what its numbers mean; they were taken as Hounsfield units, though none is "
                "below 0"
            )
    return volume, tuple(notes)


def _require_units(found: Units, trained: tuple[Units, ...]) -> None:
    known = [units for units in trained if units != "unknown"]
    if found == "unknown" or len(known) < len(trained) or found in known:
        return
    raise DataError(
        f"the volume holds {_UNITS[found]}, the model was trained on {_UNITS[known[0]]}",
        hint="give the kind of scan that the model was trained on, or train a model on this kind",
    )


def _order(volume: Volume, trained: Acquisition) -> tuple[int, int, int]:
    plane = volume.geometry.plane
    if plane in trained.planes:
        return 0, 1, 2
    for wanted in trained.planes:
        if wanted != "oblique":
            order = volume.geometry.sliced_along(wanted)
            if volume.geometry.transposed(order).plane == wanted:
                return order
    learned = " and ".join(trained.planes)
    raise DataError(
        f"the volume's slices are {plane}, the model was trained on {learned} ones",
        hint=f"resample the volume to {learned} slices first (this program does not yet), or train a model on such "
        "volumes",
    )


def _near(spacing: float, trained: SpacingRange) -> bool:
    low, high = trained.smallest / _SPACING_FACTOR, trained.largest * _SPACING_FACTOR
    return low * (1 - _ROUNDING) <= spacing <= high * (1 + _ROUNDING)
