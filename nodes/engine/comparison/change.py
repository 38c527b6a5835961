"""How much the images of a setting differ from the baseline's, each from the one in the same place of the batch."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate

from .diversity import SIDE

VISIBLE = 0.05  # root mean square difference, where the range of a pixel is 1


def picture(image: Tensor) -> Tensor:
    """An image (height, width, channels) as (height, width, 3) in 0…1, on the CPU in float32, as ComfyUI's Save Image shows it."""
    image = image.detach()[..., :3].cpu().float().nan_to_num(nan=0.0).clamp_(0, 1)
    return image if image.shape[-1] == 3 else image[..., :1].expand(-1, -1, 3)


def change(image: Tensor, baseline: Tensor) -> float | None:
    """Root mean square difference of two images (height, width, 3) in 0…1; None where their sizes differ."""
    if image.shape != baseline.shape:
        return None
    return float((image - baseline).square_().mean().sqrt())


def small(image: Tensor) -> Tensor:
    """(3, 64, 64) of an image (height, width, 3): means over areas."""
    return interpolate(image.movedim(-1, 0)[None], size=(SIDE, SIDE), mode="area")[0]
