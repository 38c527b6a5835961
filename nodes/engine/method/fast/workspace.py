"""Memory that is used again from call to call."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Buffer:
    """On a CPU the same memory call after call: allocating it costs as much as what is computed in it. Elsewhere torch keeps its own."""

    def __init__(self):
        self._memory: Tensor | None = None
        self._lent = False

    @contextmanager
    def lend(self, shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Iterator[Tensor]:
        """An uninitialised tensor on the device of `like`, and in its dtype if none is named.

        Raises RuntimeError while it is lent already: two users would write over one another.
        """
        dtype, size = dtype or like.dtype, math.prod(shape)
        if like.device.type != "cpu":
            yield torch.empty(shape, dtype=dtype, device=like.device)
            return
        if self._lent:
            raise RuntimeError("This memory is in use: its first user must be done before it is lent again.")
        if self._memory is None or self._memory.numel() < size or self._memory.dtype != dtype:
            self._memory = None  # freed before more is allocated
            self._memory = torch.empty(size, dtype=dtype)
        self._lent = True
        try:
            yield self._memory[:size].view(shape)
        finally:
            self._lent = False


class Workspace:
    """The buffers of one sampling run."""

    def __init__(self):
        self.largest = Buffer()  # a tile's logits; at other times k, q and what was retrieved, side by side
        self.per_token = Buffer()
        self.products_of_k = Buffer()
        self.products_of_q = Buffer()
