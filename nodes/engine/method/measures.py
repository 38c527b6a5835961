"""Stability of what an attention retrieved, for whole tensors, line by line with the paper.

Source: Cho, Han, Jin, ICML 2026, arXiv:2605.27476. Everything is centred over tokens, which removes
biases of q and k, and M = q kᵀ is without 1/√d. s is one channel of the retrieval, ‖s‖ = 1.

Shapes: q, k are (B, H, L, d) and centred, s and its field h are (B, H, L, D), a measure of each channel is
(B, H, D). This is the reference that the tests hold `fast.measures` against, which computes the same in few passes.
"""

import torch
from torch import Tensor

from .formula import products, symmetry_index

_TINY = torch.finfo(torch.float32).tiny


def measures(q: Tensor, k: Tensor, retrieval: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(energy, instability fraction, alignment) of every channel, each (B, H, D), and centred η, (B, H)."""
    q, k = centred(q), centred(k)
    s = unit_channels(retrieval)
    h = field(q, k, s)
    return energy(s, h), instability_fraction(s, h), alignment(s, h), symmetry_index(*products(q, k))


def centred(t: Tensor) -> Tensor:
    """Without its mean over tokens, the last axis but one."""
    return t - t.mean(dim=-2, keepdim=True)


def unit_channels(retrieval: Tensor) -> Tensor:
    """The channels s: centred over tokens and scaled to ‖s‖ = 1."""
    s = centred(retrieval)
    return s / torch.linalg.vector_norm(s, dim=-2, keepdim=True).clamp_min(_TINY)


def field(q: Tensor, k: Tensor, s: Tensor) -> Tensor:
    """h = M_sym s = ½ (q kᵀ s + k qᵀ s), without an L×L matrix."""
    return (q @ (k.mT @ s) + k @ (q.mT @ s)) / 2


def energy(s: Tensor, h: Tensor) -> Tensor:
    """E = −½ sᵀ M_sym s: lower is more coherent."""
    return -(s * h).sum(dim=-2) / 2


def instability_fraction(s: Tensor, h: Tensor) -> Tensor:
    """r, the share of tokens pushed against their field, s·h < 0."""
    return (s * h < 0).to(s.dtype).mean(dim=-2)


def alignment(s: Tensor, h: Tensor) -> Tensor:
    """cos(s, h): 1 is settled."""
    return (s * h).sum(dim=-2) / torch.linalg.vector_norm(h, dim=-2).clamp_min(_TINY)


def skew_ratio(eta: Tensor) -> Tensor:
    """‖M_skew‖ / ‖M_sym‖ from η, at most √2e3 where M has no symmetric part."""
    return ((1 - eta) / (1 + eta).clamp_min(1e-6)).sqrt()
