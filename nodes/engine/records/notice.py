"""A few words in the place of a figure. Drawn with Pillow, which ComfyUI needs itself."""

import textwrap

import numpy
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..text import ascii_line


def notice(text: str) -> Tensor:
    """(1, height, 1024, 3) in 0 to 1, as ComfyUI's images are."""
    try:
        font = ImageFont.load_default(22)
    except (TypeError, OSError):  # before Pillow 10.1, or without FreeType
        font = ImageFont.load_default()
    lines = textwrap.wrap(ascii_line(text), 84)
    image = Image.new("RGB", (1024, 80 + 32 * len(lines)), "white")
    ImageDraw.Draw(image).multiline_text((40, 40), "\n".join(lines), fill="black", font=font, spacing=8)
    return torch.from_numpy(numpy.array(image)[None]).float().div_(255)
