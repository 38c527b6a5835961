"""The paper's own space: X, the C channels of the attention's input, retrieved by each head in chunks of queries."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..formula import Applied, blend, blend_to_length, doubled
from . import tiles
from .chunks import query_chunks, single_heads, take_heads, take_queries
from .workspace import Workspace


def input_space_ratio(
    unskewed: tuple[Tensor, Tensor], paired_q: Tensor, paired_k: Tensor, *,
    x: Tensor, mask: Tensor | None, beta: float | Tensor, workspace: Workspace,
) -> Tensor:
    """ρ of one head, (B, 1, L, 1), from the norms over the C channels of what it retrieves of X.

    It retrieves with its own (q, k), `unskewed`, and with the doubled ones.
    """

    def ratio(queries: slice) -> Tensor:
        mask_part = take_queries(mask, queries)
        plain, skewed = (retrieve(q[:, :, queries], k, x, mask_part, workspace) for q, k in (unskewed, (paired_q, paired_k)))
        return blend_to_length(plain, skewed, beta)[1]

    return torch.cat([ratio(queries) for queries in query_chunks(paired_q, x)], dim=2)


def retrieve(q: Tensor, k: Tensor, x: Tensor, mask: Tensor | None, workspace: Workspace) -> Tensor:
    """softmax(M) X of some queries of one head, (B, 1, queries, C): X itself retrieved, not its projection to values.

    No backend takes values that much wider than the keys, so it is torch's fallback or ours.
    """
    x = x.to(q.dtype).unsqueeze(1)
    if mask is None and tiles.supports(q):
        return tiles.attention(q, k, x, workspace)
    return F.scaled_dot_product_attention(q, k, x, attn_mask=mask)


def retrievals(
    q: Tensor, k: Tensor, x: Tensor, mask: Tensor | None, workspace: Workspace, applied: Applied | None = None
) -> Iterator[Tensor]:
    """What each head in turn retrieved of X, (B, 1, L, C): Ξ, or where the call was circulated Ξ_out.

    Yields the same tensor each time, written over for the next head.
    """
    retrieval = torch.empty(q.shape[0], 1, *x.shape[-2:], dtype=q.dtype, device=q.device)
    skewed_alone = applied is not None and not isinstance(applied.beta, Tensor) and applied.beta == 1
    for head in single_heads(q):
        qh, kh = q[:, head], k[:, head]
        mask_h = None if mask is None else take_heads(mask, head)
        for queries in () if skewed_alone else query_chunks(q, x):
            retrieval[:, :, queries] = retrieve(qh[:, :, queries], kh, x, take_queries(mask_h, queries), workspace)
        if applied is not None:
            paired_q, paired_k = doubled(qh, kh, take_heads(applied.alpha, head))
            for queries in query_chunks(q, x):
                skewed = retrieve(paired_q[:, :, queries], paired_k, x, take_queries(mask_h, queries), workspace)
                part = retrieval[:, :, queries]
                if skewed_alone:
                    part.copy_(skewed)
                else:
                    blend(part, skewed, take_heads(applied.beta, head), out=part)
            if applied.rho is not None:
                retrieval.mul_(applied.rho[:, head])
        yield retrieval
