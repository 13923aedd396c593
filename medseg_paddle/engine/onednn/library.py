"""The oneDNN library inside Paddle's wheel, called through its C interface."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Structures and numbers of the C interface may change between versions; these have been tested.
KNOWN_VERSIONS = frozenset({(3, 6, 2)})
_FILE = "libs/libdnnl.so.3"

_CPU, _IN_ORDER, _USER_SCRATCHPAD = 1, 1, 1
F32, BF16, ANY_FORMAT = 3, 2, 1
_MAX_DIMENSIONS = 12
_OUT_OF_MEMORY, _UNIMPLEMENTED = 1, 3
_IMPLEMENTATION = 8  # dnnl_types.h: a question
_AMX = 0xFEF  # dnnl_cpu_isa_avx512_core_amx: these bits, of which each is an extension of the instruction set


class Unavailable(Exception):  # noqa: N818  (a state of the machine, which the caller reports)
    """Why oneDNN cannot be used here."""


class OneDnnError(RuntimeError):
    """A call of the library failed."""

    def __init__(self, function: str, status: int) -> None:
        self.function, self.status = function, status
        reason = {_OUT_OF_MEMORY: "out of memory", _UNIMPLEMENTED: "not implemented"}.get(status, "failed")
        super().__init__(f"oneDNN: {function}: {reason} (status {status})")

    @property
    def is_final(self) -> bool:
        """Whether the same call would fail again."""
        return self.status != _OUT_OF_MEMORY


class Handle:
    """An object of the library, destroyed with this one. Can be passed to its functions."""

    __slots__ = ("_as_parameter_", "_destroy")

    def __init__(self, pointer: ctypes.c_void_p, destroy: Any) -> None:
        self._as_parameter_, self._destroy = pointer, destroy

    def __del__(self) -> None:
        self._destroy(self._as_parameter_)


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_int), ("minor", ctypes.c_int), ("patch", ctypes.c_int))


class ExecutionArgument(ctypes.Structure):
    """``dnnl_exec_arg_t``: which argument of a primitive, and its memory."""

    _fields_ = (("argument", ctypes.c_int), ("memory", ctypes.c_void_p))


class Library:
    """The functions that are used here, with one engine, stream and set of attributes.

    Not for several threads at once; the lock of :class:`medseg_paddle.engine.onednn.runtime.Runtime` guards it.

    Raises
    ------
    Unavailable
        No such library, one that is not known, or fewer threads than it would count on.
    """

    def __init__(self, path: Path) -> None:
        try:
            # Short calls keep Python's lock, which costs less than to let it go; computing lets it go.
            self._quick, self._long = ctypes.PyDLL(str(path)), ctypes.CDLL(str(path))
            self._quick.dnnl_version.restype = ctypes.POINTER(_Version)
            version = self._quick.dnnl_version().contents
        except (OSError, AttributeError) as error:
            raise Unavailable(f"oneDNN cannot be loaded: {error}") from error
        self.version = (version.major, version.minor, version.patch)
        if self.version not in KNOWN_VERSIONS:
            raise Unavailable(f"oneDNN {'.'.join(map(str, self.version))} has not been tested")
        # Its own OpenMP, and Intel's, which serves it where Paddle has loaded that.
        self._openmp = [self._quick]
        with contextlib.suppress(OSError):
            self._openmp.append(ctypes.PyDLL(str(path.with_name("libiomp5.so"))))
        self._require_all_threads()
        self._quick.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
        self._quick.dnnl_primitive_desc_query_md.restype = ctypes.c_void_p
        try:
            self.engine = self.create("dnnl_engine", None, _CPU, ctypes.c_size_t(0))
            self.stream = self.create("dnnl_stream", None, self.engine, _IN_ORDER)
            self.attributes = self.create("dnnl_primitive_attr", None)
            self._check("dnnl_primitive_attr_set_scratchpad_mode", self.attributes, _USER_SCRATCHPAD)
        except OneDnnError as error:
            raise Unavailable(str(error)) from error

    def create(self, kind: str, function: str | None, *arguments: Any) -> Handle:
        """Make an object of `kind` (``"dnnl_memory"``) with `function` (``<kind>_create`` where None)."""
        pointer = ctypes.c_void_p()
        self._check(function or f"{kind}_create", ctypes.byref(pointer), *arguments)
        return Handle(pointer, getattr(self._quick, f"{kind}_destroy"))

    def primitive_description(self, function: str, *arguments: Any) -> Handle:
        """What a primitive would be; raises OneDnnError if there is none for that."""
        return self.create(
            "dnnl_primitive_desc", f"dnnl_{function}_primitive_desc_create", self.engine, *arguments
        )

    def description(self, shape: Sequence[int], strides: Sequence[int]) -> Handle:
        """A float32 array."""
        return self.create(
            "dnnl_memory_desc",
            "dnnl_memory_desc_create_with_strides",
            len(shape),
            dimensions(shape),
            F32,
            dimensions(strides),
        )

    def free_description(self, shape: Sequence[int], numbers: int = F32) -> Handle:
        """An array of such `numbers` whose layout a primitive may choose."""
        return self.create(
            "dnnl_memory_desc",
            "dnnl_memory_desc_create_with_tag",
            len(shape),
            dimensions(shape),
            numbers,
            ANY_FORMAT,
        )

    @property
    def gains_by_bf16(self) -> bool:
        """Whether the processor multiplies matrices in bf16 (AMX). With AVX-512's bf16 alone a step takes longer."""
        return bool(self._quick.dnnl_get_effective_cpu_isa() & _AMX == _AMX)

    def chosen_description(self, primitive_description: Handle, query: int) -> Handle:
        """The layout that a primitive chose."""
        borrowed = ctypes.c_void_p(self._quick.dnnl_primitive_desc_query_md(primitive_description, query, 0))
        return self.create("dnnl_memory_desc", "dnnl_memory_desc_clone", borrowed)

    def part(self, description: Handle, shape: Sequence[int], begin: Sequence[int]) -> Handle:
        """An array inside another: `shape` of it, from `begin` along each axis."""
        return self.create(
            "dnnl_memory_desc",
            "dnnl_memory_desc_create_submemory",
            description,
            dimensions(shape),
            dimensions(begin),
        )

    def implementation(self, primitive_description: Handle) -> str:
        """The library's name of what would compute, ``"jit:avx2"``."""
        name = ctypes.c_char_p()
        self._check(
            "dnnl_primitive_desc_query", primitive_description, _IMPLEMENTATION, 0, ctypes.byref(name)
        )
        return (name.value or b"").decode("ascii", "replace")

    def equal(self, one: Handle, other: Handle) -> bool:
        """Whether two layouts are the same."""
        return bool(self._quick.dnnl_memory_desc_equal(one, other))

    def size(self, description: Handle) -> int:
        """Bytes of an array."""
        return int(self._quick.dnnl_memory_desc_get_size(description))

    def memory(self, description: Handle) -> Handle:
        """An array without data; :meth:`point` gives it some."""
        return self.create("dnnl_memory", None, description, self.engine, ctypes.c_void_p())

    def point(self, memory: Handle, address: int) -> None:
        """Let an array's data be at `address`."""
        self._check("dnnl_memory_set_data_handle", memory, ctypes.c_void_p(address))

    def _require_all_threads(self) -> None:
        """Work is dealt to as many threads as OpenMP promises: with fewer, gradients are wrong or never end."""
        for openmp in self._openmp:
            openmp.omp_set_dynamic(0)
            promised, limit = openmp.omp_get_max_threads(), openmp.omp_get_thread_limit()
            if promised > limit:
                raise Unavailable(f"OMP_THREAD_LIMIT grants {limit} of {promised} threads")

    def keep_to_one_thread(self) -> None:
        """Compute without others from now on, in this thread of this process."""
        for openmp in self._openmp:
            openmp.omp_set_num_threads(1)

    def execute(self, primitive: Handle, count: int, arguments: ctypes.Array[ExecutionArgument]) -> None:
        """Compute."""
        status = self._long.dnnl_primitive_execute(primitive, self.stream, count, arguments)
        if status:
            raise OneDnnError("dnnl_primitive_execute", status)

    def _check(self, function: str, *arguments: Any) -> None:
        status = getattr(self._quick, function)(*arguments)
        if status:
            raise OneDnnError(function, status)


def dimensions(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    """``dnnl_dims_t``."""
    return (ctypes.c_int64 * _MAX_DIMENSIONS)(*values)


def library_path() -> Path:
    """Where the library is, found without loading Paddle.

    Raises
    ------
    Unavailable
        There is none.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise Unavailable(f"tested on Linux with x86-64 only, this is {sys.platform} on {platform.machine()}")
    paddle = importlib.util.find_spec("paddle")
    if paddle is None or paddle.origin is None:
        raise Unavailable("Paddle is not installed")
    path = Path(paddle.origin).parent / _FILE
    if not path.is_file():
        raise Unavailable(f"this Paddle brings no {_FILE}")
    return path


@functools.cache
def _load(path: Path) -> Library | str:
    try:
        return Library(path)
    except Unavailable as reason:
        return str(reason)


def load() -> Library:
    """The library; the same one at each call.

    Raises
    ------
    Unavailable
        It cannot be used here.
    """
    found = _load(library_path())
    if isinstance(found, str):
        raise Unavailable(found)
    return found


def version() -> str:
    """Of the library, ``"3.6.2"``.

    Raises
    ------
    Unavailable
        It cannot be used here.
    """
    return ".".join(map(str, load().version))
