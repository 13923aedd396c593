"""JPEG Extended of 12 bits for pydicom, whose own use of GDCM refuses it; old CT and X-ray archives hold it.

Checked against GDCM's own reader and the uncompressed image (pydicom 3.0.2, python-gdcm 3.2.6).
`tests/io/test_dicom_codecs.py` tells when pydicom can do it itself.
"""

from __future__ import annotations

from pydicom.pixels.decoders.base import DecodeRunner, JPEGExtended12BitDecoder
from pydicom.uid import JPEGExtended12Bit

DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("gdcm",)}


def is_available(uid: str) -> bool:
    """Whether this decodes transfer syntax `uid`."""
    return uid in DECODER_DEPENDENCIES


def add() -> None:
    """Let pydicom know of it; once for each process."""
    if "medseg" not in JPEGExtended12BitDecoder.available_plugins:
        JPEGExtended12BitDecoder.add_plugin("medseg", (__name__, "decode"))


def decode(source: bytes, runner: DecodeRunner) -> bytes:
    """One frame's values.

    Parameters
    ----------
    source : bytes
        The frame as it is encoded.
    runner : DecodeRunner
        It says how large and deep the picture is.
    """
    import gdcm  # noqa: PLC0415  (30 MB that few files need)

    if runner.samples_per_pixel != 1 or not 8 < runner.bits_stored <= 12:
        raise NotImplementedError("grey values of 9 to 12 bits are decoded here")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(source)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    shown = gdcm.PhotometricInterpretation.GetPIType(str(runner.photometric_interpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(shown))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(JPEGExtended12Bit))))
    depth = (runner.bits_stored, runner.bits_stored - 1, runner.pixel_representation)
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, *depth))
    runner.set_option("bits_allocated", 16)
    values: str = image.GetBuffer()  # SWIG gives bytes as a text
    return values.encode("utf-8", "surrogateescape")
