"""A MODEL of ComfyUI: its network, and what its family says of it."""

from torch.nn import Module

from .. import families
from ..choices import INPUT_SPACE
from ..families import Family
from ..phrases import Phrase
from ..rules.blocks import Block


def model_name(model) -> str:
    """The family as ComfyUI calls it, such as 'SDXL'."""
    config = getattr(model.model, "model_config", None)
    return type(config if config is not None else model.model).__name__


def diffusion_model(model) -> Module:
    """The network of a MODEL as it was loaded, also while another node has put a wrapper in its place.

    Raises TypeError for something that is not a diffusion model.
    """
    network = getattr(getattr(model, "model", None), "diffusion_model", None)
    if network is None:
        raise TypeError(f"This is not a diffusion model but {type(model).__name__}: connect the MODEL output of a loader.")
    return _as_loaded(model, "diffusion_model", network)


def _as_loaded(model, name: str, now):
    """What an object patch that is in force now has replaced, or else what is there."""
    return (getattr(model, "object_patches_backup", None) or {}).get(name, now)


def family_of(model) -> Family:
    """The family of a MODEL. Raises ValueError that names it and says why if it cannot be patched."""
    cls = _as_loaded(model, "diffusion_model.__class__", type(diffusion_model(model)))
    return families.family_of(cls, model_name(model))


def attentions(model) -> list[tuple[Block, Phrase | None]]:
    """The attentions of a MODEL in execution order, each with the reason why it is left alone if it is."""
    return family_of(model).attentions(diffusion_model(model))


def patchable_blocks(model) -> tuple[Block, ...]:
    """The attentions of a MODEL that can be patched, in execution order.

    Raises TypeError for something that is not a diffusion model, and ValueError that names the
    family for one whose attention cannot be patched.
    """
    blocks = tuple(block for block, left_alone in attentions(model) if not left_alone)
    if not blocks:
        raise ValueError(f"This {model_name(model)} model has no self-attention to act on. Supported: {families.SUPPORTED}.")
    return blocks


def check_space(model, input: str, space: str) -> None:
    """Raise ValueError where a node's input asks for the input space of a family that does not show it."""
    if space == INPUT_SPACE and not family_of(model).shows_input:
        raise ValueError(
            f"{input} is '{INPUT_SPACE}', but {model_name(model)} models do not show what goes into their attention: choose 'value space'."
        )
