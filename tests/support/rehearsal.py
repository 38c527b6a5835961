"""What the pack does on a GPU, rehearsed without one.

torch's fake tensors have a shape, a layout, a dtype and the device `cuda`, and no numbers. They go through ComfyUI's attention and the
engine like real ones, and `Watch` sees every operation: what is allocated, how much is moved, and what would make Python wait. It cannot
show numbers, time, or what happens within an operation.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple
from unittest import mock

import comfy.ldm.modules.attention as attention
import comfy.ops
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from . import calls
from .half import LIBRARY  # noqa: F401  an operator that older fake tensors lack

HALF = (torch.float16, torch.bfloat16)
BLOCK = 512  # bytes, of which torch's allocator gives multiples


KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


@dataclass(frozen=True)
class Card:
    """A GPU, and the order in which torch's attention tries its kernels there, if it is ComfyUI that says it."""

    capability: tuple[int, int]
    order: tuple[str, ...] | None = None
    cudnn: int = 92400

    def __str__(self) -> str:
        return "sm_{}{}".format(*self.capability) + ", padded" * (self.order is None)


TORCHS_OWN = ("flash", "efficient", "math")
COMFYUIS = ("flash", "cudnn", "efficient", "math")  # of newer versions
OLDER_COMFYUI = Card((8, 0))  # where no kernel for narrow values comes first
A100 = Card((8, 0), COMFYUIS)
RTX_4090 = Card((8, 9), COMFYUIS)
H100 = Card((9, 0), COMFYUIS)


@dataclass(frozen=True)
class Layer:
    """A self-attention: q, k and v are (B, L, H·d), or (B, H, L, d) `in_heads`; `text` tokens stand in front of the image's."""

    batch: int
    tokens: int
    heads: int
    head_dim: int
    dtype: torch.dtype = torch.float16
    text: int = 0
    in_heads: bool = False

    def tensor(self, device: str = "cuda") -> Tensor:
        shape = (self.heads, self.tokens, self.head_dim) if self.in_heads else (self.tokens, self.heads * self.head_dim)
        return torch.randn(self.batch, *shape, device=device, dtype=self.dtype)

    @property
    def image(self) -> slice:
        return slice(self.text, self.tokens) if self.text else slice(None)

    @property
    def bytes_of_q(self) -> int:
        return self.batch * self.tokens * self.heads * self.head_dim * self.dtype.itemsize


class Watch(TorchDispatchMode):
    """What is done while it is active.

    `kernels` are the operators that are no view and no allocation. `moved` are the bytes that they read and write, attention itself left
    out: for each operator the sum over its distinct input and output tensor objects, so that what it changes in place counts once, and a
    tensor and its transpose twice. `peak` is the most that is held at a time of what was allocated meanwhile, `allocations` their sizes
    in order. `faults` says what would make Python wait for the GPU, or has no place there.
    """

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "bincount", "equal", "linalg_solve", "linalg_inv", "linalg_eig")

    def __init__(self):
        super().__init__()
        self.kernels = self.moved = self.peak = 0
        self.allocations: list[int] = []
        self.faults: dict[str, None] = {}  # in order
        self._held: dict[int, int] = {}  # size of each storage, 0 where it was there before
        self._ends: list[weakref.ref] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        if operator is torch.ops.prim.device.default:
            return out
        inputs, outputs = ([t for t in tree_leaves(tree) if isinstance(t, Tensor)] for tree in ((args, kwargs), out))
        name = operator.name().removeprefix("aten::")
        for t in inputs:
            self._know(t.untyped_storage(), 0)
        is_view = any(result.alias_info is not None and not result.alias_info.is_write for result in operator._schema.returns)
        if (outputs or operator._schema.is_mutable) and not is_view and not name.startswith(("empty", "new_empty", "_unsafe_view")):
            self.kernels += 1
            if "scaled_dot_product" not in name:
                self.moved += sum(t.numel() * t.itemsize for t in {id(t): t for t in (*inputs, *outputs)}.values())
        self.faults.update(dict.fromkeys(f"{name}: {fault}" for fault in self._faults(name, args, inputs, outputs)))
        for t in outputs:
            storage = t.untyped_storage()
            size = -(-storage.nbytes() // BLOCK) * BLOCK
            if self._know(storage, size):
                self.allocations.append(size)
                self.peak = max(self.peak, sum(self._held.values()))
        return out

    def _faults(self, name, args, inputs, outputs):
        on_cpu = [t for t in (*inputs, *outputs) if t.device.type == "cpu"]
        number = name in ("lift_fresh", "fill_.Tensor") and all(t.ndim == 0 for t in on_cpu)  # x[a:b] = number: read where it is
        if on_cpu and not number:
            yield f"takes or makes a tensor on the CPU, {[tuple(t.shape) for t in (*inputs, *outputs)]}"
        if any(word in name for word in self.WAITS):
            yield "reads a value back"
        if any(t.dtype == torch.float64 for t in outputs):
            yield "gives float64"

    def _know(self, storage, size: int) -> bool:
        """Whether it is new. It is known as long as it lives: another may come to lie in its place."""
        key = storage._cdata
        if key in self._held:
            return False
        self._held[key] = size
        self._ends.append(weakref.ref(storage, lambda _: self._held.pop(key)))
        return True


def takes(kernel: str, card: Card, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> bool:
    """Whether torch's choice of a kernel falls on this one, if it is asked.

    Source: pytorch, aten/src/ATen/native/transformers/cuda/sdp_utils.cpp, can_use_flash_attention, …_cudnn_… and …_mem_efficient_….
    """
    half, (size, of_keys, of_values) = q.dtype in HALF, (t.shape[-1] for t in (q, k, v))
    in_rows = all(t.stride(-1) == 1 for t in (q, k, v))
    if kernel == "flash":
        return half and in_rows and mask is None and size == of_keys == of_values <= 256
    if kernel == "cudnn":
        wide = (card.capability[0] == 10 or card.capability == (9, 0)) and card.cudnn > 92200
        return half and in_rows and max(size, of_values) <= (256 if wide else 128) and size % 8 == of_values % 8 == 0 and k.shape[-2] > 1
    if kernel == "efficient":
        alignment = 8 if half else 4
        aligned = all(t.storage_offset() % alignment == 0 for t in (q, k, v))
        return in_rows and aligned and size == of_keys and size % alignment == of_values % alignment == 0
    return kernel == "math"


def attend(kernel: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """The kernel's own operator, with what torch does to its inputs."""
    operators = torch.ops.aten
    if kernel == "math":
        return operators._scaled_dot_product_attention_math(q, k, v, mask, scale=scale)[0]
    if kernel == "flash":
        width, missing = v.shape[-1], -q.shape[-1] % 8
        if missing:
            scale = scale or q.shape[-1] ** -0.5
            q, k, v = (F.pad(t, (0, missing)) for t in (q, k, v))
        return operators._scaled_dot_product_flash_attention(q, k, v, scale=scale)[0][..., :width]
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask.logical_not(), -torch.inf)
        mask = mask.expand(*q.shape[:-1], k.shape[-2])
    if kernel == "cudnn":
        return operators._scaled_dot_product_cudnn_attention(q, k, v, mask, False, scale=scale)[0]
    return operators._scaled_dot_product_efficient_attention(q, k, v, mask, False, scale=scale)[0]


@contextlib.contextmanager
def fake_gpu(card: Card = A100):
    """Tensors made in it are fake, and torch's attention chooses its kernel as on this card. Gives the Counter of what it chose,
    (kernel, size of a query head, of a value head)."""
    chosen: Counter = Counter()

    def choose(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        assert not (dropout_p or is_causal or enable_gqa), "what no call of ours asks for"
        if attn_mask is not None and attn_mask.dtype not in (torch.bool, q.dtype):
            raise RuntimeError(f"attn_mask is {attn_mask.dtype} and the query {q.dtype}")
        kernel = next(kernel for kernel in order if takes(kernel, card, q, k, v, attn_mask))
        chosen[kernel, q.shape[-1], v.shape[-1]] += 1
        return attend(kernel, q, k, v, attn_mask, scale)

    order = card.order or TORCHS_OWN
    with contextlib.ExitStack() as stack:

        def replace(module, name, value):
            stack.enter_context(mock.patch.object(module, name, value, create=True))

        replace(F, "scaled_dot_product_attention", choose)
        replace(attention, "SDP_BATCH_LIMIT", 2**15)  # as on NVIDIA's
        if card.order:
            replace(comfy.ops, "SDPA_BACKEND_PRIORITY", [KERNELS[kernel] for kernel in card.order])
        replace(torch.backends.cudnn, "version", lambda: card.cudnn)
        replace(torch.cuda, "get_device_capability", lambda device=None: card.capability)
        stack.enter_context(FakeTensorMode(allow_fallback_kernels=False))
        yield chosen


class Figures(NamedTuple):
    """Of one call, with what the plain call alone takes left out."""

    kernels: int  # of the call in all
    passes: float  # over q: bytes moved outside attention, in bytes of q
    peak: float  # more at the peak, in bytes of q; both to one decimal


@dataclass
class Report:
    """What some equal calls did."""

    figures: list[Figures]
    allocations: list[tuple[int, ...]]
    faults: list[str]
    chosen: Counter


def rehearse(
    layer: Layer, circulation=None, probed=None, card=A100, steps=3, mask=None, out_heads=False, image=None, previous=None
) -> Report:  # fmt: skip
    """Some calls in the middle of a run, as `calls.Site` makes them. `mask` makes the call's mask; `image` is in place of the layer's."""
    site = calls.Site(
        circulation, probed, image=layer.image if image is None else image, chunks=tuple(range(min(2, layer.batch))), previous=previous
    )
    report = Report([], [], [], Counter())
    with fake_gpu(card) as report.chosen:
        for _ in range(steps):
            q, k, v = (layer.tensor() for _ in range(3))
            x = q if layer.in_heads else torch.randn_like(q)
            more = dict(heads=layer.heads, mask=mask and mask(), skip_reshape=layer.in_heads, skip_output_reshape=out_heads)
            plain, ours = Watch(), Watch()
            with plain:
                expected = attention.attention_pytorch(q, k, v, **more)
            like = expected.shape, expected.dtype, expected.device
            del expected
            report.chosen.clear()
            options = site.options(x)
            with ours:
                out = attention.attention_pytorch(q, k, v, transformer_options=options, **more)
            report.faults += ours.faults
            if (out.shape, out.dtype, out.device) != like:
                report.faults.append(f"the result is {(out.shape, out.dtype, out.device)} where the model's own is {like}")
            report.faults += [f"declined: {reason}" for reason in site.run.outcome._declined]
            del out
            moved, peak = (round(extra / layer.bytes_of_q, 1) for extra in (ours.moved - plain.moved, ours.peak - plain.peak))
            report.figures.append(Figures(ours.kernels, moved, peak))
            report.allocations.append(tuple(ours.allocations))
    return report
