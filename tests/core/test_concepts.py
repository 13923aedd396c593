"""Names of labels as codes."""

import pytest
from pydicom.sr.codedict import codes

from medseg_paddle.core import concepts
from medseg_paddle.core.concepts import concept_of, uncoded


def said(name: str) -> tuple[str | None, ...]:
    found = concept_of(name)
    parts = (found.category, found.type, found.side, found.region)
    return tuple(None if part is None else part.meaning for part in parts)


ANATOMY, ABNORMAL = "Anatomical Structure", "Morphologically Abnormal Structure"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("liver", (ANATOMY, "Liver", None, None)),
        ("Lungs", (ANATOMY, "Lung", None, None)),
        ("kidney_left", (ANATOMY, "Kidney", "Left", None)),
        ("right lung", (ANATOMY, "Lung", "Right", None)),
        ("left atrium", (ANATOMY, "Left atrium", None, None)),
        ("hippocampus", (ANATOMY, "Hippocampus", None, None)),
        ("optic-disc", (ANATOMY, "Optic nerve head", None, None)),
        ("Left Optic Disc", (ANATOMY, "Optic nerve head", "Left", None)),
        ("Urinary bladder", (ANATOMY, "Bladder", None, None)),
        ("blood vessels", (ANATOMY, "Blood Vessel", None, None)),
        ("tumour", (ABNORMAL, "Neoplasm", None, None)),
        ("liver tumor", (ABNORMAL, "Neoplasm", None, "Liver")),
        ("Cysts of the left kidney", (ABNORMAL, "Cyst", "Left", "Kidney")),
        ("brain metastasis", ("Tissue", "Tissue", None, None)),
        ("no liver tumor", ("Tissue", "Tissue", None, None)),
        ("left", ("Tissue", "Tissue", None, None)),
        ("left right lung", ("Tissue", "Tissue", None, None)),
        ("class 1", ("Tissue", "Tissue", None, None)),
        ("", ("Tissue", "Tissue", None, None)),
    ],
)
def test_a_name_is_coded_as_far_as_it_is_understood(name, meant):
    assert said(name) == meant


def test_names_without_a_code_are_told():
    assert uncoded(["liver", "class 1", "left lung", "brain metastasis"]) == ("class 1", "brain metastasis")


def test_the_codes_are_those_of_the_standard():
    """pydicom carries the tables of PS3.16."""
    known = {}
    for code in (getattr(codes.SCT, keyword) for keyword in codes.SCT.dir()):
        known.setdefault(code.value, set()).add(code.meaning)
    ours = [*concepts._ORGANS.values(), *concepts._FINDINGS.values(), *concepts._SIDES.values()]
    ours += [concepts._ANATOMY, concepts._ABNORMAL, concepts._TISSUE]
    assert len({code.value for code in ours}) == len(ours)
    for code in ours:
        meanings = {meaning.split(" (")[0].casefold() for meaning in known.get(code.value, ())}
        assert code.meaning.casefold() in meanings, code
