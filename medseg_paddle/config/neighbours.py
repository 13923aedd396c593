"""Rules on networks for pictures that see a slice with its neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medseg_paddle.config.base import inconsistent
from medseg_paddle.config.datasets import EvalManifest, TrainManifest
from medseg_paddle.config.transforms import Transform

if TYPE_CHECKING:
    from medseg_paddle.config.recipe import Recipe

# What takes channels for colours, or for sequences of which one may be missing, and not for slices.
_OF_CHANNELS = {
    "RandomDistort": "use RandomIntensity, which changes all slices alike",
    "RandomChannelDrop": "remove it: it might blank the very slice that is segmented",
    "RandomHistogramMatch": "use RandomIntensity or StandardizeImage: pictures of a style have no neighbours",
    "RandomFourierStyle": "use RandomIntensity or StandardizeImage: pictures of a style have no neighbours",
}


def slices_seen(data: Mapping[str, Any]) -> int:
    """How many slices the network of a recipe sees at once; 1 where it says no number, which is refused later."""
    neighbours = data.get("neighbours", 0)
    return 2 * neighbours + 1 if type(neighbours) is int and neighbours > 0 else 1


def require_neighbours_that_fit(recipe: Recipe) -> None:
    """Check what goes with `neighbours`; see :func:`medseg_paddle.config.agreement.require_agreement`."""
    if not recipe.neighbours:
        return
    if recipe.dimensions == 3:
        raise inconsistent(
            f"neighbours are for networks that see pictures; {recipe.model.type} sees whole volumes",
            at=("neighbours",),
            hint="remove `neighbours`",
        )
    if recipe.prepare is not None and recipe.prepare.volumes == "whole":
        raise inconsistent(
            "neighbours are slices, and `prepare` leaves volumes whole",
            at=("prepare", "volumes"),
            hint="write `volumes: slices` in `prepare`, and a `window`",
        )
    if recipe.alignment is not None:
        raise inconsistent(
            "alignment with neighbours: pictures of another hospital have none",
            at=("alignment",),
            hint="remove one of the two",
        )
    for name in ("train_dataset", "val_dataset", "test_dataset"):
        dataset = getattr(recipe, name)
        if dataset is None:
            continue
        if not isinstance(dataset, (TrainManifest, EvalManifest)):
            raise inconsistent(
                f"neighbours are slices of the same volume, and {name} is a {dataset.type}, which does not know any",
                at=(name, "type"),
                hint="write `type: Manifest`, for a data set that `medseg prepare` made with `volumes: slices`",
            )
        for i, transform in enumerate(dataset.transforms):
            _require_slices_changed_alike(transform, (name, "transforms", i))


def _require_slices_changed_alike(transform: Transform, at: tuple[str | int, ...]) -> None:
    if transform.type in _OF_CHANNELS:
        raise inconsistent(
            f"{transform.type} takes channels for what they are not where `neighbours` are among them",
            at=at,
            hint=_OF_CHANNELS[transform.type],
        )
    if getattr(transform, "per_channel", False):
        raise inconsistent(
            f"{transform.type} would change each slice and its neighbours by itself; in a scan they are alike",
            at=(*at, "per_channel"),
            hint="write `per_channel: false`",
        )
