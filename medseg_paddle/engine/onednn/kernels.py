"""One primitive of oneDNN with its arguments, and the ways between its layouts and plain ones."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

from medseg_paddle.engine.onednn.library import ExecutionArgument, Handle, Library
from medseg_paddle.engine.onednn.runtime import Workspace

# dnnl_types.h: arguments of a primitive
SRC, DST, WEIGHTS, BIAS, SCRATCHPAD = 1, 17, 33, 41, 80
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_BIAS = 129, 145, 161, 169
# and what a forward computation is for
TRAINING = 64
# questions that tell layouts
_QUERIES = {
    SRC: 129,
    DIFF_SRC: 130,
    WEIGHTS: 131,
    DIFF_WEIGHTS: 132,
    DST: 133,
    DIFF_DST: 134,
    SCRATCHPAD: 136,
}


def contiguous_strides(shape: Sequence[int]) -> list[int]:
    """Elements between neighbours along each axis of a dense row-major array."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return strides[::-1]


class Kernel:
    """A primitive, ready to run on any addresses.

    Parameters
    ----------
    library : Library
    description : Handle
        Of the primitive.
    chosen : sequence of int
        Arguments whose layouts the primitive chose.
    given : mapping
        The other arguments with their layouts.
    """

    def __init__(
        self,
        library: Library,
        workspace: Workspace,
        description: Handle,
        chosen: Sequence[int],
        given: Mapping[int, Handle] | None = None,
    ) -> None:
        self._library, self._workspace = library, workspace
        self.layouts = {
            argument: library.chosen_description(description, _QUERIES[argument]) for argument in chosen
        }
        scratch = library.chosen_description(description, _QUERIES[SCRATCHPAD])
        self._scratch_size = library.size(scratch)
        layouts = {**self.layouts, **(given or {})}
        if self._scratch_size:
            layouts[SCRATCHPAD] = scratch
        self._memories = {argument: library.memory(layout) for argument, layout in layouts.items()}
        self._primitive = library.create("dnnl_primitive", None, description)
        self._arguments = (ExecutionArgument * len(layouts))(
            *(
                ExecutionArgument(argument, memory._as_parameter_)
                for argument, memory in self._memories.items()
            )
        )

    def run(self, addresses: Mapping[int, int]) -> None:
        """Compute with the arguments' data at these addresses."""
        for argument, address in addresses.items():
            self._library.point(self._memories[argument], address)
        if self._scratch_size:
            scratch = self._workspace.address("scratch", self._scratch_size)
            self._library.point(self._memories[SCRATCHPAD], scratch)
        self._library.execute(self._primitive, len(self._arguments), self._arguments)


class Passage:
    """The way of one array between its plain layout and the one a kernel wants.

    Parameters
    ----------
    plain, wanted : Handle
        Layouts.
    role : str
        Of the buffer for the wanted layout.
    """

    def __init__(
        self, library: Library, workspace: Workspace, plain: Handle, wanted: Handle, role: str
    ) -> None:
        self._library, self._workspace = library, workspace
        self._plain, self._wanted, self._role = plain, wanted, role
        self.is_direct = library.equal(plain, wanted)
        self._size = library.size(wanted)
        self._into = None if self.is_direct else reorder(library, workspace, plain, wanted)
        self._out: Kernel | None = None

    def leads_where(self, other: Passage) -> bool:
        """Whether `other` brings the same array to the same layout."""
        return self._library.equal(self._wanted, other._wanted)

    def bring(self, address: int) -> int:
        """Where the plain array's values are in the wanted layout."""
        if self._into is None:
            return address
        target = self.stage(address)
        self._into.run({SRC: address, DST: target})
        return target

    def stage(self, address: int) -> int:
        """Where a kernel shall write what :meth:`deliver` then brings to `address`."""
        return address if self.is_direct else self._workspace.address(self._role, self._size)

    def deliver(self, address: int) -> None:
        """Bring what a kernel has written to the plain array at `address`."""
        if self.is_direct:
            return
        if self._out is None:
            self._out = reorder(self._library, self._workspace, self._wanted, self._plain)
        self._out.run({SRC: self.stage(address), DST: address})


class PaddedPassage:
    """The way of an array into a larger one of zeros, in the layout that a kernel wants.

    Parameters
    ----------
    plain, wanted : Handle
        Layouts of the array and of the larger one.
    shape, begin : sequence of int
        Of the array, and where in the larger one it begins.
    role : str
        Of the buffer for the larger one.
    """

    def __init__(
        self,
        library: Library,
        workspace: Workspace,
        plain: Handle,
        wanted: Handle,
        shape: Sequence[int],
        begin: Sequence[int],
        role: str,
    ) -> None:
        self._workspace, self._role, self._size = workspace, role, library.size(wanted)
        self._into = reorder(library, workspace, plain, library.part(wanted, shape, begin))

    def bring(self, address: int) -> int:
        """Where the plain array's values are, amid zeros."""
        target = self._workspace.address(self._role, self._size)
        ctypes.memset(target, 0, self._size)
        self._into.run({SRC: address, DST: target})
        return target


def reorder(library: Library, workspace: Workspace, source: Handle, target: Handle) -> Kernel:
    """What brings an array from one layout to another."""
    description = library.create(
        "dnnl_primitive_desc",
        "dnnl_reorder_primitive_desc_create",
        source,
        library.engine,
        target,
        library.engine,
        library.attributes,
    )
    return Kernel(library, workspace, description, (), {SRC: source, DST: target})


def pointer_or_null(handle: Handle | None) -> Handle | ctypes.c_void_p:
    """A description that may be absent, as the C interface takes it."""
    return ctypes.c_void_p() if handle is None else handle
