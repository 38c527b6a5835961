"""Memory to compute in."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LARGEST = "logits, or k, q and what they retrieved"  # which are never needed at the same time


class Scratch:
    """On a CPU the same memory call after call: taking it fresh costs as much as what is computed in it. Elsewhere torch keeps its own."""

    def __init__(self):
        self._kept: dict[str, Tensor] = {}

    def take(self, use: str, shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Uninitialised, on the device of `like` and in its dtype if none is named. On a CPU it ends what was taken for the same use."""
        dtype, size = dtype or like.dtype, math.prod(shape)
        if like.device.type != "cpu":
            return torch.empty(shape, dtype=dtype, device=like.device)
        kept = self._kept.pop(use, None)
        if kept is None or kept.numel() < size or kept.dtype != dtype:
            del kept  # before more is taken
            kept = torch.empty(size, dtype=dtype)
        self._kept[use] = kept
        return kept[:size].view(shape)
