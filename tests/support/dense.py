"""The method written out with its L×L matrices, as in the table of the paper's quantities.

Nothing here is shared with the engine. q, k, v are (B, H, L, d), x is (B, L, C). Works in the dtype
it is given: float64 makes it the oracle, float16 the plain path whose rounding is the yardstick.
"""

import torch

from .watch import watch


def logits(q, k):
    return q @ k.mT / q.shape[-1] ** 0.5


def split(m):
    return (m + m.mT) / 2, (m - m.mT) / 2


def eta(q, k):
    """(B, H)."""
    symmetric, skew = split(logits(q, k))
    s, a = (t.square().sum((-2, -1)) for t in (symmetric, skew))
    return (s - a) / (s + a)


def rescale(target, new):
    ratio = target.norm(dim=-1, keepdim=True).clamp_min(1e-6) / new.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    return ratio.clamp(0.25, 4)


def circulation(q, k, v, alpha, beta, space="value space", x=None, mask=None, image=None):
    """(B, H, L, d). alpha and beta are numbers or broadcast to (B, H, 1, 1).

    `image`, (L,) of bools, says which tokens are the image's: only the block of M of their rows and columns is changed.
    """
    m = logits(q, k)
    symmetric, skew = split(m)
    m_alpha = symmetric + alpha * skew
    if image is not None:
        m_alpha = torch.where(image[:, None] & image[None, :], m_alpha, m)
    if mask is not None:
        m, m_alpha = m + mask, m_alpha + mask
    p, p_alpha = m.softmax(-1), m_alpha.softmax(-1)
    new = p @ v + beta * (p_alpha @ v - p @ v)
    if space == "value space":
        return new * rescale(p_alpha @ v, new)
    if space == "input space (paper)":
        x = x.unsqueeze(1)
        return new * rescale(p_alpha @ x, p @ x + beta * (p_alpha @ x - p @ x))
    return new


def adaptive(q, k, alpha, beta, over="image", formula="deviation", adapt_alpha=True, adapt_beta=True):
    """(α_eff, β_eff), each a number or broadcasting to (B, H, 1, 1)."""
    index = eta(q, k)
    if over == "image":
        index = index.mean(1, keepdim=True)
    elif over == "batch":
        index = index.mean()[None, None]
    index = index[..., None, None]
    if adapt_alpha:
        alpha = 1 + (alpha - 1) * index if formula == "deviation" else alpha * index
    if adapt_beta:
        beta = beta * (1 - index)
    return alpha, beta


def written_out(
    model, alpha, beta, space="value space", name=None, image=None, adapt=None, only=None, conditions=None, dtype=torch.float64
):
    """A clone of the MODEL in which every attention over the image is written out, `name` as for `watch`.

    `only(block)` says which blocks are changed, `conditions` which of the guider's, `image` for each number of queries which
    are the image's. `adapt` holds keyword arguments of `adaptive`. Queries that are a part of the keys are put among them.
    """

    def see(attention, plain):
        if attention.block is None or (only is not None and not only(attention.block)):
            return None
        q, k, v = (t.to(dtype) for t in (attention.q, attention.k, attention.v))
        mask, own, here = attention.mask, slice(None), None if image is None else image[q.shape[2]]
        if q.shape[2] != k.shape[2]:
            own = slice(attention.place, attention.place + q.shape[2])
            here = among(own, k.shape[2], torch.ones(q.shape[2], dtype=torch.bool) if here is None else here)
            q, mask = among(own, k.shape[2], q), mask if mask is None or mask.shape[-2] == 1 else among(own, k.shape[2], mask)
        over = slice(None) if here is None else here
        a, b = (alpha, beta) if adapt is None else adaptive(q[:, :, over], k[:, :, over], alpha, beta, **adapt)
        new = circulation(q, k, v, a, b, space, None if attention.x is None else attention.x.to(dtype), mask, here)[:, :, own]
        acted = torch.tensor([conditions is None or condition in conditions for condition in attention.conditions])
        acted = acted.repeat_interleave(len(q) // len(acted))
        return torch.where(acted[:, None, None, None], new, plain.to(dtype))

    return watch(model, see, name)


def among(own, count, t):
    """`t`, (L,) or (…, L, d), as those of `count` tokens that are its own; the others are 0."""
    axis = -2 if t.ndim > 1 else 0
    shape = list(t.shape)
    shape[axis] = count
    every = t.new_zeros(shape)
    every.narrow(axis, own.start, own.stop - own.start).copy_(t)
    return every


def call(q, k, v, x, heads, dtype=torch.float64, alpha=1.5, beta=3.0, space="value space", mask=None, image=None):
    """The output of one call, (B, L, C) as q, k, v and x are, computed in `dtype`."""
    q, k, v, x, mask = (None if t is None else t.to(dtype) for t in (q, k, v, x, mask))
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return circulation(q, k, v, alpha, beta, space, x, mask, image).transpose(1, 2).flatten(-2)


def centred(t):
    return t - t.mean(dim=-2, keepdim=True)


def _read_off(s, h):
    """(E, r, alignment), each (B, H, D), from channels of length 1 and their field."""
    energy = -(s * h).sum(-2) / 2
    return energy, (s * h < 0).to(s.dtype).mean(-2), torch.cosine_similarity(s, h, dim=-2, eps=1e-30)


def stability(q, k, retrieval):
    """(E, r, alignment) with M_sym written out, L×L; q and k (B, H, L, d) as they came, retrieval (B, H, L, D)."""
    symmetric, _ = split(centred(q) @ centred(k).mT)
    s = centred(retrieval)
    s = s / s.norm(dim=-2, keepdim=True)
    return _read_off(s, symmetric @ s)


def measures_by_coupling(x, wq, wk, retrieval):
    """The rows of a record for each image, (5, B), as published: through the C×C coupling of each head, M = x J xᵀ.

    x (B, L, C), wq and wk (H, d, C), retrieval (B, H, L, C). Head by head, or the retrieval's parts would not fit in a cache.
    """
    x = centred(x)
    gram = x.mT @ x
    heads = [_head_by_coupling(x, gram, *of_head) for of_head in zip(wq, wk, retrieval.unbind(1))]
    return torch.stack(heads).mean(0)


def _head_by_coupling(x, gram, wq, wk, retrieval):
    symmetric, skew = split(wq.mT @ wk)
    s = centred(retrieval)
    s = s / s.norm(dim=-2, keepdim=True)
    of_channels = _read_off(s, x @ (symmetric @ (x.mT @ s)))
    # ‖x S xᵀ‖² = tr(S G S G) and ‖x N xᵀ‖² = tr(Nᵀ G N G) with G = xᵀ x
    symmetric_gram = symmetric @ gram
    own, circulation = _trace(symmetric_gram, symmetric_gram), _trace(skew.mT @ gram, skew @ gram)
    eta = (own - circulation) / (own + circulation)
    return torch.stack([*(m.mean(-1) for m in of_channels), eta, (circulation / own).sqrt()])


def _trace(a, b):
    """tr(a b), (B,)."""
    return (a * b.mT).sum((-2, -1))


def measures(q, k, retrieval):
    """The rows of a record for each image, (5, B): energy, instability, alignment, η, ‖skew‖/‖sym‖."""
    index = eta(centred(q), centred(k))
    rows = [m.mean((1, 2)) for m in stability(q, k, retrieval)]
    return torch.stack([*rows, index.mean(1), ((1 - index) / (1 + index)).sqrt().mean(1)])
