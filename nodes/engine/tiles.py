"""Ordinary attention on a CPU, in plain torch."""

import math

import torch
from torch import Tensor

NUMBERS = 2**19  # of logits of one head at a time
ROWS = 256, 512  # its queries at a time: at least, at most, where their logits are more or fewer than NUMBERS
NUMBERS_OF_HEADS = 2**17  # of logits at a time where that is several heads
ROWS_OF_THREAD = 128  # fewer than these are multiplied faster by all threads together


class Tiles:
    """Some heads after others, all in the same memory: taking fresh memory costs as much as what is computed in it."""

    def __init__(self):
        self._memory = torch.empty(0)

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q kᵀ / √D) v, (B, H, N, d): q (B, H, N, D), k (B, H, L, D), v (B, H, L, d), in float32 or float64.

        torch's fused attention wants d = D and takes its slowest path otherwise.
        """
        shape, scale = q.shape[:2], q.shape[-1] ** -0.5
        q, k, v = (t.flatten(0, 1) for t in (q, k, v))
        out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=v.dtype)
        least, most = ROWS
        rows = min(q.shape[1], most, max(least, NUMBERS // k.shape[1]))
        at_once = min(q.shape[0], max(1, NUMBERS_OF_HEADS // (rows * k.shape[1])))
        scratch = self._scratch(at_once, rows, k.shape[1], dtype=q.dtype)
        for some in (slice(first, first + at_once) for first in range(0, q.shape[0], at_once)):
            keys, values = k[some].mT, v[some]
            for tile, into in zip(q[some].split(rows, dim=1), out[some].split(rows, dim=1)):
                tile, into, logits = of_threads(tile, into, scratch[: tile.shape[0], : tile.shape[1]])
                matrices = len(tile), -1, -1
                torch.baddbmm(logits, tile, keys.expand(matrices), beta=0, alpha=scale, out=logits)
                torch.softmax(logits, dim=-1, out=logits)
                torch.bmm(logits, values.expand(matrices), out=into)
        return out.unflatten(0, shape)

    def _scratch(self, *shape: int, dtype: torch.dtype) -> Tensor:
        if self._memory.numel() < math.prod(shape) or self._memory.dtype != dtype:
            self._memory = torch.empty(math.prod(shape), dtype=dtype)
        return self._memory[: math.prod(shape)].view(shape)


def of_threads(*of_queries: Tensor) -> tuple[Tensor, ...]:
    """Queries of one head, (1, rows, ·), as a matrix for each thread: what it multiplies stays in its own cache."""
    heads, rows, threads = *of_queries[0].shape[:2], torch.get_num_threads()
    if heads > 1 or rows % threads or rows < threads * ROWS_OF_THREAD:
        return of_queries
    return tuple(t.unflatten(1, (threads, -1))[0] for t in of_queries)
