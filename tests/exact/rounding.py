"""How much of the effect of Circulation on a layer is rounding, in half precision and on a backend that rounds q and k to 8 bits."""

from unittest import mock

import comfy.ldm.modules.attention as attention
import torch
from support import calls, dense
from support.host import engine
from support.quantised import attention_int8

choices, kernels = engine("choices"), engine("comfy.kernels")
Settings = engine("method.settings").CirculationSettings
STRENGTHS = ((1.05, 3.0), (1.05, 5.0), (1.2, 5.0))


def layer(dtype, tokens=512, heads=4, head_dim=64, seed=0):
    """q, k, v and x of a random layer, (1, L, C), and its number of heads: logits have a standard deviation of 1."""
    generator = torch.Generator().manual_seed(seed)
    width = heads * head_dim
    x = torch.randn(1, tokens, width, generator=generator)
    q, k, v = (x @ torch.randn(width, width, generator=generator) / width**0.5 for _ in range(3))
    return *(t.to(dtype) for t in (q, k, v, x)), heads


def share(method, alpha, beta, dtype, int8=False, blend_int8=False):
    """‖result − formula in float64‖ / ‖formula − plain‖. `blend_int8`: as if a blend could be of quantised retrievals."""
    *tensors, heads = layer(dtype)
    site = calls.Site(Settings(alpha, beta, method=method), chunks=(0,))
    registered = mock.patch.dict(attention.REGISTERED_ATTENTION_FUNCTIONS, {"sage": attention_int8})
    with registered, mock.patch.object(kernels, "QUANTISED", () if blend_int8 else kernels.QUANTISED):
        out = site(attention_int8 if int8 else attention.attention_pytorch, *tensors, heads=heads)
    used = (alpha, beta) if method == choices.PAPER else (1 + beta * (alpha - 1), 1.0)
    exact, plain = dense.call(*tensors, heads, alpha=used[0], beta=used[1]), dense.call(*tensors, heads, alpha=1.0)
    return float((out.double() - exact).norm() / (exact - plain).norm())


def table():
    columns = [
        ("float16", torch.float16, {}), ("bfloat16", torch.bfloat16, {}), ("8 bits", torch.float16, {"int8": True}),
        ("8 bits, both of a blend too", torch.float16, {"int8": True, "blend_int8": True}),
    ]  # fmt: skip
    head = ["alpha / beta", "method", *(name for name, *_ in columns)]
    rows = []
    for alpha, beta in STRENGTHS:
        for method in choices.METHODS:
            possible = [column for column in columns if method == choices.PAPER or "blend_int8" not in column[2]]
            shares = [f"{100 * share(method, alpha, beta, dtype, **kwargs):.1f} %" for _, dtype, kwargs in possible]
            rows.append([f"{alpha:g} / {beta:g}", method, *shares, *[""] * (len(columns) - len(possible))])
    return head, rows
