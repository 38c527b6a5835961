"""A self-attention layer as the published algorithm has it: values of all C channels for every head, M as a matrix, η through C×C."""

import torch
from support import dense


def layer(module, x, alpha: float, beta: float, adaptive: bool):
    """What `module`, a CrossAttention of ComfyUI's, gives for x, (B, L, C), with input-space rescaling and η over the whole batch."""
    heads = module.heads
    wq, wk, wv = (linear.weight.unflatten(0, (heads, -1)) for linear in (module.to_q, module.to_k, module.to_v))
    if adaptive:
        eta = torch.stack([eta_by_coupling(x, *of_head) for of_head in zip(wq, wk)]).mean()
        alpha, beta = 1 + (alpha - 1) * eta, beta * (1 - eta)
    q, k = (linear(x).unflatten(-1, (heads, -1)).transpose(1, 2) for linear in (module.to_q, module.to_k))
    return module.to_out(torch.cat([one_head(q[:, h], k[:, h], x, alpha, beta) @ wv[h].mT for h in range(heads)], dim=-1))


def one_head(q, k, x, alpha, beta):
    """Ξ_out, (B, L, C)."""
    m = dense.logits(q, k)
    symmetric, skew = dense.split(m)
    own, circulated = m.softmax(-1) @ x, (symmetric + alpha * skew).softmax(-1) @ x
    new = own + beta * (circulated - own)
    return new * dense.rescale(circulated, new)


def eta_by_coupling(x, wq, wk):
    """(B,), with M = x J xᵀ and J = W_qᵀ W_k."""
    symmetric, skew = dense.split(wq.mT @ wk)
    gram = x.mT @ x
    s, a = symmetric @ gram, skew @ gram
    s, a = (s * s.mT).sum((-2, -1)), -(a * a.mT).sum((-2, -1))
    return (s - a) / (s + a)
