"""What each model family tells us: where its self-attentions are."""

from __future__ import annotations

from comfy.ldm.modules.attention import SpatialTransformer, SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from .blocks import Block

SUPPORTED = "Stable Diffusion 1.5, 2.x, SDXL and its relatives (refiner, SSD-1B, Segmind Vega, KOALA), Stable Video Diffusion"


def name(model) -> str:
    """The family as ComfyUI calls it, such as 'SDXL'."""
    config = getattr(model.model, "model_config", None)
    return type(config if config is not None else model.model).__name__


def blocks(model) -> tuple[Block, ...]:
    """The self-attentions of a MODEL in execution order.

    Raises TypeError for something that is not a diffusion model, and ValueError that names the
    family for one whose attention cannot be patched.
    """
    unet = getattr(getattr(model, "model", None), "diffusion_model", None)
    if unet is None:
        raise TypeError(f"This is not a diffusion model but {type(model).__name__}: connect the MODEL output of a loader.")
    if not isinstance(unet, UNetModel):
        raise ValueError(f"Circulation cannot patch {name(model)} models. Supported: {SUPPORTED}.")
    found = tuple(
        Block(stage, index, layer, block.n_heads, block.d_head)
        for stage, modules in (
            ("input", unet.input_blocks),
            ("middle", [unet.middle_block or ()]),
            ("output", unet.output_blocks),
        )
        for index, module in enumerate(modules)
        for transformer in module
        if isinstance(transformer, SpatialTransformer)
        for layer, block in enumerate(transformer.transformer_blocks)
        if not block.disable_self_attn
    )
    if not found:
        raise ValueError(f"This {name(model)} model has no self-attention to act on. Supported: {SUPPORTED}.")
    return found


def alternates_with_time(model) -> bool:
    """Video UNets: each spatial self-attention is followed by a temporal one under the same address."""
    return any(isinstance(module, SpatialVideoTransformer) for module in model.model.diffusion_model.modules())
