"""How much the images of a setting differ from the baseline's, each from the one in the same place of the batch.

Images are read some rows at a time: a copy of one can be larger than the sheet that it goes onto.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from .diversity import SIDE

VISIBLE = 0.05  # root mean square difference, where the range of a pixel is 1
ROWS = 64  # of an image that are read at a time


def picture(image: Tensor) -> Tensor:
    """An image (height, width, channels) as (height, width, 3) in 0…1, on the CPU in float32, as ComfyUI's Save Image shows it."""
    image = image.detach()[..., :3].cpu().float().nan_to_num(nan=0.0).clamp_(0, 1)
    return image if image.shape[-1] == 3 else image[..., :1].expand(-1, -1, 3)


def changes(images: Sequence[Tensor], baseline: Tensor) -> list[float | None]:
    """Root mean square difference of each image (height, width, channels) from the baseline; None where their sizes differ."""
    sums = [0.0 if image.shape[:2] == baseline.shape[:2] else None for image in images]
    for rows in _parts(len(baseline)):
        first = picture(baseline[rows])
        for number, image in enumerate(images):
            so_far = sums[number]
            if so_far is not None:
                sums[number] = so_far + float((picture(image[rows]) - first).square_().sum(dtype=torch.float64))
    count = 3 * baseline.shape[0] * baseline.shape[1]
    return [None if total is None else (total / count) ** 0.5 for total in sums]


def small(image: Tensor) -> Tensor:
    """(3, 64, 64) of an image (height, width, channels): means over areas."""
    height = len(image)
    areas = (image[row * height // SIDE : -(-(row + 1) * height // SIDE)] for row in range(SIDE))
    return torch.cat([adaptive_avg_pool2d(picture(area).movedim(-1, 0), (1, SIDE)) for area in areas], dim=1)


def in_bytes(image: Tensor) -> numpy.ndarray:
    """(height, width, 3) of an image (height, width, channels), in 0 to 255."""
    return numpy.concatenate([picture(image[rows]).mul(255).round_().byte().numpy() for rows in _parts(len(image))])


def _parts(height: int) -> Iterator[slice]:
    return (slice(top, top + ROWS) for top in range(0, height, ROWS))
