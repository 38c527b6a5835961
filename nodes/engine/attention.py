"""One attention call as ComfyUI makes it, seen as heads, and the backend it may be sent to."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from comfy.ldm.modules.attention import attention_pytorch

from . import tiles
from .scratch import Scratch

_POSITIONAL = ("q", "k", "v", "heads", "mask", "attn_precision", "skip_reshape", "skip_output_reshape")

# The largest head each backend takes. Heads are doubled by circulation; what a backend cannot take
# goes to torch's own attention, which takes any size.
HEAD_LIMITS = {
    "attention_sage": 128,
    "attention3_sage": 128,
    "attention_flash": 256,
    "attention_xformers": 256,
    "attention_comfy_kitchen_int8": 256,
}
FOREIGN_HEAD_LIMIT = 128  # another pack's backend: what every fused kernel in use takes


class Call:
    """The arguments of one call to `optimized_attention`. `heads_of(t)` is (B, H, L, d)."""

    def __init__(self, func: Callable, previous: Callable | None, args: tuple, kwargs: dict):
        self._func, self._previous = func, previous
        self._args, self._kwargs = args, kwargs
        named = {**kwargs, **dict(zip(_POSITIONAL, args))}
        self.q, self.k, self.v = (named.pop(name) for name in "qkv")
        self.heads: int = named.pop("heads")
        self.mask: Tensor | None = named.pop("mask", None)
        self._in_heads = bool(named.pop("skip_reshape", False))
        named.pop("enable_gqa", None)  # heads_of gives every query head its own keys
        self._out_heads = bool(named.pop("skip_output_reshape", False))
        self.options: dict = kwargs.get("transformer_options") or {}
        # The marker keeps a backend that falls back on a decorated one from entering our override again.
        self._options = {**named, "_inside_attn_wrapper": True}

    def plain(self) -> Tensor:
        """The model's own output, by the very call the model made."""
        return self._send(*self._args, **self._kwargs)

    def heads_of(self, tensor: Tensor) -> Tensor:
        if not self._in_heads:
            head_dim = self.q.shape[-1] // self.heads
            split = tensor if tensor.ndim == 4 else tensor.unflatten(-1, (-1, head_dim))  # SD3 splits v itself
            tensor = split.transpose(1, 2)
        shared = self.heads // tensor.shape[1]
        return tensor if shared == 1 else tensor.repeat_interleave(shared, dim=1)

    def tokens(self, tensor: Tensor) -> tuple[int, int]:
        """Rows of the batch and tokens of q, k or v."""
        return tensor.shape[0], tensor.shape[2 if self._in_heads else 1]

    def heads_of_output(self, tensor: Tensor) -> Tensor:
        return tensor if self._out_heads else tensor.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: slice, rows: slice, queries: slice, scratch: Scratch) -> Tensor:
        """Ordinary attention with this call's options on some of its heads, rows and queries, (B, heads, L, ·) in and out."""
        if self.mask is None and self._in_tiles(q):
            return tiles.attention(q, k, v, scratch)
        send = self._send if q.shape[-1] <= self._head_limit() else attention_pytorch
        mask = self.mask
        if mask is not None and mask.ndim > 2 and mask.shape[0] == self.q.shape[0]:
            mask = mask[rows]
        if mask is not None and mask.ndim == 4 and mask.shape[1] > 1:
            mask = mask[:, heads]
        if mask is not None and mask.shape[-2] > 1:
            mask = mask[..., queries, :]
        count, width = v.shape[1], v.shape[-1]
        v = F.pad(v, (0, q.shape[-1] - width))  # few backends take values narrower than the keys
        out = send(q, k, v, count, mask=mask, skip_reshape=True, skip_output_reshape=True, **self._options)
        if out.ndim == 3:  # some fallbacks forget skip_output_reshape
            out = out.unflatten(-1, (count, -1)).transpose(1, 2)
        return out[..., :width]

    def mask_of(self, rows: slice) -> Tensor | None:
        """The mask of some rows, broadcastable to (B, H, L, L)."""
        mask = self.mask
        if mask is None:
            return None
        if mask.ndim < 4:
            mask = mask[None, None] if mask.ndim == 2 else mask.unsqueeze(1)
        return mask[rows] if mask.shape[0] == self.q.shape[0] else mask

    def _send(self, *args, **kwargs) -> Tensor:
        if self._previous is not None:
            return self._previous(self._func, *args, **kwargs)
        return self._func(*args, **kwargs)

    def _in_tiles(self, q: Tensor) -> bool:
        """Where torch's own attention would compute, but not on values narrower than the keys: padded, it takes a tenth longer."""
        return tiles.takes(q) and self._previous is None and getattr(self._func, "__name__", "") == attention_pytorch.__name__

    def _head_limit(self) -> float:
        if self._previous is not None:
            return FOREIGN_HEAD_LIMIT
        return HEAD_LIMITS.get(getattr(self._func, "__name__", ""), float("inf"))
