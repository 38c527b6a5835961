"""Stability of what an attention retrieved, in plain torch.

Source: Cho, Han, Jin, ICML 2026, arXiv:2605.27476. For one channel s of the retrieval, centred over
tokens and scaled to ‖s‖ = 1, and q, k centred over tokens, without 1/√d, M = q kᵀ:

    u = kᵀ s,  w = qᵀ s,  h = M_sym s = ½ (q u + k w)
    energy E                 −½ sᵀ M_sym s = −½ u·w      lower is more coherent
    instability fraction r   share of tokens with s·h < 0    pushed against their field
    alignment                cos(s, h) = −2E / ‖h‖           1 is settled
    symmetry index η         (‖M_sym‖² − ‖M_skew‖²) / ‖M‖²   1 symmetric, −1 skew; centred here

No L×L and no C×C matrix: kᵀ [k ; q ; s] and qᵀ [q ; s] hold u, w and what η is made of. Centring removes biases of q and k.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from .circulation import symmetry_index
from .scratch import LARGEST, Scratch
from .tiles import ROWS_OF_THREAD

MEASURES = ("energy", "instability", "alignment", "eta", "skew ratio")

_TINY = torch.finfo(torch.float32).tiny


def measure(q: Tensor, k: Tensor, retrieved: Iterable[Tensor], scratch: Scratch, overwrite: bool = False) -> Tensor:
    """All MEASURES for each image: averaged over channels, then heads, (5, B), float32.

    q, k (B, H, L, d) as they came, not centred; `retrieved` is what the heads retrieved, all at once
    or some heads at a time, each (B, heads, L, D); `overwrite` where nobody else needs it.
    """
    found, done = [], 0
    for retrieval in retrieved:
        heads = slice(done, done + retrieval.shape[1])
        done = heads.stop
        found.append(_sums(q[:, heads], k[:, heads], retrieval, scratch, overwrite))
    *sums, eta = (torch.cat(of_heads, dim=1) for of_heads in zip(*found))
    of_heads = torch.stack((*(m.mean(dim=-1) for m in _of_unit_length(*sums)), eta, skew_ratio(eta)))
    return of_heads.mean(dim=2)


def some_channels(x: Tensor, d: int) -> tuple[Tensor, ...]:
    """X, (B, L, C), in the parts that are retrieved and measured at a time: besides its L numbers each channel takes 4d for products, much where tokens are few."""
    return x.chunk(2 if x.shape[-2] <= 4 * d else 1, dim=-1)


def of_channels(q: Tensor, k: Tensor, retrieval: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(E, r, alignment) of every channel, each (B, H, D), and η of every head, (B, H), from what `measure` takes at once."""
    *sums, eta = _sums(q, k, retrieval, Scratch(), overwrite=False)
    return *_of_unit_length(*sums), eta


def _sums(q: Tensor, k: Tensor, retrieval: Tensor, scratch: Scratch, overwrite: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """u·w, r, ‖s‖² and ‖2h‖² of each channel, each (B, H, D), with s as long as it came, and η of each head, (B, H).

    Few passes over the tokens, in long rows, and each one that torch has a fast loop for.
    """
    d, channels, tokens, heads = q.shape[-1], retrieval.shape[-1], q.shape[2], q.shape[:2]
    parts = _parts(q, channels)

    def of_heads(sums: Tensor, out: Tensor | None = None) -> Tensor:
        """Of each head what its parts sum up to."""
        return sums if parts == 1 else torch.sum(sums.unflatten(0, (-1, parts)), dim=1, out=out)

    def of_parts(matrices: Tensor) -> Tensor:
        """For each part what its head has, (heads, ·, ·)."""
        return matrices if parts == 1 else matrices.unsqueeze(1).expand(-1, parts, -1, -1).flatten(0, 1)

    def product(x: Tensor, y: Tensor, use: str) -> Tensor:
        """xᵀ y of each head, (heads, d, ·); of its parts first, where h will be."""
        shape = d, y.shape[-1]
        made = scratch.take(use, (len(x) // parts, *shape), x)
        if parts == 1:
            return torch.bmm(x.mT, y, out=made)
        of_each = of_tokens.view(-1)[: len(x) * math.prod(shape)].view(-1, *shape)
        return of_heads(torch.bmm(x.mT, y, out=of_each), out=made)

    dtype = torch.promote_types(q.dtype, torch.float32)
    side_by_side = scratch.take(LARGEST, (*retrieval.shape[:-1], 2 * d + channels), q, dtype)
    of_tokens = retrieval if overwrite and retrieval.dtype == dtype else scratch.take("of tokens", retrieval.shape, q, dtype)
    torch.cat((k, q, retrieval), dim=-1, out=side_by_side)
    side_by_side, of_tokens = (t.view(-1, tokens // parts, t.shape[-1]) for t in (side_by_side, of_tokens))
    side_by_side.sub_(of_parts(of_heads(side_by_side.sum(dim=1, keepdim=True)).div_(tokens)))
    k, q, s = side_by_side.split((d, d, channels), dim=-1)
    kk, kq, u = product(k, side_by_side, "products of k").split((d, d, channels), dim=-1)
    qq, w = product(q, side_by_side[..., d:], "products of q").split((d, channels), dim=-1)
    length = torch.mul(s, s, out=of_tokens).sum(dim=1)
    double_h = torch.bmm(k, of_parts(w), out=of_tokens).baddbmm_(q, of_parts(u))
    unstable = torch.mul(double_h, s, out=s).lt_(0).sum(dim=1)
    field = double_h.mul_(double_h).sum(dim=1)
    found = u.mul_(w).sum(dim=1), of_heads(unstable).div_(tokens), of_heads(length), of_heads(field), symmetry_index(qq, kk, kq)
    return tuple(each.unflatten(0, heads) for each in found)


def _parts(q: Tensor, channels: int) -> int:
    """Into how many parts the tokens are divided: on a CPU one for each thread, which then finds in its own cache what it has written.

    Fewer where they would be short, or the products of all of them larger than the retrieval.
    """
    (batch, heads, tokens, d), threads = q.shape, torch.get_num_threads() if q.device.type == "cpu" else 1
    most = tokens * channels // (d * (2 * d + channels))
    return math.gcd(tokens, max(1, min(threads // (batch * heads), tokens // ROWS_OF_THREAD, most)))


def _of_unit_length(product: Tensor, unstable: Tensor, length: Tensor, field: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(E, r, alignment) of s scaled to length 1, from `_sums`."""
    length, field = length.clamp_min(_TINY), field.clamp_min(_TINY)
    return -product / (2 * length), unstable, (2 * product / (length.sqrt() * field.sqrt())).clamp(-1, 1)


def skew_ratio(eta: Tensor) -> Tensor:
    """‖M_skew‖ / ‖M_sym‖ from η, at most 1e3 where M has no symmetric part."""
    return ((1 - eta) / (1 + eta).clamp_min(1e-6)).sqrt()
