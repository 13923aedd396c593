"""Files made to do harm end in an error that names them, and the next file is read as if nothing had been."""

import os
import signal
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pydicom
import pytest
from dicom_files import ct_image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from medseg_paddle.errors import DataError
from medseg_paddle.io import isolated
from medseg_paddle.io.dicom import load_series
from medseg_paddle.io.dicom_file import glance, read_slices, read_stored


def ct(**changes) -> Dataset:
    return ct_image(np.arange(6).reshape(2, 3), signed=False, **({"FrameOfReferenceUID": None} | changes))


@pytest.fixture
def save(tmp_path):
    def save(ds: Dataset, name="a.dcm"):
        ds.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return save


def compressed(syntax: str, frame: bytes, **changes) -> Dataset:
    ds = ct(PixelData=encapsulate([frame]), **changes)
    ds.file_meta.TransferSyntaxUID = syntax
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return ds


def refused(path) -> str:
    with pytest.raises(DataError) as caught:
        load_series([path])
    assert path.name in caught.value.message
    assert caught.value.hint
    return caught.value.message


def rle_bomb() -> Dataset:
    """16 bits of 30000 x 30000 pixels from two segments of a few bytes, over and over."""
    runs = bytes([129, 7]) * 600_000  # each two bytes become 128
    frame = struct.pack("<16L", 2, 64, 64 + len(runs), *[0] * 13) + runs + runs
    return compressed(RLELossless, frame, Rows=30000, Columns=30000)


def jpeg2000_of(rows: int, columns: int) -> bytes:
    """A code stream's header that declares its size and ends there."""
    size = struct.pack(">HIIIIIIIIHBBB", 0, columns, rows, 0, 0, columns, rows, 0, 0, 1, 15, 1, 1)
    return (
        b"\xff\x4f\xff\x51"
        + struct.pack(">H", len(size) + 2)
        + size
        + b"\xff\x90\x00\x0a"
        + bytes(64)
        + b"\xff\xd9"
    )


def deep_sequences(levels: int) -> bytes:
    """(0040,A730) in itself, with lengths that are not stated."""
    return (b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * levels


BOMBS = {
    "rle": rle_bomb,
    "jpeg2000": lambda: compressed(JPEG2000Lossless, jpeg2000_of(40000, 40000), Rows=40000, Columns=40000),
    "jpeg2000-that-lies": lambda: compressed(JPEG2000Lossless, jpeg2000_of(60000, 60000)),
    "size": lambda: ct(Rows=65535, Columns=65535),
    "frames": lambda: ct(NumberOfFrames=2_000_000_000),
    "bits": lambda: ct(BitsAllocated=65528, BitsStored=65528, HighBit=65527),
}


@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS)
def test_bombs_and_forged_sizes_are_refused(save, make):
    path = save(make())
    whole = save(ct(), "whole.dcm")
    refused(path)
    assert load_series([whole]).volume.array.ravel().tolist() == [0, 1, 2, 3, 4, 5]


READ_ALL = """
import resource, sys
from pathlib import Path
from medseg_paddle.errors import DataError
from medseg_paddle.io import isolated
from medseg_paddle.io.dicom import load_series
for name in sys.argv[1:]:
    try:
        load_series([Path(name)])
    except DataError:
        print("refused")
    isolated._child().end()
# Not RUSAGE_SELF: Linux counts there what the process held that this one was started from.
own = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_bombs_and_forged_sizes_take_little_memory(save):
    # In a process of its own: of this one's children, others have taken more.
    paths = [str(save(make(), f"{name}.dcm")) for name, make in BOMBS.items()]
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, *paths], capture_output=True, text=True, check=True
    )
    *said, memory = done.stdout.splitlines()
    assert said == ["refused"] * len(BOMBS)
    assert all(0 < int(kib) < 900 * 1024 for kib in memory.split()), "KiB, of the process and of its children"


def test_a_deflated_bomb_is_refused(save, tmp_path):
    ds = ct()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(ds)
    start = 144 + pydicom.filereader.read_file_meta_info(path).FileMetaInformationGroupLength
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    block = deflate.compress(bytes(16 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(path.read_bytes()[:start] + 21 * block)
    assert "inflates to more than" in refused(path)


def test_sequences_thousands_deep_are_refused(save):
    path = save(ct())
    data = path.read_bytes()
    place = data.index(b"\xe0\x7f\x10\x00")  # before the pixels
    path.write_bytes(data[:place] + deep_sequences(20_000) + data[place:])
    assert refused(path)


def test_a_child_that_is_killed_is_told_and_replaced(save, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    whole = save(ct())
    for number, words in ((signal.SIGSEGV, "crashed"), (signal.SIGALRM, "more than 60 seconds")):
        glance([whole])
        child = isolated._children[0]._process
        killer = threading.Timer(0.3, child.send_signal, [number])
        killer.start()
        with pytest.raises(DataError, match=words) as caught:
            glance([tmp_path / "pipe"])  # nobody writes: the child waits
        assert "pipe" in caught.value.message
        killer.join()
        assert child.poll() is not None
    assert len(read_slices([whole])) == 1


def test_a_forked_process_reads_by_a_child_of_its_own(save):
    path = save(ct())
    glance([path])
    ours = isolated._children[0]._process.pid
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            glance([path])
            code = int(isolated._children[0]._process.pid == ours)
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    glance([path])
    assert isolated._children[0]._process.pid == ours


def test_pixels_come_back_as_they_are_stored(save):
    (one,) = read_slices([save(ct())])
    with read_stored([one.raster]) as stored:
        assert stored.raw(0).tolist() == [[0, 1, 2], [3, 4, 5]]
        assert stored.raw(0).dtype == np.uint16
