"""The method on q, k and v, for whole tensors, line by line with the paper.

Source: Cho, Han, Jin, "Balancing Fidelity and Diversity in Diffusion Models via Symmetric
Attention Decomposition: Hopfield Perspective", ICML 2026, arXiv:2605.27476.

With logits M = q kᵀ / √d, split into M_sym = (M + Mᵀ)/2 (the energy landscape) and
M_skew = (M − Mᵀ)/2 (the circulation on it):

    M_α   = M_sym + α M_skew = c₁ M + c₂ Mᵀ,  c₁ = (1+α)/2,  c₂ = (1−α)/2
    Ξ     = softmax(M) X,  Ξ_α = softmax(M_α) X
    Ξ_new = Ξ + β (Ξ_α − Ξ)
    Ξ_out = ρ Ξ_new,  ρ = clamp(‖Ξ_α‖ / ‖Ξ_new‖, ¼, 4)  for each token

At β = 1 Ξ_out is Ξ_α, with no need of Ξ. *One pass*, this pack's own second method, uses that: it is Ξ_α'
with α' = 1 + β (α − 1), which equals Ξ_new to first order in α − 1.

X, the input of the attention, enters through ρ alone: everything else commutes with the value
projection, softmax(·) X W_vᵀ = softmax(·) v. So o = softmax(M) v and o_α = softmax(M_α) v stand
for Ξ and Ξ_α, and Ξ_out W_vᵀ = ρ (o + β (o_α − o)).

M is split where its rows and columns are the same tokens: a `Square`, the whole of it unless said otherwise.
All other logits stay as they are.

Shapes: q, k, v are (B, H, L, d). B images, H heads, L tokens. α and β are numbers, or float32
tensors that broadcast to (B, H, L, 1). The tests write the same out with L×L matrices.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..choices import ALPHA_RANGE, BATCH, DEVIATION, IMAGE, NO_RESCALE, VALUE_SPACE
from .settings import AdaptiveSettings

ALL = slice(None)  # all tokens of a call
HALF = (torch.float16, torch.bfloat16)
# The devices on which torch multiplies half tensors and gives the sums in float32: NVIDIA's, from torch 2.8 on
SUMS_IN_FLOAT32 = {"cuda"} if torch.version.hip is None and "dtype" in torch.ops.aten.bmm.overloads() else set()


class Square(NamedTuple):
    """The block of M that is split: N queries in a row, and the N keys that are the same tokens."""

    queries: slice = ALL
    keys: slice = ALL


WHOLE = Square()

# Ordinary attention, softmax(q kᵀ / √(2d)) v: q (B, H, N, 2d), k (B, H, L, 2d), v (B, H, L, d) -> (B, H, N, d)
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
# `doubled`, or another way to the same
Doubling = Callable[[Tensor, Tensor, float | Tensor, Square], tuple[Tensor, Tensor]]
# ρ where X itself is retrieved: the doubled q and k of `doubled` -> (B, H, N, 1)
InputSpaceRatio = Callable[[Tensor, Tensor], Tensor]


class Applied(NamedTuple):
    """What was applied to a call."""

    alpha: float | Tensor  # as `skewed_keys` takes it
    beta: float | Tensor
    rho: Tensor | None  # (B, H, N, 1), None where nothing was rescaled
    finite: Tensor  # (B, 1, 1, 1), whether the result of an image is finite


def circulate(
    q: Tensor, k: Tensor, v: Tensor, o: Tensor, attend: Attend, alpha: float | Tensor, beta: float | Tensor,
    rescale: str = VALUE_SPACE, input_space_ratio: InputSpaceRatio | None = None, square: Square = WHOLE, double: Doubling | None = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """The static rule: (o_new, ρ), whose product is its output; (B, H, N, d) and (B, H, N, 1), ρ is None without a rescale.

        o_α = softmax(M_α) v,  o_new = o + β (o_α − o),  ρ = clamp(‖Ξ_α‖ / ‖Ξ_new‖, ¼, 4)

    where the norms are those of o_α and o_new in value space. In input space `input_space_ratio` gives ρ.
    `o` is the model's own output for the N queries of the square, (B, H, N, d). The α of all keys outside the square is 1.
    A mask is part of `attend`, which adds it after scaling. o_new is written over o_α: no more is held than is needed.
    """
    paired_q, paired_k = (double or doubled)(q, k, alpha, square)
    o_alpha = attend(paired_q, paired_k, v)
    if rescale == VALUE_SPACE:
        return blend_to_length(o, o_alpha, beta)
    o_new = blend(o, o_alpha, beta, out=o_alpha)
    if rescale == NO_RESCALE:
        return o_new, None
    assert input_space_ratio is not None, "input space needs X"
    return o_new, input_space_ratio(paired_q, paired_k)


def doubled(q: Tensor, k: Tensor, alpha: float | Tensor, square: Square = WHOLE) -> tuple[Tensor, Tensor]:
    """[q ; k] of the square and `skewed_keys`, (B, H, N, 2d) and (B, H, L, 2d): their ordinary attention has the logits M_α."""
    return torch.cat((q[:, :, square.queries], k[:, :, square.keys]), dim=-1), skewed_keys(q, k, alpha, square)


def skewed_keys(q: Tensor, k: Tensor, alpha: float | Tensor, square: Square = WHOLE) -> Tensor:
    """√2 [c₁ k ; c₂ q], the keys that make ordinary attention of heads of size 2d skewed, (B, H, L, 2d).

    With q' = [q ; k]: q'·k' / √(2d) = (c₁ q·k + c₂ k·q) / √d, one entry of M_α, and no L×L matrix is
    written. q' stays exact and k' is rounded once. A tensor `alpha` gives each key its own; 1 leaves its logits alone.
    """
    d = q.shape[-1]
    if q.shape[2] != k.shape[2]:
        q = queries_of_keys(q, k, square)
    keys = torch.empty(*k.shape[:-1], 2 * d, dtype=k.dtype, device=k.device)
    torch.mul(k, (1 + alpha) / math.sqrt(2), out=keys[..., :d])
    torch.mul(q, (1 - alpha) / math.sqrt(2), out=keys[..., d:])
    return keys


def queries_of_keys(q: Tensor, k: Tensor, square: Square) -> Tensor:
    """q in the order of the keys, (B, H, L, d): 0 for those outside the square, whose α is 1."""
    every = torch.zeros_like(k)
    every[:, :, square.keys] = q[:, :, square.queries]
    return every


def outside(part: slice, length: int) -> Iterator[slice]:
    """The tokens of a call that are not in a part of them."""
    start, stop, _ = part.indices(length)
    yield from (others for others in (slice(0, start), slice(stop, length)) if others.start < others.stop)


def blend(retrieved: Tensor, skewed: Tensor, beta: float | Tensor, out: Tensor | None = None) -> Tensor:
    """Ξ_new = Ξ + β (Ξ_α − Ξ): with β > 1 an extrapolation past Ξ_α."""
    return torch.lerp(retrieved, skewed, beta.to(retrieved.dtype) if isinstance(beta, Tensor) else beta, out=out)


def blend_to_length(retrieved: Tensor, skewed: Tensor, beta: float | Tensor) -> tuple[Tensor, Tensor]:
    """Ξ_new, written over Ξ_α, and the ρ that gives it the length of Ξ_α, (…, 1)."""
    length = norm(skewed)
    new = blend(retrieved, skewed, beta, out=skewed)
    return new, ratio(length, norm(new))


def ratio(length: Tensor, new: Tensor) -> Tensor:
    """ρ = clamp(‖Ξ_α‖ / ‖Ξ_new‖, ¼, 4), from the norms, of which the first is overwritten; NaN where the second is not finite."""
    # NaN also where the clamp hides it: 0 times infinity is NaN
    return length.div_(new).clamp_(0.25, 4).add_(new, alpha=0)


def one_pass(alpha: float | Tensor, beta: float | Tensor) -> float | Tensor:
    """α' = 1 + β (α − 1), kept in the range of alpha. A number, or float32 as `adapt` gives it."""
    alpha = 1 + beta * (alpha - 1)
    lowest, highest = ALPHA_RANGE
    return alpha.clamp(lowest, highest) if isinstance(alpha, Tensor) else min(max(alpha, lowest), highest)


def norm(x: Tensor) -> Tensor:
    """Over the last axis, float32 or wider, (…, 1), at least 1e-6."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32)).clamp_min_(1e-6)


def adapt(
    alpha: float, beta: float, eta: Tensor, adaptive: AdaptiveSettings
) -> tuple[float | Tensor, float | Tensor]:
    """The adaptive rule: α_eff = 1 + (α−1) η (deviation, the paper's) or α η (scale); β_eff = β (1 − η).

    `eta` is (B, H). Averaged over an image's heads by default: the mean over the whole batch, which
    the paper takes, would make an image depend on its neighbours. Tensors come back as (B or 1, H or 1, 1, 1).
    """
    if adaptive.eta_over == IMAGE:
        eta = eta.mean(dim=1, keepdim=True)
    elif adaptive.eta_over == BATCH:
        eta = eta.mean().reshape(1, 1)
    eta = eta[..., None, None]
    if adaptive.adapts_alpha:
        alpha = 1 + (alpha - 1) * eta if adaptive.formula == DEVIATION else alpha * eta
    if adaptive.adapts_beta:
        beta = beta * (1 - eta)
    return alpha, beta


def products(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """qᵀq, kᵀk and kᵀq, each (B, H, d, d), float32 or wider."""
    q, k = (t.to(product_dtype(t)) for t in (q, k))
    return product(q, q), product(k, k), product(k, q)


def product(x: Tensor, y: Tensor) -> Tensor:
    """xᵀ y, a sum over tokens in float32 or wider, (B, H, d, D): x (B, H, L, d) and y (B, H, L, D) in the `product_dtype`.

    Half tensors image by image: the heads of several images, as ComfyUI lays them, are one batch of matrices only in a copy.
    """
    if x.dtype not in HALF:
        return x.mT @ y
    out = torch.empty(*x.shape[:2], x.shape[-1], y.shape[-1], dtype=torch.float32, device=x.device)
    for of_x, of_y, of_out in zip(x, y, out):
        torch.bmm(of_x.mT, of_y, out_dtype=torch.float32, out=of_out)
    return out


def product_dtype(t: Tensor) -> torch.dtype:
    """The dtype in which `product` takes t: its own where that is half and the device adds up in float32, else float32 or wider.

    torch refuses float32 sums of float16 while it is told to add up in float16, as by ComfyUI's `--fast`.
    """
    possible = t.device.type in SUMS_IN_FLOAT32 and t.dtype in HALF
    if possible and not (t.dtype == torch.float16 and torch.backends.cuda.matmul.allow_fp16_accumulation):
        return t.dtype
    return torch.promote_types(t.dtype, torch.float32)


def symmetry_index(qq: Tensor, kk: Tensor, kq: Tensor) -> Tensor:
    """η = (‖M_sym‖² − ‖M_skew‖²) / (‖M_sym‖² + ‖M_skew‖²) in [−1, 1], (B, H), from `products`.

    1 is a symmetric M, −1 a skew one; centred if q and k were. ‖M_sym‖² − ‖M_skew‖² = tr(M²) =
    tr((kᵀq)²) and ‖M_sym‖² + ‖M_skew‖² = ‖M‖² = tr((qᵀq)(kᵀk)).
    """
    trace = (kq * kq.mT).sum((-2, -1))
    total = (qq * kk).sum((-2, -1))
    return (trace / total.clamp_min(torch.finfo(torch.float32).tiny)).clamp(-1, 1)
