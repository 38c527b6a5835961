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

from . import tiles
from .scratch import Scratch

EVERYTHING = slice(None)  # all tokens of a call

# Numbers in q of the heads that are done at a time, if these are more than one: what is made for them takes up to eight times as
# much. On a CPU as few as keep it in the cache; elsewhere so many that starting the work takes no time worth naming.
AT_ONCE_CPU = 2**16
AT_ONCE = 2**24

# Ordinary attention of some heads, and which of the heads these are: q and k (B, heads, L, 2d), v (B, heads, L, d)
Attend = Callable[[Tensor, Tensor, Tensor, slice], Tensor]

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
    """What it took to make Ξ_out."""

    alpha: float | Tensor  # as `skewed_keys` takes it
    beta: float | Tensor
    rho: Tensor | None  # (B, H, N, 1), None where nothing was rescaled


def circulate(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plain: Tensor,
    attend: Attend,
    circulation: Circulation,
    out: Tensor,
    scratch: Scratch,
    x: Tensor | None = None,
    mask: Tensor | None = None,
    within: slice = EVERYTHING,
) -> Circulated:
    """Writes ρ (o + β (o_α − o)), for one attention call, into `out`, (B, H, N, d) in the dtype of `plain`.

    `plain` is o = softmax(M) v, (B, H, L, d), and `attend` one ordinary attention; the mask, added
    after scaling, is in `attend` already. `x`, `mask` (broadcastable to (B, H, L, L)) and `scratch`
    are for input space only.

    `within` are the N tokens among which the circulation is scaled: the block of M of their rows and
    columns. All other logits stay as they are. The rows of the other tokens then stay as they are
    too, so nothing is made for them: `attend` takes N queries and gives N outputs.

    Some heads are done at a time: what it takes beside `out` does not grow with their number.
    """
    alpha, beta = strength(q[:, :, within], k[:, :, within], circulation)
    if within != EVERYTHING:
        alpha = only_within(within, alpha, q)
    plain = plain[:, :, within]

    def some(heads: slice) -> Tensor | None:
        """ρ of some heads, whose result it writes. What that took is gone before the next."""
        qh, kh, vh = (t[:, heads] for t in (q, k, v))
        pair = torch.cat((qh[:, :, within], kh[:, :, within]), dim=-1)
        keys = skewed_keys(qh, kh, of_heads(alpha, heads))
        skewed = attend(pair, keys, vh, heads)
        wanted = norm(skewed) if circulation.rescale == VALUE_SPACE else None
        new = blend(plain[:, heads], skewed, of_heads(beta, heads), out=skewed)
        if circulation.rescale == NO_RESCALE:
            out[:, heads] = new
            return None
        if circulation.rescale == VALUE_SPACE:
            rho = ratio(wanted, norm(new))
        else:
            seen = None if mask is None else of_heads(mask, heads)
            rho = input_space_ratio((qh, kh), (pair, keys), x, seen, of_heads(beta, heads), scratch)
        torch.mul(new, rho, out=out[:, heads])
        return rho

    at_a_time = one_by_one(q) if circulation.rescale == INPUT_SPACE else groups(q)
    rhos = [some(heads) for heads in at_a_time]
    return Circulated(alpha, beta, None if circulation.rescale == NO_RESCALE else torch.cat(rhos, dim=1))


def groups(q: Tensor) -> Iterator[slice]:
    """The heads to be done at a time."""
    return in_parts(q.shape[1], at_once(q[:, 0].numel(), q.device))


def groups_by_products(q: Tensor) -> Iterator[slice]:
    """The same where less is made for each head, but for matrices of d×d."""
    batch, heads, length, d = q.shape
    return in_parts(heads, at_once(batch * d * max(length // 2, 2 * d), q.device))


def in_parts(total: int, most: int) -> Iterator[slice]:
    """Parts of about equal size, none larger than `most`."""
    size = math.ceil(total / math.ceil(total / most))
    return (slice(first, first + size) for first in range(0, total, size))


def at_once(numbers: int, device: torch.device) -> int:
    """How many are done at a time of what has so many numbers each."""
    return max(1, (AT_ONCE_CPU if device.type == "cpu" else AT_ONCE) // max(1, numbers))


def strength(q: Tensor, k: Tensor, circulation: Circulation) -> tuple[float | Tensor, float | Tensor]:
    """α and β of this call: numbers, or what `adapt` makes of them."""
    alpha, beta = circulation.alpha, circulation.beta
    if circulation.adaptive is not None:
        eta = torch.cat([symmetry_index(*products(q[:, heads], k[:, heads])) for heads in groups_by_products(q)], dim=1)
        alpha, beta = adapt(alpha, beta, eta, circulation.adaptive)
    if circulation.factor != 1:
        alpha = 1 + circulation.factor * (alpha - 1)
    return alpha, beta


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


def blend(plain: Tensor, skewed: Tensor, beta: float | Tensor, out: Tensor | None = None) -> Tensor:
    """Ξ + β (Ξ_α − Ξ): with β > 1 an extrapolation past Ξ_α."""
    return torch.lerp(plain, skewed, beta.to(plain.dtype) if isinstance(beta, Tensor) else beta, out=out)


def ratio(wanted: Tensor, new: Tensor) -> Tensor:
    """ρ = clamp(‖Ξ_α‖ / ‖Ξ_new‖, ¼, 4), from the norms."""
    return (wanted / new).clamp_(0.25, 4)


def norm(x: Tensor) -> Tensor:
    """Over the last axis, float32, (…, 1)."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).clamp_min_(1e-6)


def input_space_ratio(
    own: tuple[Tensor, Tensor], skewed: tuple[Tensor, Tensor], x: Tensor, mask: Tensor | None, beta: float | Tensor, scratch: Scratch
) -> Tensor:
    """ρ of one head, (B, 1, L, 1), with norms over the C channels of what it retrieves of X, from its queries and keys as they are and skewed."""

    def some(queries: slice) -> Tensor:
        seen = of_queries(mask, queries)
        plain, new = (retrieve(q[:, :, queries], k, x, seen, scratch) for q, k in (own, skewed))
        wanted = norm(new)
        return ratio(wanted, norm(blend(plain, new, beta, out=new)))

    return torch.cat([some(queries) for queries in some_queries(own[0], x)], dim=2)


def retrieve(q: Tensor, k: Tensor, x: Tensor, mask: Tensor | None, scratch: Scratch) -> Tensor:
    """softmax(M) X of some queries of one head, (B, 1, queries, C): X itself retrieved, not its projection to values.

    No backend takes values that much wider than the keys, so it is torch's fallback or ours.
    """
    x = x.to(q.dtype).unsqueeze(1)
    if mask is None and tiles.takes(q):
        return tiles.attention(q, k, x, scratch)
    return F.scaled_dot_product_attention(q, k, x, attn_mask=mask)


def some_queries(q: Tensor, x: Tensor) -> Iterator[slice]:
    """The queries of one head for which X is retrieved at a time: on a CPU a tile of them, if two results are then no larger than X;
    elsewhere torch's fallback writes the logits of all the queries that it is given, twice."""
    batch, _, length, _ = q.shape
    if q.device.type == "cpu":
        return in_parts(length, min(tiles.ROWS[0], math.ceil(length / 2)))
    return in_parts(length, at_once(batch * (length + x.shape[-1]) * 3 // 8, q.device))


def retrievals(q: Tensor, k: Tensor, x: Tensor, mask: Tensor | None, scratch: Scratch, made: Circulated | None = None) -> Iterator[Tensor]:
    """What each head in turn retrieved of X, (B, 1, L, C), in the same memory: Ξ, or where the call was circulated Ξ_out."""
    new = torch.empty(q.shape[0], 1, *x.shape[-2:], dtype=q.dtype, device=q.device)
    for head in one_by_one(q):
        qh, kh = q[:, head], k[:, head]
        seen = None if mask is None else of_heads(mask, head)
        for queries in some_queries(q, x):
            new[:, :, queries] = retrieve(qh[:, :, queries], kh, x, of_queries(seen, queries), scratch)
        if made is not None:
            pair, keys = torch.cat((qh, kh), dim=-1), skewed_keys(qh, kh, of_heads(made.alpha, head))
            for queries in some_queries(q, x):
                skewed = retrieve(pair[:, :, queries], keys, x, of_queries(seen, queries), scratch)
                blend(new[:, :, queries], skewed, of_heads(made.beta, head), out=new[:, :, queries])
            if made.rho is not None:
                new.mul_(made.rho[:, head])
        yield new


def one_by_one(q: Tensor) -> Iterator[slice]:
    return (slice(head, head + 1) for head in range(q.shape[1]))


def of_heads(value: float | Tensor, heads: slice) -> float | Tensor:
    """What of a number, or of a tensor (B or 1, H or 1, …), belongs to some heads."""
    return value[:, heads] if isinstance(value, Tensor) and value.shape[1] > 1 else value


def of_queries(mask: Tensor | None, queries: slice) -> Tensor | None:
    """What of a mask, broadcastable to (B, 1, L, L), belongs to some queries."""
    return mask if mask is None or mask.shape[-2] == 1 else mask[..., queries, :]


def products(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """qᵀq, kᵀk and kᵀq, each (B, H, d, d), float32 or wider."""
    q, k = (t if t.dtype == torch.float64 else t.float() for t in (q, k))
    return q.mT @ q, k.mT @ k, k.mT @ q


def symmetry_index(qq: Tensor, kk: Tensor, kq: Tensor) -> Tensor:
    """η = (‖M_sym‖² − ‖M_skew‖²) / (‖M_sym‖² + ‖M_skew‖²) in [−1, 1], (B, H), from `products`.

    1 is a symmetric M, −1 a skew one; centred if q and k were. ‖M_sym‖² − ‖M_skew‖² = tr(M²) =
    tr((kᵀq)²) and ‖M_sym‖² + ‖M_skew‖² = ‖M‖² = tr((qᵀq)(kᵀk)).
    """
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
