"""What each model family tells us: where its attentions over the image are, and which tokens are the image.

UNets are one family; the transformers are the rows of `table`. A family that is in neither is refused by name.
"""

from __future__ import annotations

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch.nn import Module

from ..blocks import Block
from ..circulation import INPUT_SPACE
from .table import REFUSED, TRANSFORMERS
from .transformer import Transformer
from .unet import UNet, alternates_with_time

UNETS = "Stable Diffusion 1.5, 2.x, SDXL and its relatives (refiner, SSD-1B, Segmind Vega, KOALA), Stable Video Diffusion"
SUPPORTED = ", ".join((UNETS, *dict.fromkeys(family.label for family in TRANSFORMERS.values())))

Family = UNet | Transformer


def name(model) -> str:
    """The family as ComfyUI calls it, such as 'SDXL'."""
    config = getattr(model.model, "model_config", None)
    return type(config if config is not None else model.model).__name__


def network(model) -> Module:
    """What a MODEL samples with. Raises TypeError for something that is not a diffusion model."""
    module = getattr(getattr(model, "model", None), "diffusion_model", None)
    if module is None:
        raise TypeError(f"This is not a diffusion model but {type(model).__name__}: connect the MODEL output of a loader.")
    return module


def find(model) -> Family:
    """The family of a MODEL. Raises ValueError that names it and says why if it cannot be patched."""
    module = network(model)
    if isinstance(module, UNetModel):
        return UNet()
    for cls in type(module).__mro__:
        path = f"{cls.__module__}.{cls.__qualname__}"
        if path in TRANSFORMERS:
            return TRANSFORMERS[path]
        if path in REFUSED:
            raise ValueError(f"Circulation cannot patch {name(model)} models: {REFUSED[path]}. Supported: {SUPPORTED}.")
    raise ValueError(f"Circulation does not know {name(model)} models. Supported: {SUPPORTED}.")


def survey(model) -> list[tuple[Block, str | None]]:
    """The attentions of a MODEL in execution order, each with the reason why it is left alone if it is."""
    return find(model).survey(network(model))


def blocks(model) -> tuple[Block, ...]:
    """The attentions of a MODEL that can be patched, in execution order.

    Raises TypeError for something that is not a diffusion model, and ValueError that names the
    family for one whose attention cannot be patched.
    """
    found = tuple(block for block, left_alone in survey(model) if not left_alone)
    if not found:
        raise ValueError(f"This {name(model)} model has no self-attention to act on. Supported: {SUPPORTED}.")
    return found


def check_space(model, input: str, space: str) -> None:
    """Raises ValueError where a node's input asks for the input space of a family that does not show it."""
    if space == INPUT_SPACE and not find(model).shows_input:
        raise ValueError(
            f"{input} is '{INPUT_SPACE}', but {name(model)} models do not show what goes into their attention: choose 'value space'."
        )
