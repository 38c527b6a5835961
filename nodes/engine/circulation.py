"""The method on q, k and v, in plain torch.

Source: Cho, Han, Jin, "Balancing Fidelity and Diversity in Diffusion Models via Symmetric
Attention Decomposition: Hopfield Perspective", ICML 2026, arXiv:2605.27476.

With logits M = q kᵀ / √d, split into M_sym = (M + Mᵀ)/2 (the energy landscape) and
M_skew = (M − Mᵀ)/2 (the circulation on it):

    M_α   = M_sym + α M_skew = c₁ M + c₂ Mᵀ,  c₁ = (1+α)/2,  c₂ = (1−α)/2
    Ξ     = softmax(M) X,  Ξ_α = softmax(M_α) X
    Ξ_new = Ξ + β (Ξ_α − Ξ)
    Ξ_out = ρ Ξ_new,  ρ = clamp(‖Ξ_α‖ / ‖Ξ_new‖, ¼, 4)  for each token

X, the input of the attention, enters through ρ alone: everything else commutes with the value
projection, softmax(·) X W_vᵀ = softmax(·) v.

Shapes: q, k, v are (B, H, L, d), x is (B, L, C). B images, H heads, L tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

EVERYTHING = slice(None)  # all tokens of a call

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

VALUE_SPACE = "value space"
INPUT_SPACE = "input space (paper)"
NO_RESCALE = "off"
RESCALES = (VALUE_SPACE, INPUT_SPACE, NO_RESCALE)

IMAGE_TOKENS = "image"
ALL_TOKENS = "all"
TOKENS = (IMAGE_TOKENS, ALL_TOKENS)

DEVIATION = "deviation"
SCALE = "scale"
FORMULAS = (DEVIATION, SCALE)

IMAGE = "image"
HEAD = "head"
BATCH = "batch"
ETA_OVER = (IMAGE, HEAD, BATCH)


@dataclass(frozen=True)
class Adaptive:
    """How the symmetry index η sets the strength, call by call."""

    alpha: bool = True
    beta: bool = True
    formula: str = DEVIATION
    eta_over: str = IMAGE


@dataclass(frozen=True)
class Circulation:
    """What is done to one attention call."""

    alpha: float
    beta: float
    rescale: str = VALUE_SPACE
    adaptive: Adaptive | None = None
    tokens: str = IMAGE_TOKENS
    factor: float = 1.0  # on α − 1, as a schedule sets it

    @property
    def off(self) -> bool:
        """True where the formulas give back the model's own output, whatever q and k are."""
        follows_eta = self.adaptive is not None and self.adaptive.alpha and self.adaptive.formula == SCALE
        return self.beta == 0 or self.factor == 0 or (self.alpha == 1 and not follows_eta)


class Circulated(NamedTuple):
    """Ξ_out W_vᵀ of N tokens, and what it took to make it."""

    out: Tensor  # (B, H, N, d)
    q_alpha: Tensor  # (B, H, N, 2d)
    k_alpha: Tensor  # (B, H, L, 2d)
    beta: float | Tensor
    rho: Tensor | None  # (B, H, N, 1), None where nothing was rescaled


def circulate(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plain: Tensor,
    attend: Attend,
    circulation: Circulation,
    x: Tensor | None = None,
    mask: Tensor | None = None,
    within: slice = EVERYTHING,
) -> Circulated:
    """ρ (o + β (o_α − o)) for one attention call.

    `plain` is o = softmax(M) v, (B, H, L, d), and `attend` one ordinary attention; the mask, added
    after scaling, is in `attend` already. `x` and `mask` (broadcastable to (B, H, L, L)) are read in
    input space only. The result has the dtype of `plain`.

    `within` are the N tokens among which the circulation is scaled: the block of M of their rows and
    columns. All other logits stay as they are. The rows of the other tokens then stay as they are
    too, so nothing is made for them: `attend` takes N queries and gives N outputs.
    """
    alpha, beta = circulation.alpha, circulation.beta
    q_alpha = torch.cat((q[:, :, within], k[:, :, within]), dim=-1)
    if circulation.adaptive is not None:
        alpha, beta = adapt(alpha, beta, symmetry_index(gram(q_alpha)), circulation.adaptive)
    if circulation.factor != 1:
        alpha = 1 + circulation.factor * (alpha - 1)

    k_alpha = skewed_keys(q, k, alpha if within == EVERYTHING else only_within(within, alpha, q))
    # Zeros behind v, because few backends take values narrower than the keys.
    skewed = attend(q_alpha, k_alpha, F.pad(v, (0, v.shape[-1])))[..., : v.shape[-1]]
    new = blend(plain[:, :, within], skewed, beta)
    rho = None
    if circulation.rescale == VALUE_SPACE:
        rho = norm_ratio(skewed, new)
    elif circulation.rescale == INPUT_SPACE:
        pairs = zip(retrievals(q, k, x, mask), retrievals(q_alpha, k_alpha, x, mask))
        rho = torch.cat([norm_ratio(xi_a, blend(xi, xi_a, of_head(beta, h))) for h, (xi, xi_a) in enumerate(pairs)], 1)
    if rho is not None:
        new.mul_(rho)
    return Circulated(new, q_alpha, k_alpha, beta, rho)


def skewed_keys(q: Tensor, k: Tensor, alpha: float | Tensor) -> Tensor:
    """√2 [c₁ k ; c₂ q], the keys that make ordinary attention of heads of size 2d skewed, (B, H, L, 2d).

    With q' = [q ; k]: q'·k' / √(2d) = (c₁ q·k + c₂ k·q) / √d, one entry of M_α, and no L×L matrix is
    written. q' stays exact and k' is rounded once. `alpha` is a number, or a float32 tensor
    broadcastable to (B, H, L, 1): each key has its own.
    """
    d = q.shape[-1]
    keys = torch.empty(*k.shape[:-1], 2 * d, dtype=k.dtype, device=k.device)
    torch.mul(k, (1 + alpha) / math.sqrt(2), out=keys[..., :d])
    torch.mul(q, (1 - alpha) / math.sqrt(2), out=keys[..., d:])
    return keys


def only_within(tokens: slice, alpha: float | Tensor, like: Tensor) -> Tensor:
    """α of each key, (B or 1, H or 1, L, 1) float32: 1, which leaves its logits alone, outside the tokens."""
    heads = alpha.shape[:2] if isinstance(alpha, Tensor) else (1, 1)
    every = torch.ones(*heads, like.shape[-2], 1, device=like.device)
    every[:, :, tokens] = alpha
    return every


def blend(plain: Tensor, skewed: Tensor, beta: float | Tensor) -> Tensor:
    """Ξ + β (Ξ_α − Ξ): with β > 1 an extrapolation past Ξ_α."""
    return torch.lerp(plain, skewed, beta.to(plain.dtype) if isinstance(beta, Tensor) else beta)


def norm_ratio(target: Tensor, new: Tensor) -> Tensor:
    """ρ = clamp(‖target‖ / ‖new‖, ¼, 4) over the last axis, float32, (…, 1)."""
    wanted = _norm(target)
    return (wanted / _norm(new)).clamp_(0.25, 4)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).clamp_min_(1e-6)


def retrievals(q: Tensor, k: Tensor, x: Tensor, mask: Tensor | None) -> Iterator[Tensor]:
    """softmax(M) X of each head in turn, (B, 1, L, C): X itself retrieved, not its projection to values.

    One head at a time: no backend but torch's takes values that much wider than the keys, and its
    fallback writes the L×L matrix of every head it is given.
    """
    x = x.to(q.dtype).unsqueeze(1)
    for head in range(q.shape[1]):
        one = slice(head, head + 1)
        seen = mask if mask is None or mask.shape[1] == 1 else mask[:, one]
        yield F.scaled_dot_product_attention(q[:, one], k[:, one], x, attn_mask=seen)


def circulated_retrievals(q: Tensor, k: Tensor, x: Tensor, mask: Tensor | None, made: Circulated) -> Iterator[Tensor]:
    """Ξ_out of each head in turn, (B, 1, L, C): what `retrievals` is to a call left as it was."""
    pairs = zip(retrievals(q, k, x, mask), retrievals(made.q_alpha, made.k_alpha, x, mask))
    for head, (own, skewed) in enumerate(pairs):
        new = blend(own, skewed, of_head(made.beta, head))
        yield new if made.rho is None else new.mul_(made.rho[:, head : head + 1])


def of_head(value: float | Tensor, head: int) -> float | Tensor:
    """What of a number, or of a tensor (B or 1, H or 1, …), belongs to one head."""
    return value[:, head : head + 1] if isinstance(value, Tensor) and value.shape[1] > 1 else value


def gram(pair: Tensor) -> Tensor:
    """[q ; k]ᵀ [q ; k], (B, H, 2d, 2d), float32 or wider: qᵀq, qᵀk and kᵀk in one product."""
    pair = pair if pair.dtype == torch.float64 else pair.float()
    return pair.mT @ pair


def symmetry_index(gram: Tensor) -> Tensor:
    """η = (‖M_sym‖² − ‖M_skew‖²) / (‖M_sym‖² + ‖M_skew‖²) in [−1, 1], (B, H), from `gram`.

    1 is a symmetric M, −1 a skew one; centred if q and k were. ‖M_sym‖² − ‖M_skew‖² = tr(M²) =
    tr((kᵀq)²) and ‖M_sym‖² + ‖M_skew‖² = ‖M‖² = tr((qᵀq)(kᵀk)).
    """
    (qq, _), (kq, kk) = (rows.chunk(2, dim=-1) for rows in gram.chunk(2, dim=-2))
    trace = (kq * kq.mT).sum((-2, -1))
    total = (qq * kk).sum((-2, -1))
    return (trace / total.clamp_min(torch.finfo(torch.float32).tiny)).clamp(-1, 1)


def adapt(
    alpha: float, beta: float, eta: Tensor, adaptive: Adaptive
) -> tuple[float | Tensor, float | Tensor]:
    """α_eff = 1 + (α−1) η (deviation, the paper's) or α η (scale); β_eff = β (1 − η).

    `eta` is (B, H). Averaged over an image's heads by default: the mean over the whole batch, which
    the paper takes, would make an image depend on its neighbours. Tensors come back as (B or 1, H or 1, 1, 1).
    """
    if adaptive.eta_over == IMAGE:
        eta = eta.mean(dim=1, keepdim=True)
    elif adaptive.eta_over == BATCH:
        eta = eta.mean().reshape(1, 1)
    eta = eta[..., None, None]
    if adaptive.alpha:
        alpha = 1 + (alpha - 1) * eta if adaptive.formula == DEVIATION else alpha * eta
    if adaptive.beta:
        beta = beta * (1 - eta)
    return alpha, beta
