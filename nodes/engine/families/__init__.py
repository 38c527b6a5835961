"""What each model family consists of: where its attentions over the image are, and which tokens are the image.

A network is told by the name of its class. UNets are one family; the transformers are the rows of `table`.
"""

from .class_names import class_names
from .table import REFUSED, TRANSFORMERS
from .transformer import TransformerFamily
from .unet import UNET, UNetFamily

UNETS = "Stable Diffusion 1.5, 2.x, SDXL and its relatives (refiner, SSD-1B, Segmind Vega, KOALA), Stable Video Diffusion"
SUPPORTED = ", ".join((UNETS, *dict.fromkeys(family.label for family in TRANSFORMERS.values())))

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
