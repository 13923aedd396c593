"""Seeing that a volume is like those that a model learned from: a network fails on others without a word."""

from __future__ import annotations

from medseg_paddle.core import Acquisition, SpacingRange, Units, Volume
from medseg_paddle.errors import DataError
from medseg_paddle.preprocess.orientation import Upright

_SPACING_FACTOR = 1.25
_ROUNDING = 1e-6

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
    _require_units(volume.units, trained)
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


def _require_units(found: Units, trained: Acquisition) -> None:
    known = [units for units in trained.units if units != "unknown"]
    if found == "unknown" or len(known) < len(trained.units) or found in known:
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
