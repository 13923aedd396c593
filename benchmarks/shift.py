"""What `medseg check` sees of masks that lie beside their images, on real data with masks moved on purpose.

`python benchmarks/shift.py FOLDER [SET ...]`: FOLDER holds public data sets, laid out as the recipes in configs/ say.
Of every set: as it is; every mask moved by 1, 2, 5 and 10 pixels to each of four sides; one mask moved, the others
not; every mask mirrored. Prints Markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np

from medseg_paddle.config import load_recipe
from medseg_paddle.config.prepare import PrepareSet, PrepareSpec, WindowSpec
from medseg_paddle.core import LabelSet
from medseg_paddle.preprocess.shift import TURNS, SetFit, Shift
from medseg_paddle.steps.check.displacement import off_cases, set_is_off
from medseg_paddle.steps.check.facts import examine
from medseg_paddle.steps.check.inputs import Gathered, Look, Part, Unit, from_source, gather_units

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
MOVED = 40  # cases at most that are moved, evenly out of all
DISTANCES = (1, 2, 5, 10)
Change = Callable[[np.ndarray], np.ndarray]
DIRECTIONS = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}


def main() -> None:
    """Measure the sets that are named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("sets", nargs="*", help=f"of {', '.join(SETS)}; all where absent")
    parser.add_argument("--quiet-only", action="store_true", help="only the sets as they are")
    arguments = parser.parse_args()
    for name in arguments.sets or SETS:
        folder, describe = SETS[name]
        if not (arguments.folder / folder).is_dir():
            print(f"{name}: no {folder}", file=sys.stderr)
            continue
        measure(name, describe(arguments.folder / folder), quiet_only=arguments.quiet_only)


def recipe_set(config: str) -> Callable[[Path], Gathered]:
    """A set that a recipe of the project reads."""

    def describe(root: Path) -> Gathered:
        return gather_units(root, load_recipe(CONFIGS / config))

    return describe


def nuclei(root: Path) -> Gathered:
    """Numbered nuclei, all of one class."""
    every = dict.fromkeys(range(1, 1000), 1)
    part = PrepareSet(split="train", images="images/*.png", labels="instances/*.png")
    spec = PrepareSpec(reader="pairs", sets=(part,), label_map={0: 0, **every})
    return from_source(root, spec, LabelSet.from_names(["background", "nucleus"]))


def hippocampus(root: Path) -> Gathered:
    """Small MR volumes; in those of other intensities than most there is little to see."""
    part = PrepareSet(split="train", images="images/*.nii.gz", labels="labels/*.nii.gz")
    spec = PrepareSpec(reader="nifti", sets=(part,), window=WindowSpec(level=500, width=1000))
    return from_source(root, spec, LabelSet.from_names(["background", "anterior", "posterior"]))


SETS = {
    "DRIVE, vessels": ("drive", recipe_set("unet_drive.yml")),
    "optic disc": ("optic_disc_seg", recipe_set("unet_optic_disc.yml")),
    "ISBI 2012, membranes": ("isbi2012_membrane", recipe_set("unet_isbi2012.yml")),
    "nuclei": ("dsb2018_nuclei", nuclei),
    "lung CT, slices": ("lung_ct", recipe_set("unet_lung_ct.yml")),
    "hippocampus MR, slices": ("msd_hippocampus", hippocampus),
}


def measure(name: str, gathered: Gathered, *, quiet_only: bool) -> None:
    """One set: a table of what is seen."""
    started = time.process_time()
    plain, together = looked_at(gathered, lambda label: label)
    each = (time.process_time() - started) / len(gathered.units)
    print(f"\n### {name}: {len(gathered.units)} cases\n")
    flagged = f"set {'' if set_is_off(together, len(plain)) else 'not '}flagged, cases flagged: "
    flagged += ", ".join(off_cases(plain)) or "none"
    middle, most = np.percentile([shift.distance for shift in plain.values() if shift.inside], [50, 95])
    print(f"As they are: {together}, mean cosine {together.score:.2f}; {flagged}; {each * 1000:.0f} ms each.")
    print(
        f"Single masks, as they are: half within {middle:.1f} px of where they fit best, 95 % within {most:.1f} px.\n"
    )
    if quiet_only:
        return
    gathered = dataclasses.replace(gathered, units=gathered.units[:: -(-len(gathered.units) // MOVED)])
    print(f"Of {len(gathered.units)} cases:\n")
    print("| moved by | found: down, right | all moved: flagged | one moved, the others not: flagged |")
    print("| --- | --- | --- | --- |")
    for distance in DISTANCES:
        row = [moved_by(gathered, plain, distance, step) for step in DIRECTIONS.values()]
        found = ", ".join(f"({one.down:+.1f}, {one.right:+.1f})" for one, _, _ in row)
        print(
            f"| {distance} px | {found} | {sum(flag for _, flag, _ in row)} of {len(row)} | "
            f"{np.mean([share for _, _, share in row]):.0%} |",
            flush=True,
        )
    shares = ", ".join(f"{way(gathered, turn):.0%}" for turn in list(TURNS)[:3])
    print(
        f"\nEvery mask mirrored, upside down, turned by 180 degrees: {shares} flagged as turned.", flush=True
    )


def moved_by(
    gathered: Gathered, plain: dict[str, Shift], distance: int, step: tuple[int, int]
) -> tuple[Shift, bool, float]:
    """All masks moved one way: what they have in common, whether that is flagged, share of those flagged alone."""
    shifts, together = looked_at(gathered, lambda label: moved(label, distance * step[0], distance * step[1]))
    # one whose mask has left the picture has no shift
    alone = [f"{unit.split}/{unit.id}" for unit in gathered.units]
    flags = [name in shifts and name in off_cases({**plain, name: shifts[name]}) for name in alone]
    return together, set_is_off(together, len(shifts)), float(np.mean(flags))


def way(gathered: Gathered, turn: str) -> float:
    """Share of the cases in which a turn is found."""
    found = [examine(changed(unit, TURNS[turn]), gathered.mapping)[0].turn for unit in gathered.units]
    return sum(one is not None for one in found) / len(found)


def looked_at(gathered: Gathered, change: Change) -> tuple[dict[str, Shift], Shift]:
    """Shift of every case, with its label changed, and of all together."""
    together = SetFit()
    shifts: dict[str, Shift] = {}
    for unit in gathered.units:
        facts, fit = examine(changed(unit, change), gathered.mapping)
        for trouble in facts.troubles:
            print(f"!! {trouble.message}", file=sys.stderr)
        if facts.turn is not None:
            print(f"!! {unit.id}: {facts.turn}")
        if fit is not None and facts.shift is not None:
            shifts[f"{unit.split}/{unit.id}"] = facts.shift
            together.add(fit)
    return shifts, cast("Shift", together.shift())


def changed(unit: Unit, change: Change) -> Unit:
    """The unit as it would be with other labels."""

    def read(part: Part) -> Iterator[Look]:
        for look in part.read():
            yield Look(look.id, look.image, np.ascontiguousarray(change(look.label)), look.slicing)

    parts = tuple(dataclasses.replace(part, read=lambda part=part: read(part)) for part in unit.parts)
    return dataclasses.replace(unit, parts=parts)


def moved(label: np.ndarray, down: int, right: int) -> np.ndarray:
    """A label map moved by whole pixels; what comes in from outside is background."""
    out = np.full_like(label, np.bincount(label.ravel()).argmax())
    height, width = label.shape
    rows, columns = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
    from_rows = slice(max(-down, 0), height + min(-down, 0))
    from_columns = slice(max(-right, 0), width + min(-right, 0))
    out[rows, columns] = label[from_rows, from_columns]
    return out


if __name__ == "__main__":
    main()
