"""Names of labels as codes."""

import pytest
from pydicom.sr.codedict import codes

from medseg_paddle.core import LabelSet, concepts
from medseg_paddle.core.concepts import Code, concept_of
from medseg_paddle.errors import RecipeError
from medseg_paddle.io.dicom_made import without_codes


def said(name: str) -> tuple[str | None, ...]:
    found = concept_of(name)
    parts = (found.category, found.type, found.type_modifier or found.region_modifier, found.region)
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
    (said,) = without_codes(
        LabelSet.from_names(["background", "liver", "class 1", "left lung", "brain metastasis"])
    )
    assert "for 'class 1', 'brain metastasis':" in said
    assert without_codes(LabelSet.from_names(["background", "liver"])) == ()


def test_the_side_is_of_what_it_stands_with():
    assert concept_of("left kidney").type_modifier == Code("7771000", "Left")
    cyst = concept_of("cyst of the left kidney")
    assert (cyst.type_modifier, cyst.region_modifier) == (None, Code("7771000", "Left"))


def test_numbers_of_snomed_ct_are_checked_by_their_last_digit():
    """All of the standard's own numbers pass, but one, which is a misprint: no concept has it."""
    values = {code.value for code in codes.SCT.concepts.values()}
    assert len(values) > 5000

    def is_refused(value: str) -> bool:
        try:
            Code(value, "x")
        except RecipeError:
            return True
        return False

    assert {value for value in values if is_refused(value)} <= {"115347700"}
    liver = "10200004"
    others = {liver[:i] + digit + liver[i + 1 :] for i in range(8) for digit in "0123456789"} - {liver}
    swapped = {liver[:i] + liver[i + 1] + liver[i] + liver[i + 2 :] for i in range(7)} - {liver}
    assert all(map(is_refused, others | swapped))
    assert all(map(is_refused, ("T-62000", "", "1 0200004", "2000", "10200004.0")))


def test_a_value_of_any_length_has_its_attribute_in_dicom():
    """PS3.3, table 8.8-1: up to 16 characters, more, and URNs and URLs of any length."""
    edition = "999000041000000102"  # of SNOMED CT in the United Kingdom, 18 digits
    assert Code(edition, "United Kingdom Edition").attribute == "LongCodeValue"
    assert Code("10200004", "Liver").attribute == "CodeValue"
    for value, attribute in (
        ("x" * 16, "CodeValue"),
        ("x" * 17, "LongCodeValue"),
        ("urnlike-and-long-enough", "LongCodeValue"),
        ("urn:oid:1.2.840.10008.2.16.4", "URNCodeValue"),
        ("urn:oid:1.2", "URNCodeValue"),
        ("https://example.org/a#b", "URNCodeValue"),
    ):
        assert Code(value, "x", "99US").attribute == attribute, value


def test_values_that_no_attribute_holds_are_refused():
    for value in ("x" * 1025, "a" * 20 + "\\b", "urn:oid:1 2", "https://example.org/größe", "urn:oid:1\n2"):
        with pytest.raises(RecipeError):
            Code(value, "x", "99US")
    swapped = "999000041000000012"
    for value in (swapped, "9990000410000001022"):
        with pytest.raises(RecipeError, match="is no concept of SNOMED CT"):
            Code(value, "x")
    with pytest.raises(RecipeError, match="scheme"):
        Code("1", "x", "x" * 17)


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
