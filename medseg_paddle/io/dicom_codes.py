"""Coded terms as items of DICOM's sequences: written, and read back."""

from __future__ import annotations

import highdicom as hd
from pydicom.dataset import Dataset

from medseg_paddle.core.concepts import Code


def coded(code: Code) -> hd.sr.CodedConcept:
    """Write a code as an item.

    highdicom would choose between three attributes for the value by its first letters, and by its length alone where
    it is a short URN.
    """
    item = Dataset()
    setattr(item, code.attribute, code.value)
    item.CodingSchemeDesignator, item.CodeMeaning = code.scheme, code.meaning
    return hd.sr.CodedConcept.from_dataset(item, copy=False)


def same_code(item: Dataset) -> hd.sr.CodedConcept:
    """Copy the code of an item that :func:`coded` wrote, without the modifiers that the item may have.

    Raises
    ------
    AttributeError
        The item is no code.
    RecipeError
        It is none that we would write.
    """
    said = hd.sr.CodedConcept.from_dataset(item)
    return coded(Code(said.value, said.meaning, said.scheme_designator))
