"""The formula on one attention call, by chunks of heads."""

import math
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from ...choices import INPUT_SPACE, NO_RESCALE, ONE_PASS, VALUE_SPACE
from .. import formula
from ..formula import ALL, Applied, Doubling
from ..settings import CirculationSettings
from .chunks import head_chunks, head_chunks_for_products, single_heads, take_heads
from .input_space import input_space_ratio
from .workspace import Workspace


class AttendHeads(Protocol):
    """`formula.Attend` for a chunk of heads of the call."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, /, *, heads: slice) -> Tensor: ...


def circulate(
    q: Tensor, k: Tensor, v: Tensor, plain: Tensor | None, attend: AttendHeads, settings: CirculationSettings, out: Tensor | None,
    workspace: Workspace, x: Tensor | None = None, mask: Tensor | None = None, tokens: slice = ALL, padded: bool = True,
) -> tuple[Tensor, Applied]:  # fmt: skip
    """ρ (o + β (o_α − o)) for one attention call, or o_α alone where `settings.one_call`: (B, H, N, d), and what was applied.

    q, k, v and `plain`, which is o = softmax(M) v and not needed for one call, are (B, H, L, d). The mask, added after
    scaling, is in `attend` already. `x`, (B, L, C), and `mask`, broadcastable to (B, H, L, L), are for input space only.
    The result is written into `out`, or where that is None into memory in the order (B, N, H, d). `padded` says that `attend`
    pads values to the width of doubled heads.

    `tokens` are the N tokens among which the circulation is scaled: the block of M of their rows and
    columns. All other logits stay as they are. The rows of the other tokens then stay as they are
    too, so nothing is computed for them: `attend` takes N queries and gives N outputs.
    """
    alpha, beta = strength(q[:, :, tokens], k[:, :, tokens], settings)
    double: Doubling = formula.doubled if q.device.type == "cpu" or tokens != ALL else doubled_in_one_buffer
    alpha_of_keys = alpha if tokens == ALL else alpha_per_key(tokens, alpha, q)
    in_input_space, ratios = settings.rescale == INPUT_SPACE and not settings.one_call, []
    chunks = list(single_heads(q) if in_input_space else head_chunks(q, padded))
    if out is None and len(chunks) > 1:
        batch, _, length, _ = q[:, :, tokens].shape
        out = torch.empty(batch, length, *v.shape[1::2], dtype=v.dtype, device=v.device).transpose(1, 2)
    for heads in chunks:
        qh, kh, vh, alpha_h, attend_h = *(t[:, heads] for t in (q, k, v)), take_heads(alpha_of_keys, heads), partial(attend, heads=heads)
        rho = None
        if settings.one_call:
            new = attend_h(*double(qh, kh, alpha_h, tokens), vh)
        else:
            assert plain is not None
            beta_h, mask_h = take_heads(beta, heads), None if mask is None else take_heads(mask, heads)
            ratio = partial(input_space_ratio, (qh, kh), x=x, mask=mask_h, beta=beta_h, workspace=workspace) if in_input_space else None
            o = plain[:, heads, tokens]
            new, rho = formula.circulate(qh, kh, vh, o, attend_h, alpha_h, beta_h, settings.rescale, ratio, tokens, double)
            ratios.append(rho)
        if out is None:
            out = new if rho is None else new.mul_(rho)
        elif rho is None:
            out[:, heads] = new
        else:
            torch.mul(new, rho, out=out[:, heads])
        del new  # before the next chunk's is computed
    assert out is not None
    rho = None if settings.one_call or settings.rescale == NO_RESCALE else torch.cat(ratios, dim=1) if len(ratios) > 1 else ratios[0]
    return out, Applied(alpha_of_keys, beta, rho, finite_images(rho if rho is not None and settings.rescale == VALUE_SPACE else out))


def strength(q: Tensor, k: Tensor, settings: CirculationSettings) -> tuple[float | Tensor, float | Tensor]:
    """α and β of this call, numbers or what `formula.adapt` gives, after the schedule's factor."""
    alpha, beta = settings.alpha, settings.beta
    if settings.adaptive is not None:
        etas = [formula.symmetry_index(*formula.products(q[:, heads], k[:, heads])) for heads in head_chunks_for_products(q)]
        alpha, beta = formula.adapt(alpha, beta, torch.cat(etas, dim=1), settings.adaptive)
    if settings.factor != 1:
        alpha = 1 + settings.factor * (alpha - 1)
    return (formula.one_pass(alpha, beta), 1.0) if settings.method == ONE_PASS else (alpha, beta)


def alpha_per_key(tokens: slice, alpha: float | Tensor, q: Tensor) -> Tensor:
    """α of each key, (B or 1, H or 1, L, 1) float32: 1, which leaves its logits alone, outside the tokens."""
    heads = alpha.shape[:2] if isinstance(alpha, Tensor) else (1, 1)
    every = torch.ones(*heads, q.shape[-2], 1, device=q.device)
    every[:, :, tokens] = alpha
    return every


def doubled_in_one_buffer(q: Tensor, k: Tensor, alpha: float | Tensor, tokens: slice = ALL) -> tuple[Tensor, Tensor]:
    """`formula.doubled` for all tokens, as two views of √2 [c₁ q ; k/√2 ; c₂ q]: three quarters of the memory, five eighths of the traffic.

    The logits are [√2 c₁ q ; k]·[k ; √2 c₂ q] / √(2d); one factor of each product is rounded once, as there.
    """
    assert tokens == ALL
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
