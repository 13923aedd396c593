"""What belongs to one case of a model of several channels, and the volumes that it is read as."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg_paddle.core import Geometry, Volume
from medseg_paddle.errors import DataError
from medseg_paddle.io.case_volumes import CHANNELS_APART_MM, read_channels_of
from medseg_paddle.io.dicom import AIR_HU, Series, list_series, load_series
from medseg_paddle.io.dicom_file import glance
from medseg_paddle.io.volumes import read_compact
from medseg_paddle.preprocess import resample
from medseg_paddle.steps.predict_inputs import Failure, Input, named_apart, stem

_CHANNEL = re.compile(r"(.+)_(\d{4})")


def together(inputs: Sequence[Input], channels: int) -> tuple[list[Input], list[Failure]]:
    """Put the files ``CASE_0000``, ``CASE_0001``, ... together, the channels of one case, named as nnU-Net does.

    Parameters
    ----------
    inputs : sequence of Input
    channels : int
        How many files make a case; with 1 the inputs stay as they are.

    Returns
    -------
    inputs : list of Input
        Cases, and whatever is not named in this way.
    failures : list of Failure
        Cases that lack a channel.
    """
    if channels == 1:
        return list(inputs), []
    cases: dict[tuple[Path, str], dict[int, Input]] = {}
    whole, failures = [], []
    for one in inputs:
        match = None if one.files else _CHANNEL.fullmatch(stem(one.source))
        if match is None:
            whole.append(one)
        else:
            cases.setdefault((one.source.parent, match[1]), {})[int(match[2])] = one
    for (folder, case), found in cases.items():
        if set(found) != set(range(channels)):
            said = f"{folder / case}: channels {sorted(found)} are there, the model takes {channels}"
            error = DataError(said, hint=f"give the files {case}_0000 to {case}_{channels - 1:04d}")
            failures.append(Failure.of(next(iter(found.values())).source, error))
            continue
        first, *others = (found[number] for number in range(channels))
        whole.append(replace(first, name=case, is_shortened=False, others=tuple(one.path for one in others)))
    return list(named_apart(whole)), failures


def chosen_series(
    inputs: Sequence[Input], uids: Sequence[str], channels: int
) -> tuple[list[Input], list[str]]:
    """Of the inputs the DICOM series that are named: each a case, or all together one of a model of several channels.

    Parameters
    ----------
    inputs : sequence of Input
    uids : sequence of str
        SeriesInstanceUIDs, in the order of the channels.
    channels : int
        How many volumes the model takes.

    Returns
    -------
    inputs : list of Input
    left_out : list of str
        The other inputs, for people.

    Raises
    ------
    DataError
        A series is not there, or in two places; there are not as many as channels.
    """
    there: dict[str, list[Input]] = {}
    for one in inputs:
        there.setdefault(one.uid, []).append(one)
    for uid in uids:
        places = there.get(uid, ())
        if len(places) != 1 or not uid:
            where = ", ".join(str(one.source) for one in places)
            raise DataError(
                f"series {uid} lies in several places: {where}"
                if places
                else f"no input holds a series {uid}",
                hint=f"choose by UID among:{listed(inputs)}"
                if any(one.uid for one in inputs)
                else "give the folder or zip archive that holds it",
            )
    named = [there[uid][0] for uid in dict.fromkeys(uids)]
    left = [f"{one.source}, which no --series names" for one in inputs if one.uid not in uids]
    if channels == 1:
        return named, left
    if len(uids) != channels or len(named) != channels:
        raise DataError(
            f"{len(named)} series are named, the model takes {channels} volumes",
            hint="name one series for each channel, in the order of the training's channels",
        )
    first, *others = named
    return [replace(first, other_series=tuple(one.files for one in others))], left


def require_channels(one: Input, channels: int, inputs: Sequence[Input]) -> None:
    """Refuse a DICOM series by itself that is a channel of several.

    Raises
    ------
    DataError
    """
    if one.files and 1 + len(one.other_series) != channels:
        raise DataError(
            f"{one.source} holds one series of a case, the model takes {channels} volumes",
            hint=f"name the series of a case in the order of the training's channels, {'--series UID ' * channels}"
            f"of these:{listed(inputs)}",
        )


def listed(inputs: Sequence[Input]) -> str:
    """Lines that tell the series among the inputs apart."""
    series = [one for one in inputs if one.files]
    firsts = glance([one.files[0] for one in series])
    return list_series([(first, len(one.files)) for first, one in zip(firsts, series, strict=True)])


def read_volumes(
    one: Input, *, channels_in_file: bool = False, bring_together: bool = False
) -> tuple[tuple[Volume, ...], tuple[str, ...]]:
    """Read the volume of a series or a file, or those of all channels.

    Parameters
    ----------
    one : Input
    channels_in_file : bool
        A single NIfTI file may give all channels, on its fourth axis.
    bring_together : bool
        Resample channels that lie on other grids to that of the first.

    Returns
    -------
    volumes : tuple of Volume
        On one grid, in the smallest types that hold their values.
    notes : tuple of str
        What was done, for people.

    Raises
    ------
    DataError
        A file cannot be read; channels lie on several grids, or are of two patients or frames of reference.
    """
    if one.files:
        series = [load_series(files, compact=True) for files in (one.files, *one.other_series)]
        _require_one_patient(series)
        volumes = [each.volume for each in series]
    elif one.others or not channels_in_file:
        volumes = [read_compact(path) for path in (one.path, *one.others)]
    else:
        volumes = list(read_channels_of(one.path, compact=True))
    first, notes = volumes[0].geometry, []
    for place, volume in enumerate(volumes[1:], start=1):
        if volume.geometry.is_at(first, CHANNELS_APART_MM):
            continue
        if not bring_together:
            raise DataError(
                f"{one.source}: channel {place + 1} does not lie on the grid of channel 1 ({_size(volume.geometry)}; "
                f"{_size(first)})",
                hint="register them, or pass --resample-channels where both are of one position of the patient",
            )
        fill = AIR_HU if volume.units == "HU" else 0.0
        volumes[place] = resample(volume, first, fill=fill)
        notes.append(
            f"channel {place + 1} was resampled to the grid of channel 1, {fill:g} where it does not reach"
        )
    return tuple(volumes), tuple(notes)


def _require_one_patient(series: Sequence[Series]) -> None:
    first = series[0]
    frame = first.volume.geometry.frame_of_reference
    for other in series[1:]:
        if other.patient_id != first.patient_id:
            raise DataError(
                f"series {first.uid} and {other.uid} are of two patients (PatientID)",
                hint="name series of one patient",
            )
        if not frame or other.volume.geometry.frame_of_reference != frame:
            raise DataError(
                f"series {first.uid} and {other.uid} do not lie in one frame of reference: what is at one place in "
                "the one need not be there in the other",
                hint="register the other one to the first, and write it in its frame of reference",
            )


def _size(grid: Geometry) -> str:
    spacing = " x ".join(f"{length:.3g}" for length in grid.spacing)
    corner = ", ".join(f"{place:.1f}" for place in grid.to_lps(np.zeros(3)))
    return f"{' x '.join(map(str, grid.shape))} voxels of {spacing} mm from ({corner})"
