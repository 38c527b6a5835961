"""Stability of what an attention retrieved, in plain torch.

Source: Cho, Han, Jin, ICML 2026, arXiv:2605.27476. For one channel s of the retrieval, centred over
tokens and scaled to ‖s‖ = 1, and q, k centred over tokens, without 1/√d, M = q kᵀ:

    u = kᵀ s,  w = qᵀ s,  h = M_sym s = ½ (q u + k w)
    energy E                 −½ sᵀ M_sym s = −½ u·w      lower is more coherent
    instability fraction r   share of tokens with s·h < 0    pushed against their field
    alignment                cos(s, h) = −2E / ‖h‖           1 is settled
    symmetry index η         (‖M_sym‖² − ‖M_skew‖²) / ‖M‖²   1 symmetric, −1 skew; centred here

No L×L and no C×C matrix: with q and k side by side, two products of L·2d·D for D channels give u, w
and h, and ‖2h‖² = [u ; w]ᵀ G [u ; w] with G = [q ; k]ᵀ [q ; k]. Centring removes biases of q and k.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .circulation import symmetry_index

MEASURES = ("energy", "instability", "alignment", "eta", "skew ratio")

_TINY = torch.finfo(torch.float32).tiny


def centred_pair(q: Tensor, k: Tensor) -> Tensor:
    """[q ; k], each less its mean over tokens, (B, H, L, 2d), float32 or wider."""
    d = q.shape[-1]
    dtype = torch.promote_types(q.dtype, torch.float32)
    pair = torch.empty(*q.shape[:-1], 2 * d, dtype=dtype, device=q.device)
    torch.sub(q, q.mean(dim=-2, keepdim=True, dtype=dtype), out=pair[..., :d])
    torch.sub(k, k.mean(dim=-2, keepdim=True, dtype=dtype), out=pair[..., d:])
    return pair


def stability(pair: Tensor, gram: Tensor, retrieval: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(E, r, alignment) of every channel, each (B, H, D).

    `pair` is [q ; k], centred, (B, H, L, 2d), and `gram` is [q ; k]ᵀ [q ; k]; the retrieval, as it came, is (B, H, L, D).
    """
    return _of_unit_length(*_sums(pair, gram, retrieval, _scratch(pair, retrieval)))


def _sums(pair: Tensor, gram: Tensor, retrieval: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """u·w, r, ‖s‖² and ‖2h‖² of each channel, each (B, H, D), with s as long as it came.

    Each pass over the L·D numbers is one that torch has a fast loop for, and all go through `scratch`: on a CPU fresh memory
    costs more than what is computed in it.
    """
    s, of_tokens = scratch
    torch.sub(retrieval, retrieval.mean(dim=-2, keepdim=True, dtype=pair.dtype), out=s)
    length = torch.mul(s, s, out=of_tokens).sum(dim=-2)
    w, u = (pair.mT @ s).chunk(2, dim=-2)
    uw = torch.cat((u, w), dim=-2)
    field = (uw * (gram @ uw)).sum(dim=-2)
    double_h = torch.matmul(pair, uw, out=of_tokens)  # q u + k w
    unstable = double_h.mul_(s).lt_(0).mean(dim=-2)
    return (u * w).sum(dim=-2), unstable, length, field


def _scratch(pair: Tensor, retrieval: Tensor) -> Tensor:
    return torch.empty(2, *retrieval.shape, dtype=pair.dtype, device=pair.device)


def _of_unit_length(product: Tensor, unstable: Tensor, length: Tensor, field: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(E, r, alignment) of s scaled to length 1, from `_sums`."""
    length, field = length.clamp_min(_TINY), field.clamp_min(_TINY)
    return -product / (2 * length), unstable, (2 * product / (length.sqrt() * field.sqrt())).clamp(-1, 1)


def measure(q: Tensor, k: Tensor, retrieved: Iterable[Tensor]) -> Tensor:
    """All MEASURES for each image: averaged over channels, then heads, (5, B), float32.

    q, k (B, H, L, d) as they came, not centred; `retrieved` is what the heads retrieved, all at once
    or some heads at a time, each (B, heads, L, D).
    """
    sums, grams, done, scratch = [], [], 0, None
    for retrieval in retrieved:
        heads = slice(done, done + retrieval.shape[1])
        done = heads.stop
        pair = centred_pair(q[:, heads], k[:, heads])
        gram = pair.mT @ pair
        grams.append(gram)
        if scratch is None or scratch.shape[1:] != retrieval.shape:
            scratch = _scratch(pair, retrieval)
        sums.append(_sums(pair, gram, retrieval, scratch))
    of_channels = _of_unit_length(*(torch.cat(of_heads, dim=1) for of_heads in zip(*sums)))
    eta = symmetry_index(*blocks(torch.cat(grams, dim=1)))
    of_heads = torch.stack((*(m.mean(dim=-1) for m in of_channels), eta, skew_ratio(eta)))
    return of_heads.mean(dim=2)


def blocks(gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """qᵀq, kᵀk and kᵀq of [q ; k]ᵀ [q ; k]."""
    (qq, _), (kq, kk) = (rows.chunk(2, dim=-1) for rows in gram.chunk(2, dim=-2))
    return qq, kk, kq


def skew_ratio(eta: Tensor) -> Tensor:
    """‖M_skew‖ / ‖M_sym‖ from η, at most 1e3 where M has no symmetric part."""
    return ((1 - eta) / (1 + eta).clamp_min(1e-6)).sqrt()
