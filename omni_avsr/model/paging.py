"""Weights that lie mapped from a file and have been copied elsewhere: their pages go back to the kernel (Linux).

Once a layer is packed for its kernel, nobody reads the file's copy again, but it stays resident until memory is short:
a server would hold its weights twice. Elsewhere than on Linux nothing happens.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

DONTNEED, PAGEOUT = 4, 21  # linux/mman.h


class Mapped:
    """The parts of this process's memory that are mapped from files, as they are now."""

    def __init__(self) -> None:
        self._spans = sorted(_mapped()) if sys.platform == "linux" else []
        self._libc = ctypes.CDLL(None, use_errno=True) if self._spans else None

    def __contains__(self, tensor: Tensor) -> bool:
        start = tensor.data_ptr()
        at = bisect_right(self._spans, (start, sys.maxsize)) - 1
        return at >= 0 and start + tensor.nbytes <= self._spans[at][1]

    def release(self, tensor: Tensor, kept: bool) -> None:
        """Drops the whole pages of `tensor`, if they are a file's; they are read again when touched.

        Args:
            kept: somebody still needs it, so what was written to it since must stay. The kernel then forgets the file
                as well, and otherwise only this process does, which lets the next one start faster.
        """
        if self._libc is None or tensor.device.type != "cpu" or not tensor.is_contiguous() or tensor not in self:
            return
        start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end:  # a kernel before 5.4 refuses, and then the pages stay until memory is short
            advice = PAGEOUT if kept else DONTNEED
            self._libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)


def _mapped() -> Iterable[tuple[int, int]]:
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/"):
            start, end = (int(address, 16) for address in fields[0].split("-"))
            yield start, end
