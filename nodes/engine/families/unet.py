"""UNets: Stable Diffusion 1.5, 2.x, SDXL, Stable Video Diffusion and their descendants."""

from torch.nn import Module

from ..phrases import Phrase
from ..rules.blocks import Block
from .class_names import class_names

UNET = "comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel"
SPATIAL_AND_TEMPORAL = "comfy.ldm.modules.attention.SpatialVideoTransformer"
STAGES = ("input", "middle", "output")
TEXT_INSTEAD = Phrase("textInstead")


class UNetFamily:
    """Its self-attentions are over image tokens alone, and patches show their input."""

    shows_input = True

    def attentions(self, network: Module) -> list[tuple[Block, Phrase | None]]:
        """Attentions in execution order, each with the reason why it is left alone if it is."""
        return [
            (Block(stage, index, layer, block.n_heads, block.d_head), TEXT_INSTEAD if block.disable_self_attn else None)
            for stage, modules in zip(STAGES, (network.input_blocks, [network.middle_block or ()], network.output_blocks))
            for index, part in enumerate(modules)
            for transformer in part
            # not told by its class, which other nodes exchange
            for layer, block in enumerate(getattr(transformer, "transformer_blocks", ()))
        ]


def alternates_with_time(network: Module) -> bool:
    """Video UNets: each spatial self-attention is followed by a temporal one under the same address."""
    return any(SPATIAL_AND_TEMPORAL in class_names(type(part)) for part in network.modules())
