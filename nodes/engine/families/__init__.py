"""What each model family consists of: where its attentions over the image are, and which tokens are the image.

A network is told by the name of its class. UNets are one family; the transformers are the rows of `table`.
"""

from ..rules.blocks import Selection
from ..text import meant, shown
from .class_names import class_names
from .table import REFUSED, TRANSFORMERS
from .transformer import TransformerFamily
from .unet import STAGES, UNET, UNetFamily

UNETS = "Stable Diffusion 1.5, 2.x, SDXL and its relatives (refiner, SSD-1B, Segmind Vega, KOALA), Stable Video Diffusion"
SUPPORTED = ", ".join((UNETS, *dict.fromkeys(family.label for family in TRANSFORMERS.values())))
WORDS = tuple(dict.fromkeys((*STAGES, *(stage.name for family in TRANSFORMERS.values() for stage in family.stages))))

Family = UNetFamily | TransformerFamily


def family_of(cls: type, name: str) -> Family:
    """The family of a network by its class; the user knows it by `name`. Raises ValueError that says why if it cannot be patched."""
    names = class_names(cls)
    if UNET in names:
        return UNetFamily()
    for path in names:
        if path in TRANSFORMERS:
            return TRANSFORMERS[path]
        if path in REFUSED:
            raise ValueError(f"Circulation cannot patch {name} models: {REFUSED[path].reason}. Supported: {SUPPORTED}.")
    raise ValueError(f"Circulation does not know {name} models whose network is a {cls.__name__}. Supported: {SUPPORTED}.")


def check_blocks(text: str) -> None:
    """Raise ValueError that names what is wrong with a selection of blocks whatever the model: its grammar, or a word of no family."""
    for item in Selection.parse(text).items:
        if item.stage is not None and item.stage not in WORDS:
            hint = meant(item.stage, ("all", *WORDS)) or f" Names are {', '.join(WORDS)}. List Model Blocks says which a model has."
            raise ValueError(f"'{shown(item)}': no model has blocks of this name.{hint}")
