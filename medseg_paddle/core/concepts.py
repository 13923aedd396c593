"""What a label means as codes (SNOMED CT), and what its name alone says of that; nothing else is coded."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from medseg_paddle.errors import RecipeError

_SHORT, _LONGEST_MEANING = 16, 64  # of VR SH, of VR LO
_LONGEST_VALUE = 1024  # ours: VR UC and VR UR have no bound, but this is no code any more
_LOCATOR = re.compile(r"urn:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_OF_LOCATORS = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")  # RFC 3986, section 2
_NOT_IN_TEXT = re.compile(r"[\\\x00-\x1f\x7f]")
_SNOMED = "SCT"

# Verhoeff's check digit (Mathematical Centre Tracts 29, 1969): the dihedral group of order 10, and a permutation.
_GROUP = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_TURNED = (
    "0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip


def _is_concept_number(value: str) -> bool:
    """A SNOMED CT identifier of a concept: 6 to 18 digits, 00 or 10 before the last, a check digit as the last."""
    if not re.fullmatch(r"[1-9][0-9]{2,14}[01]0[0-9]", value):
        return False
    rest = 0
    for place, digit in enumerate(reversed(value)):
        rest = int(_GROUP[rest][int(_TURNED[place % 8][int(digit)])])
    return rest == 0


@dataclass(frozen=True)
class Code:
    """A coded term: the triplet of DICOM PS3.3, section 8.8.

    Attributes
    ----------
    value, meaning, scheme : str
        ``"SCT"`` is the scheme of SNOMED CT.

    Raises
    ------
    RecipeError
        DICOM cannot hold it, or its value is no concept's number in SNOMED CT: that ends in a check digit.
    """

    value: str
    meaning: str
    scheme: str = _SNOMED

    def __post_init__(self) -> None:
        for what, text, longest in (
            ("value", self.value, _LONGEST_VALUE),
            ("scheme", self.scheme, _SHORT),
            ("meaning", self.meaning, _LONGEST_MEANING),
        ):
            if not isinstance(text, str) or not 0 < len(text.strip()) <= len(text) <= longest:
                raise RecipeError(
                    f"a code's {what} that DICOM cannot hold: {text!r:.80}",
                    hint=f"give it 1 to {longest} characters",
                )
            if _NOT_IN_TEXT.search(text) or text != text.strip():
                raise RecipeError(
                    f"a code's {what} that DICOM cannot hold: {text!r:.80}",
                    hint="leave out backslashes, line breaks, and spaces at its ends",
                )
        if _LOCATOR.match(self.value) and not _OF_LOCATORS.fullmatch(self.value):
            raise RecipeError(
                f"a code's value that is no URN or URL: {self.value!r:.80}",
                hint="write characters that such names may not have as % and their number, such as %20 for a space",
            )
        if self.scheme != _SNOMED and "SNOMED" in self.scheme.upper():
            raise RecipeError(
                f"DICOM knows no coding scheme '{self.scheme}'", hint=f"SNOMED CT is called {_SNOMED}"
            )
        if self.scheme == _SNOMED and not _is_concept_number(self.value):
            raise RecipeError(
                f"'{self.value}' is no concept of SNOMED CT: its last digits check the others, and do not here",
                hint="look the number up again; a digit is wrong, missing or in another place",
            )

    @property
    def attribute(self) -> str:
        """Keyword of the one attribute of DICOM that holds such a value."""
        if _LOCATOR.match(self.value):
            return "URNCodeValue"
        return "CodeValue" if len(self.value) <= _SHORT else "LongCodeValue"


@dataclass(frozen=True)
class Concept:
    """What a segment shows (DICOM PS3.3, C.8.20.2).

    Attributes
    ----------
    category : Code
        Of CID 7150: anatomy, something abnormal, or tissue of any kind.
    type : Code
        What it is.
    type_modifier : Code or None
        Of what kind or on which side it is.
    region : Code or None
        In which organ something abnormal lies.
    region_modifier : Code or None
        On which side that organ is, or which part of it is meant.
    """

    category: Code
    type: Code
    type_modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Concept:
        """Of what ``dataclasses.asdict`` made of one.

        Raises
        ------
        KeyError, TypeError, AttributeError, RecipeError
            It is something else.
        """
        further = {part: code and Code(**code) for part, code in content.items()}
        return cls(**further | {part: Code(**content[part]) for part in ("category", "type")})


_ANATOMY = Code("91723000", "Anatomical Structure")
_ABNORMAL = Code("49755003", "Morphologically Abnormal Structure")
_TISSUE = Code("85756007", "Tissue")

# Meanings and codes are those of DICOM PS3.16; a test compares them with pydicom's copy of it.
_ORGANS = {
    "adrenal gland": Code("23451007", "Adrenal gland"),
    "aorta": Code("15825003", "Aorta"),
    "bladder": Code("89837001", "Bladder"),
    "blood vessel": Code("59820001", "Blood Vessel"),
    "bone": Code("272673000", "Bone"),
    "brain": Code("12738006", "Brain"),
    "breast": Code("76752008", "Breast"),
    "cerebellum": Code("113305005", "Cerebellum"),
    "colon": Code("71854001", "Colon"),
    "duodenum": Code("38848004", "Duodenum"),
    "esophagus": Code("32849002", "Esophagus"),
    "femur": Code("71341001", "Femur"),
    "gallbladder": Code("28231008", "Gallbladder"),
    "heart": Code("80891009", "Heart"),
    "hippocampus": Code("5366008", "Hippocampus"),
    "inferior vena cava": Code("64131007", "Inferior vena cava"),
    "kidney": Code("64033007", "Kidney"),
    "left atrium": Code("82471001", "Left atrium"),
    "left ventricle": Code("87878005", "Left ventricle"),
    "liver": Code("10200004", "Liver"),
    "lung": Code("39607008", "Lung"),
    "lymph node": Code("59441001", "Lymph Node"),
    "optic disc": Code("81016008", "Optic nerve head"),
    "pancreas": Code("15776009", "Pancreas"),
    "portal vein": Code("32764006", "Portal vein"),
    "prostate": Code("41216001", "Prostate"),
    "rectum": Code("34402009", "Rectum"),
    "retina": Code("5665001", "Retina"),
    "right atrium": Code("73829009", "Right atrium"),
    "right ventricle": Code("53085002", "Right ventricle"),
    "skin": Code("39937001", "Skin"),
    "spinal cord": Code("2748008", "Spinal cord"),
    "spleen": Code("78961009", "Spleen"),
    "stomach": Code("69695003", "Stomach"),
    "thyroid": Code("69748006", "Thyroid"),
    "trachea": Code("44567001", "Trachea"),
    "uterus": Code("35039007", "Uterus"),
    "vertebra": Code("51282000", "Vertebra"),
}
_FINDINGS = {
    "cyst": Code("367643001", "Cyst"),
    "edema": Code("79654002", "Edema"),
    "hemorrhage": Code("50960005", "Hemorrhage"),
    "lesion": Code("52988006", "Lesion"),
    "mass": Code("4147007", "Mass"),
    "necrosis": Code("6574001", "Necrosis"),
    "neoplasm": Code("108369006", "Neoplasm"),
    "nodule": Code("27925004", "Nodule"),
}
_SIDES = {"left": Code("7771000", "Left"), "right": Code("24028007", "Right")}

_OTHER_WORDS = {
    "cancer": "neoplasm",  # what is malignant, no picture says
    "haemorrhage": "hemorrhage",
    "oedema": "edema",
    "oesophagus": "esophagus",
    "tumor": "neoplasm",
    "tumour": "neoplasm",
    "vertebrae": "vertebra",
}
_OTHER_NAMES = {"optic nerve head": "optic disc", "urinary bladder": "bladder", "vessel": "blood vessel"}
_SMALL_WORDS = frozenset({"in", "of", "the"})
_GENERIC = Concept(_TISSUE, _TISSUE)


def concept_of(name: str) -> Concept:
    """The coded concept of a label.

    Known are common organs, common abnormal structures (``"tumour"``, ``"cyst"``), these in an organ (``"liver
    tumour"``, ``"cyst of the left kidney"``), and sides. All else is "Tissue", which says nothing: the name
    itself stands beside the codes wherever they are written.

    Parameters
    ----------
    name : str
        In English; case, ``_``, ``-`` and a plural's s do not matter.
    """
    words = [word for word in re.split(r"[\W_]+", name.casefold()) if word and word not in _SMALL_WORDS]
    words = [_known(word) for word in words]
    found = _plain(words)
    if found is None:
        sides = [word for word in words if word in _SIDES]
        found = _plain([word for word in words if word not in _SIDES])
        if found is not None and len(sides) == 1:
            part = "type_modifier" if found.region is None else "region_modifier"
            found = replace(found, **{part: _SIDES[sides[0]]})
        elif sides:
            found = None
    return found or _GENERIC


def is_uncoded(concept: Concept) -> bool:
    """Whether it says nothing but "Tissue"."""
    return concept == _GENERIC


def _known(word: str) -> str:
    """The word that the tables have for another one."""
    if word not in _OTHER_WORDS and word.endswith("s"):
        single = _OTHER_WORDS.get(word[:-1], word[:-1])
        last_words = {known.split()[-1] for known in (*_ORGANS, *_FINDINGS, *_OTHER_NAMES)}
        return single if single in last_words else word
    return _OTHER_WORDS.get(word, word)


def _plain(words: list[str]) -> Concept | None:
    organ = _organ(words)
    if organ is not None:
        return Concept(_ANATOMY, organ)
    for finding, place in ((words[-1:], words[:-1]), (words[:1], words[1:])):
        if finding and finding[0] in _FINDINGS:
            kind, region = _FINDINGS[finding[0]], _organ(place)
            if region is not None or not place:
                return Concept(_ABNORMAL, kind, region=region)
    return None


def _organ(words: list[str]) -> Code | None:
    name = " ".join(words)
    return _ORGANS.get(_OTHER_NAMES.get(name, name))
