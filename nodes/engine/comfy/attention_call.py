"""One attention call as ComfyUI makes it, seen as heads, and the backend it may be sent to."""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch.nn.functional as F
from comfy.ldm.modules import attention as backends
from torch import Tensor

from ..families.forward import Forward, Mark
from ..method.fast import tiles
from ..method.fast.chunks import take_heads, take_queries
from ..method.fast.workspace import Workspace
from ..method.formula import ALL
from ..run.outcome import Remark
from . import kernels, keys

_POSITIONAL = ("q", "k", "v", "heads", "mask", "attn_precision", "skip_reshape", "skip_output_reshape")
_CONTAINER: Any = getattr(backends, "AttentionTensorContainer", ())  # of newer versions: what gives up its tensor to who takes it


class AttentionCall:
    """The arguments of one call to `optimized_attention`. `heads_of(t)` is (B, H, L, d)."""

    def __init__(self, func: Callable, previous: Callable | None, args: tuple, kwargs: dict):
        """`func` is the backend as ComfyUI hands it to an override, `previous` the override before ours, if any."""
        self._func, self._previous = func, previous
        self._in_containers = isinstance(next(iter(args), None), _CONTAINER)
        if self._in_containers:
            args = (*(container.take() for container in args[:3]), *args[3:])
        self._args, self._kwargs = args, kwargs
        self._by_torch = False  # whether torch's attention takes the place of `func`, see `prepare_blend`
        named = {**kwargs, **dict(zip(_POSITIONAL, args))}
        self.q, self.k, self.v = (named.pop(name) for name in "qkv")
        self.heads: int = named.pop("heads")
        self.mask: Tensor | None = named.pop("mask", None)
        self._in_heads = bool(named.pop("skip_reshape", False))
        named.pop("enable_gqa", None)  # heads_of gives every query head its own keys
        self._out_heads = bool(named.pop("skip_output_reshape", False))
        options: dict = kwargs.get(keys.TRANSFORMER_OPTIONS) or {}
        self.forward: Forward | None = options.get(keys.FORWARD)  # the call of the transformer that it belongs to
        self.mark: Mark | None = options.get(keys.MARK)  # of its block
        # What ComfyUI says: kind and index of its block, the first token of the image, and of each chunk of the batch
        # the position of its condition and what tells its prompt apart
        self.block = (options.get(keys.BLOCK_KIND), options[keys.BLOCK_INDEX]) if keys.BLOCK_INDEX in options else None
        self.image_start: int | None = options.get(keys.IMAGE_RANGE, (None,))[0]
        self.conditions: list[int] = options.get(keys.CONDITIONS, [])
        self.prompts: list = options.get(keys.PROMPTS, [])
        self.scaled = "scale" in named
        if self.scaled:  # softmax(scale q k^T) of heads that are twice as large and hold sqrt(2)
            named["scale"] = named["scale"] / math.sqrt(2)
        # The marker keeps a backend that falls back on a decorated one from entering our override again.
        self._backend_options = {**named, keys.INSIDE_OVERRIDE: True}

    def plain(self, rows: slice = ALL, queries: slice = ALL) -> Tensor:
        """The model's own output, in its layout: by the very call the model made, or by the same for some rows and queries."""
        args, kwargs = list(self._args), dict(self._kwargs)
        if rows != ALL or queries != ALL:
            tokens_of_q = (slice(None),) * (2 if self._in_heads else 1) + (queries,)
            part = {"q": self.q[rows][tokens_of_q], "k": self.k[rows], "v": self.v[rows], "mask": take_queries(self.mask_of(rows), queries)}
            args = [part.pop(name, value) for name, value in zip(_POSITIONAL, args)]
            kwargs.update((name, value) for name, value in part.items() if value is not None)
        if self._by_torch:
            return backends.attention_pytorch(*args, **{**kwargs, keys.INSIDE_OVERRIDE: True})
        return self._send(*args, **kwargs)

    def pass_on(self) -> Tensor:
        """The model's own output, of a call that is left alone. It is of no use afterwards: a backend may have taken q, k and v."""
        consume = getattr(self._previous or backends.optimized_attention, keys.CONTAINER_FUNCTION, None)
        if not self._in_containers or consume is None:
            return self.plain()
        args = (*map(_CONTAINER, (self.q, self.k, self.v)), *self._args[3:])
        del self.q, self.k, self.v, self._args
        return consume(*args, **self._kwargs)

    def prepare_blend(self) -> Remark | None:
        """To be called first where a result is blended from two retrievals: from then on both come from the same backend.

        The blend multiplies what rounding has made of their difference, so it is never a quantised one of ComfyUI's own.
        Returns what there is to be said about it.
        """
        if self._previous is not None:
            if not self._needs_torch:
                return None
            return Remark("headsTooLarge", self._doubled_width)
        name = self._backend
        self._by_torch = name in kernels.QUANTISED or self._needs_torch
        if name not in kernels.QUANTISED:
            return None
        return Remark("rounding", name)

    def empty_output(self) -> Tensor:
        """A tensor in the layout of the model's own output, with nothing in it."""
        batch, heads, length, width = self.heads_of(self.q).shape
        if self._in_heads or self.v.ndim == 4:
            width = self.v.shape[-1]
        return self.v.new_empty((batch, heads, length, width) if self._out_heads else (batch, length, heads * width))

    def output_of(self, heads: Tensor) -> Tensor:
        """(B, H, L, d) in the layout of the model's own output, without a copy where its memory allows."""
        return heads if self._out_heads else heads.transpose(1, 2).flatten(-2)

    def heads_of(self, tensor: Tensor) -> Tensor:
        """q, k or v as (B, H, L, d)."""
        if not self._in_heads:
            head_dim = self.q.shape[-1] // self.heads
            split = tensor if tensor.ndim == 4 else tensor.unflatten(-1, (-1, head_dim))  # SD3 splits v itself
            tensor = split.transpose(1, 2)
        shared = self.heads // tensor.shape[1]
        return tensor if shared == 1 else tensor.repeat_interleave(shared, dim=1)

    def size(self, tensor: Tensor) -> tuple[int, int]:
        """Rows of the batch and tokens of q, k or v."""
        return tensor.shape[0], tensor.shape[2 if self._in_heads else 1]

    def heads_of_output(self, tensor: Tensor) -> Tensor:
        """A tensor like the output as (B, H, L, d)."""
        return tensor if self._out_heads else tensor.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def mask_of(self, rows: slice) -> Tensor | None:
        """The mask of some rows, broadcastable to (B, H, L, L)."""
        mask = self.mask
        if mask is None:
            return None
        if mask.ndim < 4:
            mask = mask[None, None] if mask.ndim == 2 else mask.unsqueeze(1)
        return mask[rows] if mask.shape[0] == self.q.shape[0] else mask

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: slice, rows: slice, queries: slice, workspace: Workspace) -> Tensor:
        """Ordinary attention of doubled heads with this call's options: q (B, h, N, 2d), k (B, h, L, 2d), v (B, h, L, d) -> (B, h, N, d).

        `heads`, `rows` and `queries` say which part of the call's mask belongs to them.
        """
        if self.mask is None and self._in_tiles(q):
            return tiles.attention(q, k, v, workspace)
        send = backends.attention_pytorch if self._needs_torch else self._send
        mask = self.mask_of(rows)
        mask = None if mask is None else take_queries(take_heads(mask, heads), queries)
        count, width = v.shape[1], v.shape[-1]
        if self.pads_values:
            v = F.pad(v, (0, q.shape[-1] - width))
        out = send(q, k, v, count, mask=mask, skip_reshape=True, skip_output_reshape=True, **self._backend_options)
        if out.ndim == 3:  # some fallbacks forget skip_output_reshape
            out = out.unflatten(-1, (count, -1)).transpose(1, 2)
        return out[..., :width]

    def _send(self, *args, **kwargs) -> Tensor:
        if self._previous is not None:
            return self._previous(self._func, *args, **kwargs)
        return self._func(*args, **kwargs)

    @property
    def fusable(self) -> bool:
        """Whether a kernel of ours may take the place of `attend`: of ComfyUI's own, but for quantised ones, without mask and scale."""
        own = self._previous is None and self._backend not in ("", *kernels.QUANTISED)
        return own and self.mask is None and not self.scaled

    @property
    def pads_values(self) -> bool:
        """Whether `attend` pads values to the width of doubled heads."""
        by_torch = self._needs_torch or self._torch_is_next
        return not (by_torch and self.mask is None and kernels.takes_narrow_values(self.q, self._doubled_width))

    @cached_property
    def _backend(self) -> str:
        """The name of the model's backend, '' for an unknown one."""
        return kernels.name_of(self._func)

    @cached_property
    def _doubled_width(self) -> int:
        return 2 * self.heads_of(self.q).shape[-1]

    @property
    def _needs_torch(self) -> bool:
        """Whether doubled heads go to torch's attention in the place of the model's backend."""
        limit: float = kernels.UNKNOWN_HEAD_LIMIT
        if self._previous is None:
            limit = kernels.HEAD_LIMITS.get(self._backend, limit)
        return self._by_torch or self._doubled_width > limit

    @property
    def _torch_is_next(self) -> bool:
        return self._previous is None and kernels.computes(backends.attention_pytorch, self._func)

    def _in_tiles(self, q: Tensor) -> bool:
        """Ours takes the place of torch's attention alone, which needs v padded to the width of k and is a tenth slower."""
        return tiles.supports(q) and not self.scaled and (self._by_torch or self._torch_is_next)
