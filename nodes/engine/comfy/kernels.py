"""What the kernels behind ComfyUI's attention functions take, known before they are called: one row for each case."""

import math
from collections.abc import Callable
from typing import NamedTuple

import comfy.ops
import torch
from comfy.ldm.modules import attention as backends
from torch import Tensor

# The largest head that each backend's kernels take, by the names under which ComfyUI registers them. Heads are doubled by
# circulation; what a backend cannot take goes to torch's own attention, which takes any size.
HEAD_LIMITS = {
    **dict.fromkeys(("pytorch", "sub_quad", "split", "basic"), math.inf),
    **dict.fromkeys(("flash", "xformers", "comfy_kitchen_int8"), 256),
    **dict.fromkeys(("sage", "sage3"), 128),
}
UNKNOWN_HEAD_LIMIT = 128  # newer backends and other packs': what every fused kernel in use takes

# Those that round q and k to 8 or 4 bits
QUANTISED = ("sage", "sage3", "comfy_kitchen_int8")


class NarrowValues(NamedTuple):
    """GPUs on which torch's attention is faster with values narrower than the keys than with values that are padded."""

    first: tuple[int, int]  # compute capabilities, both included
    last: tuple[int, int]
    largest_head: int  # of q and k
    cudnn: int  # the least version, as torch gives it


# Padded values go to FlashAttention 2, narrow ones to cuDNN, which has three products to compute where the padded call has four. Its
# speed for equal products is 0.82 of that on an A100, 0.88 on an RTX PRO 6000, 0.93 on an A10G, 1.00 on an L40S and 1.7 to 2.3 on
# Hopper (transformers#48163): more than three quarters everywhere.
NARROW_VALUES = (
    NarrowValues((8, 0), (12, 9), 128, 90000),  # pytorch#128348, #128350
    NarrowValues((9, 0), (9, 0), 256, 92201),  # these two: can_use_cudnn_attention in torch's sdp_utils.cpp
    NarrowValues((10, 0), (10, 9), 256, 92201),
)


def computes(backend: Callable, func: Callable) -> bool:
    """Whether `func` is the function that ComfyUI has decorated as `backend`: overrides are handed the plain one."""
    return function_of(backend) is func


def function_of(backend: Callable) -> Callable:
    """A backend of ComfyUI's without its decorator."""
    return getattr(backend, "__wrapped__", backend)


def name_of(func: Callable) -> str:
    """The name under which ComfyUI has registered a backend, '' for an unknown one."""
    if computes(backends.attention_basic, func):  # the one that is not registered
        return "basic"
    registered = backends.REGISTERED_ATTENTION_FUNCTIONS.items()
    return next((name for name, backend in registered if computes(backend, func)), "")


def takes_narrow_values(q: Tensor, width: int) -> bool:
    """Whether torch's attention without a mask is best given narrower values than heads of this width as they are, where q lies."""
    if q.device.type != "cuda" or q.dtype not in (torch.float16, torch.bfloat16) or not _tries_cudnn_first():
        return False
    return narrow_is_faster(width, torch.cuda.get_device_capability(q.device), torch.backends.cudnn.version() or 0)


def narrow_is_faster(width: int, capability: tuple[int, int], cudnn: int) -> bool:
    """What the table says of heads of this width on such a GPU with such a cuDNN."""
    return any(row.first <= capability <= row.last and width <= row.largest_head and cudnn >= row.cudnn for row in NARROW_VALUES)


def _tries_cudnn_first() -> bool:
    """Whether ComfyUI has torch try cuDNN before the kernel for any sizes, which is slower. Others refuse values of another width."""
    order = [backend.name for backend in getattr(comfy.ops, "SDPA_BACKEND_PRIORITY", ())]
    return "CUDNN_ATTENTION" in order and order.index("CUDNN_ATTENTION") < order.index("EFFICIENT_ATTENTION")
