"""A volume for a network, whose slices are made when they are needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.preprocess.slabs import Sampler, slabs


class StreamedSlices:
    """What is indexed like an array ``[channel, slice, row, column]``, slices from the first to the last.

    Parameters
    ----------
    samplers : sequence of Sampler
        One for each channel.
    shape : tuple of int
        Slices, rows, columns.
    """

    def __init__(self, samplers: Sequence[Sampler], shape: tuple[int, ...]) -> None:
        self.shape = (len(samplers), *shape)
        self._samplers = tuple(samplers)
        self._room = np.empty((len(samplers), 0, *shape[1:]), np.float32)
        self._first = self._stop = 0

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.float32]:
        """All channels of some slices, which do not begin before those that were asked for last.

        A view, good until the next ones are asked for.
        """
        channels, wanted = key
        start, stop, step = wanted.indices(self.shape[1])
        if channels != slice(None) or step != 1 or start < self._first:
            raise IndexError("slices come once, one after the other, of all channels")
        self._keep(start, stop - start)
        for first, end in slabs((stop - self._stop, *self.shape[2:])):
            for sampler, room in zip(self._samplers, self._room, strict=True):
                begin = self._stop + first
                sampler.slices(begin, self._stop + end, room[begin - start : self._stop + end - start])
        self._stop = max(stop, self._stop)
        return self._room[:, : stop - start]

    def needed(self, length: int) -> int:
        """Bytes that are held where `length` slices are asked for at a time: these, and what they are made of."""
        length = min(length, self.shape[1])
        most = max((end - first for first, end in slabs((length, *self.shape[2:]))), default=0)
        return 4 * self._plane * self.shape[0] * length + sum(one.needed(most) for one in self._samplers)

    @property
    def _plane(self) -> int:
        return self.shape[2] * self.shape[3]

    def _keep(self, start: int, length: int) -> None:
        """Room for slices from `start` on, in which those lie that are there already."""
        there = range(start, max(self._stop, start))
        if length > self._room.shape[1]:
            room = np.empty((self.shape[0], length, *self.shape[2:]), np.float32)
            room[:, : len(there)] = self._room[:, start - self._first : self._stop - self._first]
            self._room = room
        elif start > self._first:
            for channel in self._room:
                for k in range(len(there)):  # slice by slice: numpy copies what overlaps
                    channel[k] = channel[k + start - self._first]
        self._first, self._stop = start, max(self._stop, start)
