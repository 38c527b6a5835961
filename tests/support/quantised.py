"""A stand-in for attention backends that round q and k to 8 bits, as SageAttention does, on the CPU."""

import comfy.ldm.modules.attention as attention
import torch

BLOCK = 64  # neighbouring tokens that share a scale


def int8_attention(q, k, v):
    """softmax(q kᵀ / √d) v with q and k in 8 bits, (B, H, L, d) each: k without its mean over tokens, a scale for each block of tokens."""
    dtype = v.dtype
    q, k = q.float(), k.float() - k.float().mean(dim=-2, keepdim=True)
    logits = _rounded(q) @ _rounded(k).mT / q.shape[-1] ** 0.5
    return (logits.softmax(dim=-1).to(dtype) @ v).to(dtype)


def _rounded(t):
    blocks = t.split(BLOCK, dim=-2)
    scales = [block.abs().amax(dim=(-2, -1), keepdim=True).clamp_min(1e-12) / 127 for block in blocks]
    return torch.cat([(block / scale).round() * scale for block, scale in zip(blocks, scales)], dim=-2)


@attention.wrap_attn
def attention_int8(q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False, skip_output_reshape=False, **kwargs):
    """`int8_attention` as a backend of ComfyUI's, for heads of up to 128."""
    assert mask is None
    if not skip_reshape:
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    assert q.shape[-1] <= 128
    out = int8_attention(q, k, v)
    return out if skip_output_reshape else out.transpose(1, 2).flatten(-2)
