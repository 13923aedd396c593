"""Judging images: constant, saturated, squeezed, of several kinds, of odd spacing; centres beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from medseg_paddle.preprocess.depth import dark_middle
from medseg_paddle.steps.check.exchanged import FEW_VALUES
from medseg_paddle.steps.check.facts import Facts
from medseg_paddle.steps.check.findings import Centre, Finding, error, note, warning
from medseg_paddle.steps.check.inputs import Gathered
from medseg_paddle.steps.check.intensity import Levels

_FLAT = 3.0  # grey levels of 256
_SATURATED = 0.25
_GAPS = 0.3
_FEW_LEVELS = 24  # of 256; the dimmest pictures of a microscope have 32
_SPACING = 0.25  # as far as a bundle lets the pixels of a picture differ from those it was trained on
_LEAST_CASES = 3
_LEAST_SPANS = 5
_NARROW = 0.2
_OVERLAP = 0.5


def judge_images(facts: Sequence[Facts], gathered: Gathered) -> Iterator[Finding]:
    """What is wrong with the images, over the whole set."""
    read = [(one, one.levels) for one in facts if one.levels is not None]
    yield from _own_labels(facts)
    read = [(one, levels) for one, levels in read if not one.is_label]
    yield from _flat(read)
    pictures = [(one, levels) for one, levels in read if one.slicing is None]  # a window saturates on purpose
    yield from _binary(pictures)
    pictures = [(one, levels) for one, levels in pictures if not levels.binary]
    yield from _saturated(pictures)
    yield from _narrow(pictures)
    yield from _squeezed(pictures, gathered)
    yield from _few_levels(pictures)
    yield from _mixed(facts)
    yield from _spacing(facts)
    yield from _centres(facts)


def _own_labels(facts: Sequence[Facts]) -> Iterator[Finding]:
    same = [one.unit.id for one in facts if one.is_label]
    if same:
        yield error(
            "image-is-label",
            f"{len(same)} image(s) that are their own label, in other values: a copy of the mask lies where the image "
            "should",
            "put the images there, or correct the patterns or the list",
            same,
        )


def _binary(pictures: Sequence[tuple[Facts, Levels]]) -> Iterator[Finding]:
    some = [one.unit.id for one, levels in pictures if levels.binary and not _is_flat(levels)]
    if some:
        yield warning(
            "binary-image",
            f"{len(some)} image(s) of {FEW_VALUES} values or fewer, as a mask has",
            "see that they are the images, and that nothing thresholded them on the way",
            some,
        )


def _few_levels(pictures: Sequence[tuple[Facts, Levels]]) -> Iterator[Finding]:
    """Eight bits of which a few are used: 12 bits cut down to 8 without a window."""
    few = {
        one.unit.id: levels.distinct
        for one, levels in pictures
        if levels.bits == 8 and levels.distinct <= _FEW_LEVELS and not _is_flat(levels)
    }
    if few:
        yield warning(
            "squeezed-depth",
            f"{len(few)} image(s) of 8 bits with {min(few.values())} to {max(few.values())} grey levels in all",
            "export them again from the original, with 16 bits or with a window; what is left is too coarse for a "
            "faint border",
            tuple(few),
            levels=few,
        )


def _is_flat(levels: Levels) -> bool:
    return levels.least < levels.most and levels.high - levels.low < _FLAT * levels.unit


def _flat(read: Sequence[tuple[Facts, Levels]]) -> Iterator[Finding]:
    constant = [one.unit.id for one, levels in read if levels.least == levels.most]
    if constant:
        yield error(
            "constant-image",
            f"{len(constant)} image(s) of one single value",
            "export them again; for volumes see that the window fits",
            constant,
        )
    flat = [one.unit.id for one, levels in read if _is_flat(levels)]
    if flat:
        yield warning(
            "flat-image",
            f"{len(flat)} image(s) whose values, but for 2 %, lie within {_FLAT:.0f} of 256 grey levels",
            "export them again with the range that holds the object; for volumes see that the window fits",
            flat,
        )


def _saturated(pictures: Sequence[tuple[Facts, Levels]]) -> Iterator[Finding]:
    white = {one.unit.id: levels.saturated for one, levels in pictures if levels.saturated > _SATURATED}
    if white:
        yield warning(
            "saturated-image",
            f"{len(white)} image(s) with up to {max(white.values()):.0%} of the samples at the largest value",
            "export them again without clipping; what was clipped cannot be told apart any more",
            tuple(white),
            shares={name: round(share, 3) for name, share in white.items()},
        )


def _narrow(pictures: Sequence[tuple[Facts, Levels]]) -> Iterator[Finding]:
    """Pictures of far less contrast than the others: underexposed, or of another exposure or export."""
    spans = {
        one.unit.id: (levels.high - levels.low) / levels.unit
        for one, levels in pictures
        if levels.least < levels.most and not _is_flat(levels)
    }
    if len(spans) < _LEAST_SPANS:
        return
    usual = median(spans.values())
    narrow = {name: span for name, span in spans.items() if span < _NARROW * usual}
    if narrow:
        yield note(
            "low-contrast",
            f"{len(narrow)} image(s) whose grey levels span {min(narrow.values()):.0f} to {max(narrow.values()):.0f} "
            f"of 256, usual here are {usual:.0f}",
            "look at them: if they were exported otherwise, do it again; if they are as dim as that, RandomIntensity "
            "prepares a model for it",
            tuple(narrow),
            spans={name: round(span, 1) for name, span in narrow.items()},
        )


def _squeezed(pictures: Sequence[tuple[Facts, Levels]], gathered: Gathered) -> Iterator[Finding]:
    gaps = {one.unit.id: levels.gaps for one, levels in pictures if levels.gaps > _GAPS}
    if gaps:
        yield warning(
            "squeezed-depth",
            f"{len(gaps)} image(s) of 8 bits whose histogram is a comb: up to {max(gaps.values()):.0%} of the grey "
            "levels in its range do not occur",
            "export them again from the original, with 16 bits or with a window; few levels were stretched over many",
            tuple(gaps),
            shares={name: round(share, 3) for name, share in gaps.items()},
        )
    deep = [(one, levels) for one, levels in pictures if levels.bits == 16]
    shallow = [
        one.unit.id for one, levels in deep if levels.distinct <= 256 and levels.most - levels.least > 4 * 256
    ]
    if shallow:
        yield warning(
            "squeezed-depth",
            f"{len(shallow)} image(s) of 16 bits with no more values than 8 bits hold",
            "export them again from the original: they went through 8 bits on the way",
            shallow,
        )
    middle = dark_middle([levels.most for _, levels in deep])
    if middle is not None:
        dark = [one.unit.id for one, levels in deep if levels.most <= middle]
        judge = error if gathered.kind == "source" else warning
        yield judge(
            "dark-sixteen-bit",
            f"of {len(deep)} images with 16 bits {len(dark)} have no value above {middle:.0f} of 65535: they are "
            "nearly black",
            "multiply all by one factor that fills the range (16 for 12-bit values)",
            dark,
        )


def _mixed(facts: Sequence[Facts]) -> Iterator[Finding]:
    by_kind: dict[tuple[int, int], list[str]] = {}
    for one in facts:
        for kind in one.kinds:
            by_kind.setdefault(kind, []).append(one.unit.id)
    channels, bits = {kind[0] for kind in by_kind}, {kind[1] for kind in by_kind}
    counted = sorted(by_kind.items(), key=lambda item: -len(item[1]))
    described = ", ".join(f"{len(names)} {_colour(kind[0])} of {kind[1]} bits" for kind, names in counted)
    rare = counted[-1][1] if counted else []
    if len(bits) > 1:
        yield warning(
            "mixed-depth",
            f"pictures of different depth: {described}",
            "see that 8 and 16 bits have the same range of grey; export all alike",
            rare,
        )
    if len(channels) > 1:
        yield note(
            "mixed-channels",
            f"grey and colour: {described}",
            "grey is repeated for a model of three channels",
            rare,
        )
    sizes = {size for one in facts for size in one.sizes}
    if len(sizes) > 1:
        rows, columns = ([size[axis] for size in sizes] for axis in (0, 1))
        yield note(
            "sizes-vary",
            f"{len(sizes)} picture sizes, {min(rows)} to {max(rows)} rows and {min(columns)} to {max(columns)} columns",
        )


def _colour(channels: int) -> str:
    return {1: "grey", 3: "in colour"}.get(channels, f"with {channels} channels")


def _spacing(facts: Sequence[Facts]) -> Iterator[Finding]:
    cut = [(one, one.slicing) for one in facts if one.slicing is not None]
    if not cut:
        return
    usual = [median(slicing.spacing[axis] for _, slicing in cut) for axis in (0, 1)]
    odd = {
        one.unit.id: slicing.spacing
        for one, slicing in cut
        if any(abs(slicing.spacing[axis] / usual[axis] - 1) > _SPACING for axis in (0, 1))
    }
    if odd:
        name, spacing = max(odd.items(), key=lambda item: max(item[1][0] / usual[0], item[1][1] / usual[1]))
        yield warning(
            "spacing-outlier",
            f"{len(odd)} volume(s) with pixels more than a quarter off the usual {usual[0]:.3g} x {usual[1]:.3g} mm, "
            f"such as {spacing[0]:.3g} x {spacing[1]:.3g} mm ({name})",
            "see that the header is right; else resample to one spacing, or train on those of one protocol",
            tuple(odd),
            usual=usual,
        )
    planes = sorted({slicing.plane for _, slicing in cut})
    if len(planes) > 1:
        yield warning(
            "several-planes",
            f"slices in {len(planes)} planes: {', '.join(planes)}",
            "prepare those of one plane; organs look different in another",
        )
    units = sorted({slicing.units for _, slicing in cut} - {"unknown"})
    if len(units) > 1:
        yield warning(
            "several-units",
            f"intensities in {' and '.join(units)}",
            "one window cannot serve both; prepare one kind",
        )


def centres(facts: Sequence[Facts]) -> tuple[Centre, ...]:
    """Usual intensities of each centre's images."""
    groups: dict[str, list[Levels]] = {}
    for one in facts:
        if one.levels is not None:
            groups.setdefault(one.unit.center, []).append(one.levels)
    return tuple(
        Centre(
            name,
            len(levels),
            *(
                round(median(getattr(one, what) / one.unit for one in levels), 1)
                for what in ("low", "middle", "high")
            ),
        )
        for name, levels in sorted(groups.items())
    )


def _centres(facts: Sequence[Facts]) -> Iterator[Finding]:
    known = [one for one in centres(facts) if one.cases >= _LEAST_CASES]
    apart = [
        (one, other)
        for place, one in enumerate(known)
        for other in known[place + 1 :]
        if _overlap(one, other) < _OVERLAP
    ]
    if apart:
        one, other = min(apart, key=lambda pair: _overlap(*pair))
        yield warning(
            "centres-differ",
            f"the intensities of {len(apart)} pair(s) of centres overlap by less than half: {one.name} "
            f"{one.low:.0f} to {one.high:.0f}, {other.name} {other.low:.0f} to {other.high:.0f} of 255",
            "bring them to one scale, or hold out a whole centre to see what a model makes of the difference",
        )


def _overlap(one: Centre, other: Centre) -> float:
    """Common part of two ranges of intensities, as a share of the narrower one's length."""
    common = min(one.high, other.high) - max(one.low, other.low)
    return common / max(min(one.high - one.low, other.high - other.low), 1.0)
