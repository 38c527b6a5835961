"""Held-out avatars, what they are used for, and where files lie."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy

from .. import DEMO
from ..avatars.factors import FACTORS
from .plan import PER_PROMPT, REFERENCE, Setting

MODEL = DEMO / "model"
STYLES = ("hair style", "eyes", "mouth shape", "clothes cut")  # what no prompt names
# Positions among the 8,000 held-out images; no two uses share any.
REAL = slice(0, REFERENCE)
OTHER_REAL = slice(2000, 3500)
PROMPTS = slice(4000, 4600)  # 200 for each set of seeds
MODEL_PROMPTS = slice(4600, 5700)
CONTROLS = slice(5700, 8000)
PROMPTS_PER_SET = 200


@dataclass(frozen=True)
class Avatars:
    images: numpy.ndarray  # (N, 16, 16, 3) uint8
    factors: numpy.ndarray  # (N, 9) positions of values in FACTORS
    styles: numpy.ndarray  # (N, 4)

    def __getitem__(self, chosen) -> Avatars:
        return Avatars(self.images[chosen], self.factors[chosen], self.styles[chosen])


@cache
def avatars(name: str) -> Avatars:
    """`train` or `held_out`."""
    with numpy.load(MODEL / f"{name}.npz") as arrays:
        return Avatars(*(arrays[key] for key in ("images", "factors", "styles")))


def prompts(seed_set: int, count: int) -> numpy.ndarray:
    """(count, 9) factors of held-out avatars, so that what is asked for is distributed as the real images are."""
    first = PROMPTS.start + seed_set * PROMPTS_PER_SET
    return avatars("held_out").factors[first : first + count].astype(int)


def seeds(seed_set: int, count: int) -> numpy.ndarray:
    """(count × PER_PROMPT,) one for each image."""
    return 1_000_000 * (seed_set + 1) + numpy.arange(count * PER_PROMPT)


def file_of(folder: Path, setting: Setting, seed_set: int) -> Path:
    return folder / f"{re.sub(r'[^a-z0-9.]+', '-', setting.name)}.{seed_set}.npz"


def factor_names() -> list[str]:
    return [factor.name for factor in FACTORS]
