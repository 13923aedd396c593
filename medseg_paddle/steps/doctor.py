"""Examine the machine: what is wrong with it for this work, and how to mend it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from packaging.requirements import Requirement

from medseg_paddle.core.cores import available_cores
from medseg_paddle.engine import cpu
from medseg_paddle.engine.inspect_device import PADDLESEG_VERSION, Inspection, inspect_device
from medseg_paddle.io.memory import free_memory

DISTRIBUTION = "medseg-paddle"
_SHOWN = ("paddlepaddle", "paddleseg", "visualdl", "numpy", "opencv-python-headless", "protobuf")
_MIB = 2**20
_GIB = 2**30
_REINSTALL = "make setup (or pip install again into a fresh environment)"
_OPENCV_BUILDS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


class Status(str, Enum):
    """How a finding stands."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes
    ----------
    group : str
        What it belongs to: machine, packages or device.
    name : str
    value : str
        What was found.
    status : Status
        ``bad`` keeps the work from running, ``warn`` makes it slow or will hurt later.
    remedy : str
        How to mend it, ``""`` where nothing is to be done.
    """

    group: str
    name: str
    value: str
    status: Status = Status.OK
    remedy: str = ""


def examine(output: Path) -> tuple[Finding, ...]:
    """Look at interpreter, processor, memory, disk, packages and device.

    Parameters
    ----------
    output : Path
        Folder that runs shall be written to; it need not exist.
    """
    inspection = inspect_device()
    return (
        _python(),
        Finding("machine", "system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        Finding("machine", "processor", f"{_processor()}, {available_cores()} cores usable"),
        _threads(inspection, available_cores()),
        *_mkl(inspection),
        _memory(),
        _disk(output),
        *_packages(inspection),
        *_gpu(inspection),
        _convolution(inspection),
        *_cpu_kernels(inspection),
    )


def _python() -> Finding:
    version = platform.python_version()
    if (3, 10) <= sys.version_info[:2] < (3, 13):
        return Finding("machine", "python", f"{version} ({sys.prefix})")
    return Finding("machine", "python", version, Status.BAD, "use Python 3.10, 3.11 or 3.12")


def _processor() -> str:
    try:
        match = re.search(
            r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
        )
    except OSError:
        match = None
    return match.group(1).strip() if match else platform.processor() or "unknown"


def _threads(inspection: Inspection, cores: int) -> Finding:
    threads = inspection.threads
    if threads.isdigit() and int(threads) < cores:
        return Finding(
            "machine",
            "threads",
            f"{threads} of {cores} cores",
            Status.WARN,
            f"unset OMP_NUM_THREADS, or set it to {cores}",
        )
    if threads.isdigit() and int(threads) > cores:
        return Finding(
            "machine",
            "threads",
            f"{threads} on {cores} cores",
            Status.WARN,
            f"set OMP_NUM_THREADS={cores}: they fight",
        )
    return Finding("machine", "threads", threads or "unknown")


def _mkl(inspection: Inspection) -> tuple[Finding, ...]:
    if not cpu.is_amd_with_avx2():
        return ()
    value = inspection.mkl_kernels
    if value == "5":
        return (Finding("machine", "maths library", "fast kernels on AMD (MKL_DEBUG_CPU_TYPE=5)"),)
    return (
        Finding(
            "machine",
            "maths library",
            f"MKL_DEBUG_CPU_TYPE={value or 'unset'}: slow kernels",
            Status.WARN,
            "unset MKL_DEBUG_CPU_TYPE",
        ),
    )


def _memory() -> Finding:
    import psutil

    total = psutil.virtual_memory().total
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text(encoding="utf-8").strip()).isdigit():
        total = min(total, int(text))
    free = free_memory()
    available = min(total, psutil.virtual_memory().available if free is None else free)
    value = f"{total / _GIB:.1f} GiB, {available / _GIB:.1f} GiB free"
    if available < 2 * _GIB:
        return Finding(
            "machine", "memory", value, Status.WARN, "close other programs, or use a smaller batch_size"
        )
    return Finding("machine", "memory", value)


def _disk(output: Path) -> Finding:
    folder = output.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    value = f"{free / _GIB:.1f} GiB free for {output}"
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return Finding(
            "machine",
            "disk",
            f"{output} cannot be written",
            Status.BAD,
            f"choose another -o, or: chown $USER {folder}",
        )
    if free < 0.5 * _GIB:
        return Finding(
            "machine", "disk", value, Status.BAD, "make room, or choose another -o; a run takes up to 1 GiB"
        )
    if free < 5 * _GIB:
        return Finding("machine", "disk", value, Status.WARN, "make room soon; a run takes up to 1 GiB")
    return Finding("machine", "disk", value)


def _packages(inspection: Inspection) -> tuple[Finding, ...]:
    try:
        declared = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return (Finding("packages", DISTRIBUTION, "not installed", Status.BAD, _REINSTALL),)
    pins = {
        pin.name: pin
        for pin in map(Requirement, [*declared, f"paddleseg=={PADDLESEG_VERSION}"])
        if not pin.marker
    }
    findings = [_package(pins[name], inspection) for name in _SHOWN]
    findings += [_package(pin, inspection) for name, pin in pins.items() if name not in _SHOWN]
    own = Finding("packages", DISTRIBUTION, importlib.metadata.version(DISTRIBUTION))
    return (
        own,
        *(finding for finding in findings if finding.name in _SHOWN or finding.status is not Status.OK),
        *_rival_opencv(),
    )


def _package(pin: Requirement, inspection: Inspection) -> Finding:
    """A package against its pin; what a child process could import counts for more than metadata."""
    module = "paddle" if pin.name == "paddlepaddle" else pin.name
    if module in inspection.failures:
        return Finding("packages", pin.name, inspection.failures[module], Status.BAD, _REINSTALL)
    try:
        version = inspection.versions.get(module) or importlib.metadata.version(pin.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding("packages", pin.name, "not installed", Status.BAD, _REINSTALL)
    if pin.specifier.contains(version, prereleases=True):
        return Finding("packages", pin.name, version)
    return Finding("packages", pin.name, f"{version}, not {pin.specifier}", Status.BAD, _REINSTALL)


def _rival_opencv() -> tuple[Finding, ...]:
    """Two OpenCV builds write to the same folder `cv2`; which files win is chance."""
    installed = {dist.metadata["Name"].lower() for dist in importlib.metadata.distributions()}
    rivals = [build for build in _OPENCV_BUILDS if build in installed]
    if len(rivals) < 2:
        return ()
    remedy = f"pip uninstall {' '.join(rivals)}, then {_REINSTALL}"
    return (Finding("packages", "opencv", " and ".join(rivals), Status.BAD, remedy),)


def _gpu(inspection: Inspection) -> tuple[Finding, ...]:
    driver = _driver()
    if inspection.cuda:
        findings = [Finding("device", "paddle build", f"CUDA {inspection.cuda}")]
    else:
        remedy = "for GPU training use the GPU image" if driver else ""
        findings = [
            Finding("device", "paddle build", "CPU only", Status.WARN if driver else Status.OK, remedy)
        ]
    if driver:
        findings += [Finding("device", "driver sees", line) for line in driver]
    if inspection.gpus:
        findings += [Finding("device", "paddle sees", name) for name in inspection.gpus]
    elif inspection.cuda:
        remedy = (
            "in Docker give --gpus all; on the host check nvidia-smi"
            if not driver
            else "update the NVIDIA driver"
        )
        findings.append(Finding("device", "paddle sees", "no GPU", Status.WARN, remedy))
    return tuple(findings)


def _driver() -> tuple[str, ...]:
    """Name, memory and driver version of each GPU, as NVIDIA's own tool lists them."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(done.stdout.strip().splitlines())


def _convolution(inspection: Inspection) -> Finding:
    if inspection.convolution in ("cpu", "gpu"):
        return Finding("device", "trial convolution", f"right, on {inspection.convolution}")
    remedy = _REINSTALL if not inspection.cuda else "check that driver, CUDA and cuDNN fit Paddle's build"
    return Finding("device", "trial convolution", inspection.convolution, Status.BAD, remedy)


def _cpu_kernels(inspection: Inspection) -> tuple[Finding, ...]:
    if not inspection.cpu_kernels:  # Paddle could not be asked
        return ()
    if inspection.gpus or re.fullmatch(r"oneDNN [\d.]+", inspection.cpu_kernels):
        return (Finding("device", "kernels on CPU", inspection.cpu_kernels),)
    remedy = "training on the CPU takes two to three times as long; the tested Paddle is that of `make setup`"
    return (Finding("device", "kernels on CPU", inspection.cpu_kernels, Status.WARN, remedy),)
