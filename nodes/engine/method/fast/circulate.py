"""The formula on one attention call, by chunks of heads."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from ...choices import INPUT_SPACE, ONE_PASS
from .. import formula
from ..formula import WHOLE, Applied, Doubling, Square
from ..settings import CirculationSettings
from . import fused
from .chunks import head_chunks, head_chunks_for_products, single_heads, take_heads, take_queries
from .input_space import input_space_ratio
from .workspace import Workspace


class AttendHeads(Protocol):
    """`formula.Attend` for a chunk of heads of the call."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, /, *, heads: slice) -> Tensor: ...


def circulate(
    q: Tensor, k: Tensor, v: Tensor, plain: Tensor | None, attend: AttendHeads, settings: CirculationSettings, out: Tensor | None,
    workspace: Workspace, x: Tensor | None = None, mask: Tensor | None = None, square: Square = WHOLE,
    padded: bool = True, fusable: bool = False,
) -> tuple[Tensor, Applied]:  # fmt: skip
    """ρ (o + β (o_α − o)) for one attention call, or o_α alone where `settings.one_call`: (B, H, N, d), and what was applied.

    q and `plain`, which is o = softmax(M) v and not needed for one call, are (B, H, Q, d), k and v (B, H, L, d): Q = L, or fewer
    queries than keys. The mask, added after scaling, is in `attend` already. `x`, (B, L, C), and `mask`, broadcastable to
    (B, H, Q, L), are for input space only.
    The result is written into `out`, or where that is None into memory in the order (B, N, H, d). `padded` says that `attend`
    pads values to the width of doubled heads, `fusable` that a kernel of ours may take the place of `attend`.

    `square` is where the circulation is scaled. All other logits stay as they are, and so does what other queries
    retrieve, so nothing is computed for them: `attend` takes the square's N queries and gives N outputs.
    """
    alpha, beta = strength(q[:, :, square.queries], k[:, :, square.keys], settings)
    if settings.one_call and fusable and square.queries == square.keys and fused.supports(q, k, v):
        out = fused.attention(q, k, v, alpha, square.queries, out)
        return out, Applied(alpha, beta, None, finite_images(out))
    if square != WHOLE:
        alpha = alpha_per_key(square.keys, alpha, k)
    double: Doubling = formula.doubled if q.device.type == "cpu" or square != WHOLE else doubled_in_one_buffer

    def skewed(heads: slice) -> tuple[Tensor, None]:
        return attend(*double(q[:, heads], k[:, heads], take_heads(alpha, heads), square), v[:, heads], heads=heads), None

    def blended(heads: slice) -> tuple[Tensor, Tensor | None]:
        assert plain is not None
        qh, kh, beta_h, mask_h = q[:, heads], k[:, heads], take_heads(beta, heads), None if mask is None else take_heads(mask, heads)
        unskewed, mask_h = (qh[:, :, square.queries], kh), take_queries(mask_h, square.queries)
        ratio = partial(input_space_ratio, unskewed, x=x, mask=mask_h, beta=beta_h, workspace=workspace)
        return formula.circulate(
            qh, kh, v[:, heads], plain[:, heads, square.queries], partial(attend, heads=heads), take_heads(alpha, heads), beta_h,
            settings.rescale, ratio, square, double,
        )  # fmt: skip

    if settings.one_call:
        out, rho = in_chunks(skewed, list(head_chunks(k, padded)), q[:, :, square.queries], v, out)
    else:
        single = settings.rescale == INPUT_SPACE
        out, rho = in_chunks(blended, list(single_heads(q) if single else head_chunks(k, padded)), q[:, :, square.queries], v, out)
    return out, Applied(alpha, beta, rho, finite_images(out if rho is None or settings.rescale == INPUT_SPACE else rho))


def in_chunks(
    compute: Callable[[slice], tuple[Tensor, Tensor | None]], chunks: Sequence[slice], q: Tensor, v: Tensor, out: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """ρ o_new of all heads, (B, H, N, d), and ρ; `compute` gives o_new and ρ of some of them. q are the N queries.
    A single chunk is not copied."""
    if out is None and len(chunks) > 1:
        batch, heads, length, _ = q.shape
        out = v.new_empty(batch, length, heads, v.shape[-1]).transpose(1, 2)
    ratios = []
    for chunk in chunks:
        new, rho = compute(chunk)
        ratios.append(rho)
        if out is None:
            out = new if rho is None else new.mul_(rho)
        elif rho is None:
            out[:, chunk] = new
        else:
            torch.mul(new, rho, out=out[:, chunk])
        del new, rho  # before the next chunk's are computed
    assert out is not None
    return out, None if ratios[0] is None else ratios[0] if len(ratios) == 1 else torch.cat(ratios, dim=1)


def strength(q: Tensor, k: Tensor, settings: CirculationSettings) -> tuple[float | Tensor, float | Tensor]:
    """α and β of this call, numbers or what `formula.adapt` gives, after the schedule's factor."""
    alpha, beta = settings.alpha, settings.beta
    if settings.adaptive is not None:
        etas = [formula.symmetry_index(*formula.products(q[:, heads], k[:, heads])) for heads in head_chunks_for_products(q)]
        alpha, beta = formula.adapt(alpha, beta, torch.cat(etas, dim=1), settings.adaptive)
    if settings.factor != 1:
        alpha = 1 + settings.factor * (alpha - 1)
    return (formula.one_pass(alpha, beta), 1.0) if settings.method == ONE_PASS else (alpha, beta)


def alpha_per_key(tokens: slice, alpha: float | Tensor, k: Tensor) -> Tensor:
    """α of each key, (B or 1, H or 1, L, 1) float32: 1, which leaves its logits alone, outside the tokens."""
    heads = alpha.shape[:2] if isinstance(alpha, Tensor) else (1, 1)
    every = torch.ones(*heads, k.shape[-2], 1, device=k.device)
    every[:, :, tokens] = alpha
    return every


def doubled_in_one_buffer(q: Tensor, k: Tensor, alpha: float | Tensor, square: Square = WHOLE) -> tuple[Tensor, Tensor]:
    """`formula.doubled` for the whole of M: two views of √2 [c₁ q ; k/√2 ; c₂ q], in three quarters of the memory by five eighths
    of the traffic.

    The logits are [√2 c₁ q ; k]·[k ; √2 c₂ q] / √(2d); one factor of each product is rounded once, as there.
    """
    assert square == WHOLE
    d, dtype = q.shape[-1], torch.promote_types(q.dtype, torch.float32)
    if isinstance(alpha, Tensor):
        scales = torch.stack((1 + alpha, 1 - alpha), dim=-2).div_(math.sqrt(2))
    else:
        scales = torch.linspace((1 + alpha) / math.sqrt(2), (1 - alpha) / math.sqrt(2), 2, dtype=dtype, device=q.device)[:, None]
    batch, heads, length, _ = q.shape
    buffer = torch.empty(batch, length, heads, 3, d, dtype=q.dtype, device=q.device).transpose(1, 2)  # the order of the model's own
    torch.mul(q.unsqueeze(-2), scales, out=buffer[..., ::2, :])
    buffer[..., 1, :] = k
    flat = buffer.flatten(-2)
    return flat[..., : 2 * d], flat[..., d:]


def finite_images(values: Tensor) -> Tensor:
    """Whether each image of (B, …) is finite, (B, 1, …)."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    return torch.isfinite(values.sum(tuple(range(1, values.ndim)), keepdim=True, dtype=dtype))
