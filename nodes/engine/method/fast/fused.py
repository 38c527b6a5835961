"""The skewed retrieval softmax(M_α) v by a kernel of our own, on NVIDIA GPUs: no doubled heads, no padding, no memory but its output.

Off unless the environment variable CIRCULATION_FUSED is 1.
"""

import os
from importlib.util import find_spec

import torch
from torch import Tensor

from ..formula import ALL

DTYPES = (torch.float16, torch.bfloat16)
MAX_HEAD_SIZE = 128
MULTIPLE = 8  # elements, 16 bytes: what is loaded at a time
CAPABILITIES = (8, 9, 12)  # major ones: those that `python3 -m tests.kernels` compiles for


def supports(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `attention` is wanted, and takes these q, k and v on this machine."""
    return (
        os.environ.get("CIRCULATION_FUSED") == "1"
        and q.device.type == "cuda"
        and q.dtype in DTYPES
        and q.shape[-1] <= MAX_HEAD_SIZE
        and all(t.shape == q.shape and t.dtype == q.dtype and t.device == q.device and _aligned(t) for t in (q, k, v))
        and torch.version.cuda is not None  # AMD's devices are called cuda too
        and torch.cuda.get_device_capability(q.device)[0] in CAPABILITIES
        and torch.__version__ >= (2, 9)  # the first whose Triton, 3.5, has all that the kernel is written in
        and find_spec("triton") is not None
    )


def attention(q: Tensor, k: Tensor, v: Tensor, alpha: float | Tensor, tokens: slice = ALL, out: Tensor | None = None) -> Tensor:
    """softmax(M_α) v of the `tokens`, (B, H, N, d) in the dtype of q: `out`, or new memory in the order (B, N, H, d).

    q, k, v are (B, H, L, d); no copies of them are made. α is a number, or float32 that broadcasts to (B, H, 1, 1).
    `tokens` are N in a row, among which the circulation is scaled. Other keys keep their logits.
    """
    from . import fused_kernel  # it imports Triton

    batch, heads, length, d = q.shape
    first, last, _ = tokens.indices(length)
    if out is None:
        out = q.new_empty(batch, last - first, heads, d).transpose(1, 2)
    alpha_of_heads = alpha.expand(batch, heads, 1, 1)[..., 0, 0] if isinstance(alpha, Tensor) else None
    fused_kernel.write_attention(q, k, v, out, 1.0 if isinstance(alpha, Tensor) else alpha, alpha_of_heads, first)
    return out


def _aligned(t: Tensor) -> bool:
    """Whether the channels lie side by side, and those of each token and head begin at a multiple of 16 bytes."""
    return t.stride(-1) == 1 and all(n % MULTIPLE == 0 for n in (t.shape[-1], t.storage_offset(), *t.stride()[:-1]))
