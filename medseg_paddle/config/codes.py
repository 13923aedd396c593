"""What labels mean as codes (SNOMED CT), and in which colours they are shown, where their names do not say it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from medseg_paddle.config.base import Spec, did_you_mean, inconsistent
from medseg_paddle.core.concepts import Code, Concept
from medseg_paddle.errors import RecipeError

Triplet = tuple[str, str, str]
Shade = Annotated[int, Field(ge=0, le=255)]
RgbColor = tuple[Shade, Shade, Shade]


def _number_as_text(value: Any) -> Any:
    """A code's value is a text, and YAML reads digits as a number."""
    if isinstance(value, list) and value and type(value[0]) is int:
        return [str(value[0]), *value[1:]]
    return value


def _require_code(triplet: Triplet) -> Triplet:
    value, scheme, meaning = triplet
    try:
        Code(value, meaning, scheme)
    except RecipeError as error:
        raise inconsistent(error.message, hint=error.hint or "") from None
    known = _meanings(scheme).get(value, set())
    if known and _plain(meaning) not in map(_plain, known):
        listed = " or ".join(f"'{one}'" for one in sorted(known))
        raise inconsistent(
            f"code {value} of {scheme} means {listed} in the standard's tables (DICOM PS3.16), not '{meaning}'",
            hint="programs go by the number, people by the words: write the number that is meant, or these words",
        )
    return triplet


@functools.cache
def _meanings(scheme: str) -> dict[str, set[str]]:
    """What DICOM PS3.16 calls the codes of a scheme; empty for a scheme that it has no codes of."""
    from pydicom.sr.codedict import codes  # noqa: PLC0415  (a second, and few recipes have codes)

    found: dict[str, set[str]] = {}
    if scheme in codes.schemes():
        for code in getattr(codes, scheme).concepts.values():
            found.setdefault(code.value, set()).add(code.meaning)
    return found


def _plain(meaning: str) -> str:
    """Without capitals, and without what SNOMED CT adds to a full name: ``(body structure)``."""
    return re.sub(r" \([a-z ]+\)$", "", meaning).casefold()


CodeTriplet = Annotated[Triplet, BeforeValidator(_number_as_text), AfterValidator(_require_code)]


class LabelCodes(Spec):
    """What a label means, as a DICOM segment says it; each code is a list of its value, scheme and meaning."""

    category: CodeTriplet = Field(
        description="kind of thing, such as [91723000, SCT, Anatomical Structure] or [49755003, SCT, Morphologically "
        "Abnormal Structure] (DICOM's context group 7150)"
    )
    type: CodeTriplet = Field(description="what it is, such as [108369006, SCT, Neoplasm]")
    type_modifier: CodeTriplet | None = Field(
        None, description="which side or kind of it, such as [7771000, SCT, Left]"
    )
    region: CodeTriplet | None = Field(
        None, description="organ that something abnormal lies in, such as [10200004, SCT, Liver]"
    )
    region_modifier: CodeTriplet | None = Field(
        None, description="side or part of that organ, such as [24028007, SCT, Right]"
    )

    @property
    def concept(self) -> Concept:
        """The same for a label."""

        def code(triplet: Triplet) -> Code:
            value, scheme, meaning = triplet
            return Code(value, meaning, scheme)

        further = (self.type_modifier, self.region, self.region_modifier)
        return Concept(code(self.category), code(self.type), *(one and code(one) for one in further))


def unknown_class(
    described: Mapping[str, Iterable[str]], names: Sequence[str]
) -> tuple[str, str, str] | None:
    """The first class with a code or a colour that is none of the foreground.

    Parameters
    ----------
    described : mapping
        Key of the file (``"codes"``, ``"colors"``) to the names of classes that it says something of.
    names : sequence of str
        Of the classes, background first.

    Returns
    -------
    tuple of str or None
        The key, the name, and a hint.
    """
    for key, said in described.items():
        for name in said:
            if name not in names[1:]:
                return key, name, did_you_mean(name, list(names[1:]))
    return None


class LabelFile(Spec):
    """What labels are called, mean and look like: a file of its own, in a recipe's words."""

    labels: Annotated[tuple[str, ...], Field(min_length=2)] | None = Field(
        None, description="names of the label values 0, 1, 2, ..., background first"
    )
    codes: dict[str, LabelCodes] = Field({}, description="what labels mean, by name")
    colors: dict[str, RgbColor] = Field({}, description="red, green and blue of labels, by name")
