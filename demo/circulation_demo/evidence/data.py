"""Held-out avatars, what they are used for, and where files lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy

from .. import DEMO
from ..avatars.factors import FACTORS
from ..digest import digest
from .plan import PER_PROMPT, PREDICTION, REFERENCE, Setting, Size

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


def model_prompts(count: int) -> numpy.ndarray:
    """(count, 9), others than those of `prompts`."""
    return avatars("held_out").factors[MODEL_PROMPTS][:count].astype(int)


def seeds(seed_set: int, count: int) -> numpy.ndarray:
    """(count × PER_PROMPT,) one for each image."""
    return 1_000_000 * (seed_set + 1) + numpy.arange(count * PER_PROMPT)


@dataclass(frozen=True)
class Samples:
    """Where what is sampled lies: in a folder for its conditions (`sampling.conditions`), under a digest of settings, prompts and seeds."""

    folder: Path
    size: Size

    def of(self, setting: Setting) -> list[Path]:
        """A file for each set of seeds."""
        count = self.size.prompts_of(setting)
        return [self._path(setting.node, setting.inputs, prompts(s, count), seeds(s, count)) for s in range(self.size.sets_of(setting))]

    @property
    def of_the_model(self) -> Path:
        """The baseline on `Size.model_prompts` prompts, one image each."""
        return self._path("model", model_prompts(self.size.model_prompts))

    @property
    def predictions(self) -> Path:
        count = self.size.prediction_images
        return self._path([(s.name, s.node, s.inputs) for s in PREDICTION], prompts(0, count), seeds(0, count))

    def _path(self, *parts) -> Path:
        return self.folder / f"{digest(*parts)}.npz"


def factor_names() -> list[str]:
    return [factor.name for factor in FACTORS]
