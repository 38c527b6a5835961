"""UNets: Stable Diffusion 1.5, 2.x, SDXL, Stable Video Diffusion and what was made of them."""

from __future__ import annotations

from comfy.ldm.modules.attention import SpatialTransformer, SpatialVideoTransformer
from torch.nn import Module

from ..blocks import Block

TEXT_INSTEAD = "attends to the text in place of the image"


class UNet:
    """Its self-attentions are over image tokens alone, and patches show their input."""

    shows_input = True

    def survey(self, module: Module) -> list[tuple[Block, str | None]]:
        """Attentions in execution order, each with the reason why it is left alone if it is."""
        return [
            (Block(stage, index, layer, block.n_heads, block.d_head), TEXT_INSTEAD if block.disable_self_attn else None)
            for stage, modules in (
                ("input", module.input_blocks),
                ("middle", [module.middle_block or ()]),
                ("output", module.output_blocks),
            )
            for index, part in enumerate(modules)
            for transformer in part
            if isinstance(transformer, SpatialTransformer)
            for layer, block in enumerate(transformer.transformer_blocks)
        ]


def alternates_with_time(module: Module) -> bool:
    """Video UNets: each spatial self-attention is followed by a temporal one under the same address."""
    return any(isinstance(part, SpatialVideoTransformer) for part in module.modules())
