"""Ordinary attention on a CPU, in plain torch."""

import torch
from torch import Tensor

ROWS = 128, 512  # queries at a time: at least, at most
NUMBERS = 2**19  # of logits at a time, of as many heads as that makes; of one head up to twice as many, before rows become fewer


def attention_in_tiles(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √D) v, (B, H, N, d): q (B, H, N, D), k (B, H, L, D), v (B, H, L, d), in float32 or float64.

    torch's fused attention wants d = D and takes its slowest path otherwise.
    """
    shape, scale = q.shape[:2], q.shape[-1] ** -0.5
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=v.dtype)
    least, most = ROWS
    rows = min(q.shape[1], most, max(least, 2 * NUMBERS // k.shape[1]))
    at_once = min(q.shape[0], max(1, NUMBERS // (rows * k.shape[1])))
    scratch = torch.empty(at_once, rows, k.shape[1], dtype=q.dtype)
    for first in range(0, q.shape[0], at_once):
        # a matrix is multiplied faster than a batch of one
        some, product = (first, torch.addmm) if at_once == 1 else (slice(first, first + at_once), torch.baddbmm)
        queries, keys, values, result = q[some], k[some].mT, v[some], out[some]
        for tile, into in zip(queries.split(rows, dim=-2), result.split(rows, dim=-2)):
            logits = (scratch[0] if at_once == 1 else scratch[: tile.shape[0]])[..., : tile.shape[-2], :]
            product(logits, tile, keys, beta=0, alpha=scale, out=logits)
            torch.softmax(logits, dim=-1, out=logits)
            torch.matmul(logits, values, out=into)
    return out.unflatten(0, shape)
