"""Ordinary attention on a CPU, in plain torch."""

import torch
from torch import Tensor

ROWS = 512  # queries at a time


def attention_in_tiles(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √D) v, (B, H, N, d): q (B, H, N, D), k (B, H, L, D), v (B, H, L, d), in float32 or float64.

    torch's fused attention wants d = D and takes its slowest path otherwise.
    """
    shape = q.shape[:2]
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    heads, queries, width = q.shape
    out = torch.empty(heads, queries, v.shape[-1], dtype=v.dtype)
    scratch = torch.empty(heads, min(ROWS, queries), k.shape[1], dtype=q.dtype)
    for first in range(0, queries, ROWS):
        some = slice(first, first + ROWS)
        logits = scratch[:, : q[:, some].shape[1]]
        torch.baddbmm(logits, q[:, some], k.mT, beta=0, alpha=width**-0.5, out=logits)
        torch.softmax(logits, dim=-1, out=logits)
        torch.bmm(logits, v, out=out[:, some])
    return out.unflatten(0, shape)
