"""The formula on one attention call, by chunks of heads."""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from ...choices import INPUT_SPACE, NO_RESCALE
from .. import formula
from ..formula import ALL, Applied
from ..settings import CirculationSettings
from .chunks import head_chunks, head_chunks_for_products, single_heads, take_heads
from .input_space import input_space_ratio
from .workspace import Workspace


class AttendHeads(Protocol):
    """`formula.Attend` for a chunk of heads of the call."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, /, *, heads: slice) -> Tensor: ...


def circulate(
    q: Tensor, k: Tensor, v: Tensor, plain: Tensor, attend: AttendHeads, settings: CirculationSettings, out: Tensor, workspace: Workspace,
    x: Tensor | None = None, mask: Tensor | None = None, tokens: slice = ALL,
) -> Applied:  # fmt: skip
    """Write ρ (o + β (o_α − o)), for one attention call, into `out`, (B, H, N, d) in the dtype of `plain`.

    q, k, v and `plain`, which is o = softmax(M) v, are (B, H, L, d). The mask, added after scaling, is
    in `attend` already. `x`, (B, L, C), and `mask`, broadcastable to (B, H, L, L), are for input space only.

    `tokens` are the N tokens among which the circulation is scaled: the block of M of their rows and
    columns. All other logits stay as they are. The rows of the other tokens then stay as they are
    too, so nothing is computed for them: `attend` takes N queries and gives N outputs.
    """
    alpha, beta = strength(q[:, :, tokens], k[:, :, tokens], settings)
    if tokens != ALL:
        alpha = alpha_per_key(tokens, alpha, q)
    in_input_space, ratios = settings.rescale == INPUT_SPACE, []
    for heads in single_heads(q) if in_input_space else head_chunks(q):
        qh, kh, vh = (t[:, heads] for t in (q, k, v))
        beta_h, mask_h = take_heads(beta, heads), None if mask is None else take_heads(mask, heads)
        ratio = partial(input_space_ratio, (qh, kh), x=x, mask=mask_h, beta=beta_h, workspace=workspace) if in_input_space else None
        new, rho = formula.circulate(
            qh, kh, vh, plain[:, heads, tokens], partial(attend, heads=heads),
            take_heads(alpha, heads), beta_h, settings.rescale, ratio, tokens,
        )
        if rho is None:
            out[:, heads] = new
        else:
            torch.mul(new, rho, out=out[:, heads])
        ratios.append(rho)
        del new, rho  # before the next chunk's are computed
    return Applied(alpha, beta, None if settings.rescale == NO_RESCALE else torch.cat(ratios, dim=1))


def strength(q: Tensor, k: Tensor, settings: CirculationSettings) -> tuple[float | Tensor, float | Tensor]:
    """α and β of this call, numbers or what `formula.adapt` gives, after the schedule's factor."""
    alpha, beta = settings.alpha, settings.beta
    if settings.adaptive is not None:
        etas = [formula.symmetry_index(*formula.products(q[:, heads], k[:, heads])) for heads in head_chunks_for_products(q)]
        alpha, beta = formula.adapt(alpha, beta, torch.cat(etas, dim=1), settings.adaptive)
    if settings.factor != 1:
        alpha = 1 + settings.factor * (alpha - 1)
    return alpha, beta


def alpha_per_key(tokens: slice, alpha: float | Tensor, q: Tensor) -> Tensor:
    """α of each key, (B or 1, H or 1, L, 1) float32: 1, which leaves its logits alone, outside the tokens."""
    heads = alpha.shape[:2] if isinstance(alpha, Tensor) else (1, 1)
    every = torch.ones(*heads, q.shape[-2], 1, device=q.device)
    every[:, :, tokens] = alpha
    return every
