"""The calls that are timed: {variant: function}, the first of which is the plain one."""

import os
from functools import partial

import torch
from shapes import SHAPES, Shape
from support import calls, dense, models, others, sampling
from support.host import engine, patch, probe

import comfy.ldm.modules.attention as attention
import comfy.ops
import full_size
import published

choices = engine("choices")
CirculationSettings, AdaptiveSettings = engine("method.settings").CirculationSettings, engine("method.settings").AdaptiveSettings
STATIC, STRONG = (1.05, 3.0), (1.2, 5.0)
VARIANTS = {
    "plain": (None, None),
    "value space": (CirculationSettings(*STATIC), None),
    "one pass": (CirculationSettings(*STATIC, method=choices.ONE_PASS), None),
    "beta 1": (CirculationSettings(STATIC[0], 1.0), None),
    "adaptive": (CirculationSettings(*STRONG, adaptive=AdaptiveSettings()), None),
    "probe, value space": (None, choices.VALUE_SPACE),
    "input space": (CirculationSettings(*STATIC, choices.INPUT_SPACE), None),
    "probe, input space": (None, choices.INPUT_SPACE),
}
WITHOUT_X = ("plain", "value space", "one pass", "beta 1", "adaptive", "probe, value space")
MODELS = {
    "plain": lambda model: model,
    "value space": patch,
    "one pass": partial(patch, method=choices.ONE_PASS),
    "beta 1": partial(patch, beta=1.0),
    "adaptive": partial(patch, node_id="CirculationAdaptive"),
    "probe, value space": lambda model: probe(model)[0],
    "both, value space": lambda model: probe(patch(model))[0],
    "input space": partial(patch, rescale=choices.INPUT_SPACE),
}


def layer(shape: Shape, batch: int, device: str, dtype: torch.dtype) -> dict:
    """A self-attention as ComfyUI computes it, left alone, under our rules and probes, and as published."""
    x = torch.randn(batch, shape.tokens, shape.channels, device=device, dtype=dtype)
    if not shape.projections:
        qkv = [torch.randn_like(x) for _ in range(3)]
        compute = partial(attention.optimized_attention, *qkv, heads=shape.heads)
        return with_fused({variant: under(compute, shape, x, *VARIANTS[variant]) for variant in WITHOUT_X}, shape, x)
    module = attention.CrossAttention(
        shape.channels, heads=shape.heads, dim_head=shape.head_dim, dtype=dtype, device=device, operations=comfy.ops.disable_weight_init
    )
    models.fill(module.cpu())
    module.to(device)
    ours = {variant: under(partial(module, x), shape, x, *settings) for variant, settings in VARIANTS.items()}
    return {
        **with_fused(ours, shape, x),
        "published": lambda: published.layer(module, x, *STATIC, adaptive=False),
        "published, adaptive": lambda: published.layer(module, x, *STRONG, adaptive=True),
    }


def under(compute, shape: Shape, x, circulation, probed):
    """`compute`, with its attention under a rule or a probe, in the middle of a run."""
    if circulation is None and probed is None:
        return compute
    image = slice(shape.text, shape.tokens) if shape.text else slice(None)
    site = calls.Site(circulation, probed, image=image, chunks=(0,))
    return lambda: compute(transformer_options=site.options(x))


def with_fused(calls: dict, shape: Shape, x: torch.Tensor) -> dict:
    """The calls, and one pass by the fused kernel where it takes such heads. All others are then without it."""
    q = x.unflatten(-1, (shape.heads, shape.head_dim)).transpose(1, 2)
    if not setting_fused("1", partial(engine("method.fast.fused").supports, q, q, q))():
        return calls
    without = {variant: setting_fused("0", call) for variant, call in calls.items()}
    return {**without, "fused": setting_fused("1", calls["one pass"])}


def setting_fused(value: str, call):
    def run():
        os.environ["CIRCULATION_FUSED"] = value
        return call()

    return run


def measures(shape: Shape, batch: int, device: str) -> dict:
    """The measures of one layer in input space, given what it retrieved: ours, and through C×C couplings. float32."""
    x = torch.randn(batch, shape.tokens, shape.channels, device=device)
    wq, wk = (torch.randn(shape.heads, shape.head_dim, shape.channels, device=device) / shape.channels**0.5 for _ in range(2))
    q, k = (x.unsqueeze(1) @ w.mT for w in (wq, wk))
    retrieval = torch.randn(batch, shape.heads, shape.tokens, shape.channels, device=device)
    parts, kept = retrieval.split(1, dim=1), engine("method.fast.workspace").Workspace()  # as a run keeps it
    return {
        "ours": lambda: engine("method.fast.measures").measure(q, k, parts, kept),
        "published": lambda: dense.measures_by_coupling(x, wq, wk, retrieval),
    }


def whole_model(name: str, side: int, steps: int, device: str, dtype: torch.dtype, compiled: bool) -> dict:
    """A run of a UNet with random weights through ComfyUI's sampler, positive and negative in one batch."""
    if name == "full sdxl":
        model = models.made("SDXL", full_size.SDXL, dtype, device=device)
        extra = dict(positive=prompt(1), negative=prompt(2))
    else:
        model, extra = models.build(name, dtype, device=device), {}
    if compiled:
        from comfy_extras.nodes_torch_compile import TorchCompileModel

        model = others.execute(TorchCompileModel, model, backend="inductor")
    run = partial(sampling.sample, name=name, steps=steps, size=side, **extra)
    calls = {variant: partial(run, change(model)) for variant, change in MODELS.items()}
    if name != "full sdxl":
        return calls
    shape = SHAPES["sdxl"][0][0]
    return with_fused(calls, shape, torch.empty(2, shape.tokens, shape.channels, device=device, dtype=dtype))


def prompt(seed: int) -> list:
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(1, 77, 2048, generator=generator), {"pooled_output": torch.randn(1, 1280, generator=generator)}]]
