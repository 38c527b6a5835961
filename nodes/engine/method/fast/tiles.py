"""Ordinary attention on a CPU, in plain torch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .chunks import MIN_ROWS_OF_A_THREAD, tile_shape
from .workspace import Workspace


def supports(q: Tensor) -> bool:
    """Whether `attention` takes queries of this device and dtype."""
    return q.device.type == "cpu" and q.dtype in (torch.float32, torch.float64)


def attention(q: Tensor, k: Tensor, v: Tensor, workspace: Workspace) -> Tensor:
    """softmax(q kᵀ / √D) v, (B, H, N, d): q (B, H, N, D), k (B, H, L, D), v (B, H, L, d), in float32 or float64.

    torch's fused attention wants d = D and takes its slowest path otherwise.
    """
    shape, scale = q.shape[:2], q.shape[-1] ** -0.5
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=v.dtype)
    heads, rows = tile_shape(q.shape[0], q.shape[1], k.shape[1])
    for queries, keys, values, results in zip(*(t.split(heads) for t in (q, k.mT, v, out))):
        for tile, result in zip(row_tiles(queries, rows), row_tiles(results, rows)):
            if len(tile) != len(keys):
                keys, values = (t[:1].expand(len(tile), -1, -1) for t in (keys, values))
            with workspace.largest.lend((*tile.shape[:2], keys.shape[-1]), q) as logits:
                torch.baddbmm(logits, tile, keys, beta=0, alpha=scale, out=logits)
                torch.softmax(logits, dim=-1, out=logits)
                torch.bmm(logits, values, out=result)
    return out.unflatten(0, shape)


def row_tiles(heads: Tensor, rows: int) -> Sequence[Tensor]:
    """Split (heads, N, ·) into tiles of `rows` rows. A single head is split further, one matrix per thread, so that each
    thread works in its own cache."""
    threads, length = torch.get_num_threads(), heads.shape[1]
    if len(heads) > 1 or rows % threads or rows < threads * MIN_ROWS_OF_A_THREAD:
        return heads.split(rows, dim=1)
    rest = length % rows
    whole = heads[0, : length - rest].unflatten(0, (-1, threads, rows // threads)).unbind()
    return [*whole, heads[:, length - rest :]] if rest else whole
