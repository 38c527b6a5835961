"""The measures in few passes over the tokens, in long rows, each of which torch has a fast loop for.

kᵀ [k ; q ; s] and qᵀ [q ; s] hold u = kᵀ s, w = qᵀ s and what η consists of, and with s as long as it came

    2h = q u + k w,  sᵀ M_sym s = u·w,  E = −½ u·w / ‖s‖²,  alignment = 2 u·w / (‖s‖ ‖2h‖)
"""

import math
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from ..formula import Applied, product, product_dtype, symmetry_index
from ..measures import skew_ratio
from .chunks import channel_chunks, head_chunks_for_products, parts_of_tokens
from .input_space import retrievals
from .workspace import Workspace

_TINY = torch.finfo(torch.float32).tiny


def relative_change(out: Tensor, plain: Tensor) -> Tensor:
    """‖out − plain‖ / ‖plain‖ of each image, (B,), float32 or wider: what an attention gives with us and without, (B, H, N, d)."""
    norm = partial(torch.linalg.vector_norm, dim=(1, 2, 3), dtype=torch.promote_types(out.dtype, torch.float32))
    chunks = list(head_chunks_for_products(out))
    parts = [(norm(out[:, heads] - plain[:, heads]), norm(plain[:, heads])) for heads in chunks]
    change, whole = parts[0] if len(parts) == 1 else (torch.stack(part).norm(dim=0) for part in zip(*parts))
    return change / whole


def measure_values(q: Tensor, k: Tensor, values: Tensor, workspace: Workspace) -> Tensor:
    """Value space: `measure` of the attention's output, (B, H, L, d)."""
    return measure(q, k, (values[:, heads] for heads in head_chunks_for_products(values)), workspace)


def measure_input(q: Tensor, k: Tensor, x: Tensor, mask: Tensor | None, workspace: Workspace, applied: Applied | None) -> Tensor:
    """Input space: `measure` of what each head retrieves of X, (B, L, C), after what was `applied` to the call."""
    chunks = channel_chunks(x, q.shape[-1])
    measured = [measure(q, k, retrievals(q, k, chunk, mask, workspace, applied), workspace, overwrite=True) for chunk in chunks]
    return torch.stack([of_chunk * (chunk.shape[-1] / x.shape[-1]) for of_chunk, chunk in zip(measured, chunks)]).sum(dim=0)


def measure(q: Tensor, k: Tensor, retrievals: Iterable[Tensor], workspace: Workspace, overwrite: bool = False) -> Tensor:
    """All of choices.MEASURES for each image: averaged over channels, then heads, (5, B), float32 or wider.

    q, k (B, H, L, d) as they came, not centred; `retrievals` is what the heads retrieved, all at once
    or by chunks of heads, each (B, heads, L, D); `overwrite` where nobody else needs it.
    """
    sums_of = partial(_sums_in_cache, workspace=workspace, overwrite=overwrite) if q.device.type == "cpu" else _sums_in_few_passes
    chunks, done = [], 0
    for retrieval in retrievals:
        heads = slice(done, done + retrieval.shape[1])
        done = heads.stop
        chunks.append(sums_of(q[:, heads], k[:, heads], retrieval))
    *sums, eta = chunks[0] if len(chunks) == 1 else (torch.cat(values, dim=1) for values in zip(*chunks))
    per_head = torch.stack((*(m.mean(dim=-1) for m in _of_unit_length(*sums)), eta, skew_ratio(eta)))
    return per_head.mean(dim=2)


def _sums_in_few_passes(q: Tensor, k: Tensor, retrieval: Tensor) -> tuple[Tensor, ...]:
    """u·w, r, ‖s‖² and ‖2h‖² of each channel, each (B, H, D), and η of each head, (B, H), where each pass over memory counts.

    With p = [k ; q], the product pᵀ [p ; s] holds all that is summed over tokens: [u ; w] is pᵀ s, and since 2h = p [w ; u],
    ‖2h‖² = [w ; u]ᵀ pᵀp [w ; u]. Only r needs h itself, whose sign in half precision is good enough.
    """
    (tokens, d), channels, dtype = q.shape[2:], retrieval.shape[-1], torch.promote_types(q.dtype, torch.float32)
    side_by_side = torch.empty(*retrieval.shape[:-1], 2 * d + channels, dtype=product_dtype(q), device=q.device)
    for t, place in zip((k, q, retrieval), side_by_side.split((d, d, channels), dim=-1)):
        torch.sub(t, t.mean(dim=-2, keepdim=True, dtype=dtype), out=place)
    p, s = side_by_side.split((2 * d, channels), dim=-1)
    pp, uw = product(p, side_by_side).split((2 * d, channels), dim=-1)
    wu = uw.roll(d, dims=-2)
    double_h_squared = (pp @ wu).mul_(wu).sum(dim=-2)
    to_mean_square_1 = (double_h_squared / tokens).clamp_min_(_TINY).rsqrt_().unsqueeze(-2)  # which is in the range of float16
    h = p @ torch.mul(wu, to_mean_square_1, out=torch.empty_like(wu, dtype=p.dtype))
    unstable = h.mul_(s).lt_(0).mean(dim=-2, dtype=dtype)
    s_squared = torch.linalg.vector_norm(s, dim=-2, dtype=dtype).square_()
    (kk, kq), (_, qq) = (rows.split(d, dim=-1) for rows in pp.split(d, dim=-2))
    u, w = uw.split(d, dim=-2)
    return (u * w).sum(dim=-2), unstable, s_squared, double_h_squared, symmetry_index(qq, kk, kq)


def _sums_in_cache(q: Tensor, k: Tensor, retrieval: Tensor, workspace: Workspace, overwrite: bool) -> tuple[Tensor, ...]:
    """The same on a CPU, in memory that is used again.

    The tokens of a head are divided into parts, so that threads share a head that is alone: tensors of tokens are
    (heads·parts, tokens/parts, ·), those of heads (heads, ·, ·).
    """
    shape, (tokens, d), channels = q.shape[:2], q.shape[2:], retrieval.shape[-1]
    dtype, parts = torch.promote_types(q.dtype, torch.float32), parts_of_tokens(q, channels)
    in_its_place = overwrite and retrieval.dtype == dtype
    with (
        workspace.largest.lend((*retrieval.shape[:-1], 2 * d + channels), q, dtype) as side_by_side,
        nullcontext(retrieval) if in_its_place else workspace.per_token.lend(retrieval.shape, q, dtype) as per_token,
        workspace.products_of_k.lend((shape.numel(), d, 2 * d + channels), q, dtype) as products_of_k,
        workspace.products_of_q.lend((shape.numel(), d, d + channels), q, dtype) as products_of_q,
    ):
        torch.cat((k, q, retrieval), dim=-1, out=side_by_side)
        side_by_side, per_token = (t.view(-1, tokens // parts, t.shape[-1]) for t in (side_by_side, per_token))
        side_by_side.sub_(_repeat_for_parts(_sum_over_parts(side_by_side.sum(dim=1, keepdim=True), parts).div_(tokens), parts))
        k, q, s = side_by_side.split((d, d, channels), dim=-1)
        _multiply(k, side_by_side, parts, per_token, out=products_of_k)
        _multiply(q, side_by_side[..., d:], parts, per_token, out=products_of_q)
        (kk, kq, u), (qq, w) = products_of_k.split((d, d, channels), dim=-1), products_of_q.split((d, channels), dim=-1)
        s_squared = torch.mul(s, s, out=per_token).sum(dim=1)
        double_h = torch.bmm(k, _repeat_for_parts(w, parts), out=per_token).baddbmm_(q, _repeat_for_parts(u, parts))
        unstable = torch.mul(double_h, s, out=s).lt_(0).sum(dim=1)
        double_h_squared = double_h.mul_(double_h).sum(dim=1)
        unstable, s_squared, double_h_squared = (_sum_over_parts(sums, parts) for sums in (unstable, s_squared, double_h_squared))
        sums = u.mul_(w).sum(dim=1), unstable.div_(tokens), s_squared, double_h_squared, symmetry_index(qq, kk, kq)
    return tuple(values.unflatten(0, shape) for values in sums)


def _sum_over_parts(sums: Tensor, parts: int, out: Tensor | None = None) -> Tensor:
    """(heads·parts, …) -> (heads, …)."""
    return sums if parts == 1 else torch.sum(sums.unflatten(0, (-1, parts)), dim=1, out=out)


def _repeat_for_parts(matrices: Tensor, parts: int) -> Tensor:
    """Repeat a per-head matrix for each of the head's parts, (heads, ·, ·) -> (heads·parts, ·, ·)."""
    return matrices if parts == 1 else matrices.unsqueeze(1).expand(-1, parts, -1, -1).flatten(0, 1)


def _multiply(x: Tensor, y: Tensor, parts: int, memory: Tensor, out: Tensor) -> None:
    """Write xᵀ y of each head into `out`; those of its parts first, into `memory`."""
    if parts == 1:
        torch.bmm(x.mT, y, out=out)
        return
    per_part = memory.view(-1)[: len(x) * math.prod(out.shape[1:])].view(-1, *out.shape[1:])
    _sum_over_parts(torch.bmm(x.mT, y, out=per_part), parts, out=out)


def _of_unit_length(product: Tensor, unstable: Tensor, s_squared: Tensor, double_h_squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(E, r, alignment) of s scaled to length 1, from the sums."""
    s_squared, double_h_squared = s_squared.clamp_min(_TINY), double_h_squared.clamp_min(_TINY)
    return -product / (2 * s_squared), unstable, (2 * product / (s_squared.sqrt() * double_h_squared.sqrt())).clamp(-1, 1)
