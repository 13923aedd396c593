"""What the slices of a data set are like."""

from __future__ import annotations

from medseg_paddle.core import Acquisition, Slicing, SpacingRange


def test_planes_units_and_spacings_are_summed_up_by_hand():
    slices = [
        None,
        Slicing("coronal", (2.0, 1.0), "HU"),
        Slicing("axial", (0.7, 0.9), "unknown"),
        Slicing("axial", (0.5, 0.5), "HU"),
    ]
    found = Acquisition.of(slices)
    assert found.planes == ("axial", "coronal")
    assert found.units == ("HU", "unknown")
    assert found.rows == SpacingRange(0.5, 0.7, 2.0)
    assert found.columns == SpacingRange(0.5, 0.9, 1.0)
    assert str(found.rows) == "0.5 to 2 mm"


def test_pictures_that_were_no_slices_say_nothing():
    assert Acquisition.of([None, None]) is None
    assert Acquisition.of([]) is None


def test_one_spacing_is_no_range():
    assert str(SpacingRange.of([0.7031, 0.7032])) == "0.703 mm"
