"""The part of a recipe's `prepare` section that says who is held out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from medseg_paddle.config.base import Spec, inconsistent
from medseg_paddle.config.patterns import Glob, Regex
from medseg_paddle.core.manifest import SPLITS
from medseg_paddle.core.splitting import Place, Unit, deal

Column = Annotated[str, Field(min_length=1)]


class TableSpec(Spec):
    """A table with a row for each image or patient, such as a BIDS `participants.tsv`."""

    file: Glob = Field(description="CSV (comma or semicolon) or TSV file below the source folder")
    id: Column = Field(
        description="column that names what the row is about: an image's key, its path below the source folder, "
        "its file name with or without ending, or its patient"
    )
    patient: Column | None = Field(
        None, description="column whose equal cells are never in two splits: patient, family, slide, ..."
    )
    center: Column | None = Field(None, description="column that names the centre")
    split: Column | None = Field(
        None, description="column with train, val, test, or nothing for what is dealt out"
    )


class SplitOptions(Spec):
    """Mixin: who is held out. Patients are never cut."""

    patient: Regex | None = Field(
        None,
        description="regular expression, searched in the image's path below the source folder; its groups "
        "name the patient; default: the case's key, for `dicom` the header's PatientID",
    )
    center: Regex | None = Field(
        None,
        description="regular expression, searched in the image's path below the source folder; its groups "
        "name the centre (hospital, scanner) that the image is from",
    )
    table: TableSpec | None = Field(None, description="patients, centres and official splits from a table")
    val_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the patients for validation, from `auto` or else from `train` sets",
    )
    test_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the patients for the test, from `auto` or else from `train` sets",
    )
    folds: Annotated[int, Field(ge=2, le=1000)] | Literal["centers"] | None = Field(
        None,
        description="deal the patients of `auto` or else `train` sets, less the test's share, to so many folds, or "
        "one for each centre; the data sets' `fold` picks the one to validate on, 0 where they name none",
    )
    stratify: bool = Field(
        False, description="spread the patients who have a class evenly over splits and folds"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the split")

    @model_validator(mode="after")
    def _split_options_fit(self) -> SplitOptions:
        if self.val_fraction + self.test_fraction >= 1:
            raise PydanticCustomError(
                "fractions", "`val_fraction` and `test_fraction` leave no one to train on", {}
            )
        if self.folds is not None and self.val_fraction > 0:
            raise inconsistent(
                "with `folds`, each fold is the validation set in turn, so `val_fraction` must be 0",
                at=("val_fraction",),
                hint="remove `val_fraction`",
            )
        table = self.table
        if self.folds == "centers" and self.center is None and (table is None or table.center is None):
            raise inconsistent(
                "`folds: centers` needs to know the centres",
                at=("folds",),
                hint="add `center:` with a regular expression for the path, or a `table` with a column `center`",
            )
        if self.stratify and not (self._draws or isinstance(self.folds, int)):
            raise inconsistent(
                "`stratify` has nothing to deal out: there is no fraction and no number of folds",
                at=("stratify",),
                hint="remove `stratify`, or set `val_fraction`, `test_fraction` or `folds`",
            )
        if table is not None:
            for key in ("patient", "center"):
                if getattr(self, key) is not None and getattr(table, key) is not None:
                    raise inconsistent(
                        f"`{key}` is said twice, by `{key}` and by `table`", at=(key,), hint="remove one"
                    )
            if table.patient is None and table.center is None and table.split is None:
                raise inconsistent(
                    "`table` names no column to read",
                    at=("table",),
                    hint="add `patient:`, `center:` or `split:` with the column's name",
                )
        return self

    @property
    def _draws(self) -> bool:
        return self.val_fraction + self.test_fraction > 0

    def fraction(self, split: str) -> float:
        """Share of the drawn patients that goes to `split`, ``"val"`` or ``"test"``."""
        return self.val_fraction if split == "val" else self.test_fraction

    def require_fitting_sets(self, named: Collection[str]) -> None:
        """Check the options against the splits that the recipe's sets name.

        Parameters
        ----------
        named : collection of str
            ``"train"``, ``"val"``, ``"test"``, ``"auto"``.

        Raises
        ------
        PydanticCustomError
            They contradict each other.
        """
        for split in SPLITS[1:]:
            if split in named and self.fraction(split) > 0:
                raise PydanticCustomError(
                    "fraction_unused",
                    "a set has `split: {split}`, so `{split}_fraction` must be 0, or that set's split `auto`",
                    {"split": split},
                )
        if self.folds is not None and "val" in named:
            raise PydanticCustomError(
                "folds",
                "a set has `split: val`, but with `folds` each fold is the validation set in turn",
                {},
            )
        official = self.table is not None and self.table.split is not None
        if official and set(named) != {"auto"}:
            raise PydanticCustomError(
                "table_split", "`table.split` says the splits, so the sets must have `split: auto`", {}
            )
        if "auto" in named and not (self._draws or self.folds is not None or official):
            raise PydanticCustomError(
                "auto", "`split: auto` needs `val_fraction`, `test_fraction`, `folds` or `table.split`", {}
            )
        if (self._draws or self.folds is not None) and not set(named) & {"auto", "train"}:
            raise PydanticCustomError(
                "fraction_unused", "fractions and folds need a set with `split: auto` or `train`", {}
            )

    def deal(self, units: Sequence[Unit]) -> dict[str, Place]:
        """Give every patient a place, see :func:`medseg_paddle.core.splitting.deal`."""
        return deal(
            units,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            seed=self.seed,
            stratify=self.stratify,
            folds=self.folds,
        )
