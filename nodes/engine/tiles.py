"""Ordinary attention on a CPU, in plain torch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .scratch import LARGEST, Scratch

NUMBERS = 2**19  # of logits of one head at a time
ROWS = 256, 512  # its queries at a time: at least, at most, where their logits are more or fewer than NUMBERS
NUMBERS_OF_HEADS = 2**17  # of logits at a time where that is several heads
ROWS_OF_THREAD = 128  # fewer than these are multiplied faster by all threads together


def takes(q: Tensor) -> bool:
    return q.device.type == "cpu" and q.dtype in (torch.float32, torch.float64)


def attention(q: Tensor, k: Tensor, v: Tensor, scratch: Scratch) -> Tensor:
    """softmax(q kᵀ / √D) v, (B, H, N, d): q (B, H, N, D), k (B, H, L, D), v (B, H, L, d), in float32 or float64.

    torch's fused attention wants d = D and takes its slowest path otherwise.
    """
    shape, scale = q.shape[:2], q.shape[-1] ** -0.5
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=v.dtype)
    least, most = ROWS
    rows = min(q.shape[1], most, max(least, NUMBERS // k.shape[1]))
    at_once = min(q.shape[0], max(1, NUMBERS_OF_HEADS // (rows * k.shape[1])))
    for queries, keys, values, into in zip(*(t.split(at_once) for t in (q, k.mT, v, out))):
        for tile, result in zip(tiles_of(queries, rows), tiles_of(into, rows)):
            if len(tile) != len(keys):
                keys, values = (t[:1].expand(len(tile), -1, -1) for t in (keys, values))
            logits = scratch.take(LARGEST, (*tile.shape[:2], keys.shape[-1]), q)
            torch.baddbmm(logits, tile, keys, beta=0, alpha=scale, out=logits)
            torch.softmax(logits, dim=-1, out=logits)
            torch.bmm(logits, values, out=result)
    return out.unflatten(0, shape)


def tiles_of(heads: Tensor, rows: int) -> Sequence[Tensor]:
    """So many rows of some heads, (heads, N, ·), at a time; of one head as a matrix for each thread: what it multiplies stays in its own cache."""
    threads, length = torch.get_num_threads(), heads.shape[1]
    if len(heads) > 1 or rows % threads or rows < threads * ROWS_OF_THREAD:
        return heads.split(rows, dim=1)
    rest = length % rows
    whole = heads[0, : length - rest].unflatten(0, (-1, threads, rows // threads)).unbind()
    return [*whole, heads[:, length - rest :]] if rest else whole
