"""What must hold between a recipe, its data and a run, so that a score means what it says."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medseg_paddle.config import Recipe
from medseg_paddle.config.selection import OVER_CLASSES
from medseg_paddle.config.transforms import RandomFourierStyle, RandomHistogramMatch
from medseg_paddle.core import MANIFEST_NAME, SPLITS, Case, LabelSet, Manifest, sha256
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.io.cases import labels_of, load_cases
from medseg_paddle.io.images import read_image
from medseg_paddle.io.unlabelled import pictures_in, style_files
from medseg_paddle.run import Run
from medseg_paddle.steps.provenance import fingerprint_of


def class_names(recipe: Recipe) -> LabelSet:
    """The classes, as the data's manifest or the recipe names them.

    Raises
    ------
    DataError
        A manifest has another number of classes than the model, or the recipe and the manifests of the
        splits do not name the same classes in the same order.
    """
    named = {"the recipe": recipe.label_set} if recipe.labels else {}
    for split in SPLITS:
        spec = recipe.dataset(split)
        labels = (
            labels_of(spec)
            if spec is not None and (Path(spec.dataset_root) / MANIFEST_NAME).exists()
            else None
        )
        if spec is not None and labels is not None:
            named[f"the {split} set {spec.dataset_root}"] = labels
    (first, labels), *others = named.items() or {"the recipe": recipe.label_set}.items()
    if len(labels) != recipe.num_classes:
        raise DataError(
            f"{first} has {len(labels)} classes ({', '.join(labels.names)}), the model {recipe.num_classes}",
            hint="correct model.num_classes, or prepare the data again",
        )
    for where, other in others:
        if other.names != labels.names:
            raise DataError(
                f"{first} has the classes {', '.join(labels.names)}, {where} has {', '.join(other.names)}",
                hint="prepare the data again with one list of labels; scores would be given to the wrong class",
            )
    return labels


def require_scored_class(recipe: Recipe, labels: LabelSet) -> int | None:
    """The index of the class whose score chooses the best checkpoint; None where it is a mean over all.

    Raises
    ------
    RecipeError
        There is no such class, or it is the background, which has no score.
    """
    wanted = recipe.selection.label
    if wanted == OVER_CLASSES:
        return None
    for label in labels.foreground:
        if label.name == wanted:
            return label.index
    raise RecipeError(
        f"selection.label is '{wanted}'; scored are {', '.join(label.name for label in labels.foreground)}",
        hint=f"name one of them, or write `label: {OVER_CLASSES}` in `selection`",
    )


def require_same_window(recipe: Recipe) -> None:
    """See that the intensities were prepared as the recipe (and so the bundle) says.

    Looked at is every prepared data set, also where its lists are read and not its manifest.

    Raises
    ------
    DataError
        A manifest's window is not the recipe's.
    """
    if recipe.prepare is None:
        return
    keys = ("window", "bits")
    said = recipe.prepare.model_dump(mode="json", include=set(keys))
    wanted = {key: said[key] for key in keys}
    datasets = [recipe.dataset(split) for split in SPLITS]
    for root in dict.fromkeys(Path(dataset.dataset_root) for dataset in datasets if dataset is not None):
        if not (root / MANIFEST_NAME).exists():
            continue
        noted = Manifest.load(root).source.get("prepare", {})
        made = {key: noted.get(key) for key in keys}  # an earlier version had no `bits`
        if made != wanted:
            shown = [
                str(one["window"]) + (f" in {one['bits']} bits" if one["bits"] else "")
                for one in (made, wanted)
            ]
            raise DataError(
                f"{root} was prepared with window {shown[0]}, the recipe says {shown[1]}",
                hint="prepare the data again with this recipe; the exported model would see other intensities",
            )


def require_apart(scored: Sequence[Case], learned: Mapping[str, Sequence[Case]], split: str) -> None:
    """See that no scored image or patient was learned from, nor chose the checkpoint.

    Raises
    ------
    DataError
        One was.
    """
    images = {case.image.resolve() for case in scored}
    patients = {case.patient for case in scored if case.patient}
    for name, cases in learned.items():
        same = images & {case.image.resolve() for case in cases}
        if same:
            raise DataError(
                f"{len(same)} image(s) are in the {name} and the {split} set, for example {min(same)}",
                hint="remove them from one of the lists; the score would be too good",
            )
        known = patients & {case.patient for case in cases if case.patient}
        if known:
            raise DataError(
                f"{len(known)} patient(s) are in the {name} and the {split} set, for example {min(known)}",
                hint="move all images of a patient to one split; the score would be too good",
            )


def require_fresh_start(recipe: Recipe, scored: Sequence[Case], split: str) -> None:
    """See that no scored image or patient is known to the weights that the training starts from.

    Looked at are runs whose data set is still there, those that such a run itself started from included; of a
    bundle or a file of weights nobody can tell.

    Raises
    ------
    DataError
        One is.
    """
    seen: set[Path] = set()
    while recipe.initialise is not None and (start := Path(recipe.initialise.source)) not in seen:
        if not Run.exists(start):
            return
        seen.add(start)
        recipe = Run.open(start).recipe
        root = Path(recipe.train_dataset.dataset_root).resolve()
        try:
            learned = load_cases(recipe.train_dataset, recipe.dimensions, recipe.neighbours)
        except DataError:
            continue  # no longer there, or no longer what it was
        of_this_set = [case for case in scored if case.image.resolve().is_relative_to(root)]
        try:
            require_apart(of_this_set, {f"training set of {start}": learned}, split)
        except DataError as error:
            raise DataError(
                f"{error.message}; the training starts from that run",
                hint="start from a run that did not learn from them; the score would be too good",
            ) from None


def require_same_data(run: Run, splits: Mapping[str, Sequence[Case]]) -> None:
    """See that the data a run was trained on is still the same.

    Raises
    ------
    DataError
        Its files have changed since.
    """
    noted = run.provenance["data"]
    for split, cases in splits.items():
        if split in noted and noted[split]["sha256"] != fingerprint_of(cases):
            raise DataError(
                f"the {split} set of {run.path} has changed since the training: {noted[split]['images']} images then, "
                f"{len(cases)} now, or other content",
                hint="put the data back as it was, or train again; held-out images may have been learned from",
            )


def read_beside(recipe: Recipe) -> tuple[Path, ...]:
    """Files that a training reads beside its images and labels: scores for sampling, pictures without labels.

    Raises
    ------
    DataError
        A folder of pictures is not there or empty.
    """
    sampling = recipe.train_dataset.sampling
    scores = sampling.scores if sampling is not None else None
    return (*(() if scores is None else (Path(scores),)), *pictures_beside(recipe))


def pictures_beside(recipe: Recipe) -> tuple[Path, ...]:
    """Pictures that a training looks at without labels: for their style, or to align their features.

    Raises
    ------
    DataError
        A folder of pictures is not there or empty.
    """
    files: list[Path] = []
    for transform in recipe.train_dataset.transforms:
        if isinstance(transform, (RandomHistogramMatch, RandomFourierStyle)):
            files += style_files(Path(transform.styles))
    if recipe.alignment is not None:
        files += pictures_in(Path(recipe.alignment.target), "alignment.target")
    return tuple(dict.fromkeys(files))


def require_unseen_pictures(recipe: Recipe, val: Sequence[Case]) -> None:
    """See, before a training, that it does not look at images that are to score it; see :func:`require_unseen`."""
    pictures = pictures_beside(recipe)
    require_unseen(pictures, val, "val", recipe.in_channels)
    test: Sequence[Case] = ()
    # Test images need not be on this machine yet; the evaluation looks at them again.
    with contextlib.suppress(DataError):
        spec = recipe.dataset("test") if pictures else None
        test = () if spec is None else load_cases(spec, recipe.dimensions, recipe.neighbours)
    require_unseen(pictures, test, "test", recipe.in_channels)


def require_unseen(pictures: Iterable[Path], scored: Sequence[Case], split: str, channels: int) -> None:
    """See that no scored image is among the pictures that a training looks at without labels.

    Compared are their pixels, as the network would get them: a copy may have another name and format.

    Raises
    ------
    DataError
        One is, or a picture cannot be read.
    """
    known = {_pixels(path, channels): path for path in pictures}
    if not known:
        return
    found = ((case.image, known.get(_pixels(case.image, channels))) for case in scored)
    same = [(image, path) for image, path in found if path is not None]
    if same:
        image, path = same[0]
        raise DataError(
            f"{len(same)} image(s) of the {split} set lend their style to the training or are aligned with it, for "
            f"example {image}" + ("" if image == path else f", which is {path}"),
            hint="keep images that are scored out of that folder: it is to stand for images that nobody has seen",
        )


def _pixels(path: Path, channels: int) -> bytes:
    """What tells a picture from others, whatever file it is in."""
    image = read_image(path, channels)
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()


def require_same_files(run: Run, files: Sequence[Path]) -> None:
    """See that what a run read beside its data is still the same.

    Raises
    ------
    DataError
        A file has changed since, is new or is gone.
    """
    noted = run.provenance.get("files", {})
    now = {str(path): sha256(path) if path.is_file() else None for path in files}
    changed = sorted(path for path in {*noted, *now} if noted.get(path) != now.get(path))
    if changed:
        raise DataError(
            f"{len(changed)} file(s) that {run.path} reads beside its data are not as they were when it was started, "
            f"for example {changed[0]}",
            hint="put them back as they were, or start a new run with --output; this one would go on another way",
        )
