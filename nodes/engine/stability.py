"""Stability of what an attention retrieved, in plain torch.

Source: Cho, Han, Jin, ICML 2026, arXiv:2605.27476. For one channel s of the retrieval, centred over
tokens and scaled to ‖s‖ = 1, and q, k centred over tokens, without 1/√d, M = q kᵀ:

    u = kᵀ s,  w = qᵀ s,  h = M_sym s = ½ (q u + k w)
    energy E                 −½ sᵀ M_sym s = −½ u·w      lower is more coherent
    instability fraction r   share of tokens with s·h < 0    pushed against their field
    alignment                cos(s, h) = −2E / ‖h‖           1 is settled
    symmetry index η         (‖M_sym‖² − ‖M_skew‖²) / ‖M‖²   1 symmetric, −1 skew; centred here

No L×L and no C×C matrix: with q and k side by side, two products of L·2d·D for D channels give u, w
and h. Centring removes biases of q and k.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .circulation import gram, symmetry_index

MEASURES = ("energy", "instability", "alignment", "eta", "skew ratio")

# Channels at a time: on a CPU, as many as stay in its cache through all that is done with them.
_CHANNELS = 128

_TINY = torch.finfo(torch.float32).tiny


def centred(t: Tensor) -> Tensor:
    """Less its mean over tokens, (B, H, L, d), float32 or wider."""
    t = t if t.dtype == torch.float64 else t.float()
    return t - t.mean(dim=-2, keepdim=True)


def stability(pair: Tensor, retrieval: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(E, r, alignment) of every channel, each (B, H, D).

    `pair` is [q ; k], centred, (B, H, L, 2d); the retrieval, as it came, is (B, H, L, D).
    """
    parts = retrieval.split(_CHANNELS, dim=-1) if retrieval.device.type == "cpu" else [retrieval]
    return tuple(torch.cat(of_parts, dim=-1) for of_parts in zip(*(_stability(pair, part) for part in parts)))


def _stability(pair: Tensor, retrieval: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    s = centred(retrieval)
    w, u = (pair.mT @ s).chunk(2, dim=-2)
    h = pair @ torch.cat((u, w), dim=-2)  # q u + k w
    # All of these are linear in s, whose length is divided out of the results and not of s itself, and h is doubled.
    length, field = (t.square().sum(dim=-2).clamp_min(_TINY).sqrt() for t in (s, h))
    product = (u * w).sum(dim=-2)
    unstable = -s.mul_(h).sign_().clamp_(max=0).mean(dim=-2)
    return -product / (2 * length.square()), unstable, (2 * product / (field * length)).clamp(-1, 1)


def measure(q: Tensor, k: Tensor, retrieved: Iterable[Tensor]) -> Tensor:
    """All MEASURES for each image: averaged over channels, then heads, (5, B), float32.

    q, k (B, H, L, d) as they came, not centred; `retrieved` is what the heads retrieved, all at once
    or some heads at a time, each (B, heads, L, D).
    """
    pair = torch.cat((centred(q), centred(k)), dim=-1)
    eta = symmetry_index(gram(pair))
    parts, done = [], 0
    for retrieval in retrieved:
        heads = slice(done, done + retrieval.shape[1])
        done = heads.stop
        parts.append(torch.stack([m.mean(dim=-1) for m in stability(pair[:, heads], retrieval)]))
    of_heads = torch.cat((torch.cat(parts, dim=2), torch.stack((eta, skew_ratio(eta)))))
    return of_heads.mean(dim=2)


def skew_ratio(eta: Tensor) -> Tensor:
    """‖M_skew‖ / ‖M_sym‖ from η, at most 1e3 where M has no symmetric part."""
    return ((1 - eta) / (1 + eta).clamp_min(1e-6)).sqrt()
