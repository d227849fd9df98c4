"""Reusable buffers in host memory that batches are read into.

Memory that is new to a process costs more than what is read into it: the system clears every page when it is first touched,
and a GPU copies fast only out of pages that were pinned before. So batches share what they need, a few times the largest.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

#: Free pieces that are kept, and the smallest that is (bytes): less is quickly had.
KEPT: Final = 8
SMALLEST: Final = 1 << 20


class Memory:
    """Memory for tensors; a piece is given out again when no tensor refers to it any more.

    Parameters
    ----------
    pinned : bool
        Whether a GPU copies from it. PyTorch then keeps the pieces, until the copies out of them are done as well.
    """

    def __init__(self, *, pinned: bool = False):
        self.pinned = pinned
        self._free: deque[np.ndarray] = deque(maxlen=KEPT)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a tensor on the host that holds whatever was there before. Threads may ask at the same time."""
        if self.pinned:
            return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)
        n_bytes = math.prod(shape) * dtype.itemsize
        if n_bytes < SMALLEST:
            return torch.empty(tuple(shape), dtype=dtype)
        piece = self._piece(n_bytes)
        lent = piece[:n_bytes]
        # the tensor holds this view of the piece for as long as anything holds its storage
        weakref.finalize(lent, self._free.append, piece).atexit = False
        return torch.from_numpy(lent).view(dtype).view(tuple(shape))

    def _piece(self, n_bytes: int) -> np.ndarray:
        """A free piece of about this size, or a new one."""
        for _ in range(len(self._free)):
            try:
                piece = self._free.popleft()
            except IndexError:  # another thread took it
                break
            if n_bytes <= piece.nbytes <= 2 * n_bytes:
                return piece
            self._free.append(piece)
        return np.empty(n_bytes, np.uint8)
