"""What is asked of five models, with which rows, measures and tests. It is committed before any image of these models is made.

Models   five of the avatar model's architecture, trained alike from five seeds for fewer steps than the one in the box, which is
         not among them, because the questions came from looking at it. A model is the unit: 504 images of one model are one observation.
Images   the same prompts and seeds for all rows and models: 63 prompts in each of two sets of seeds, four images of each prompt; half
         of them for the knobs that ComfyUI's users have already. A row is compared with the same images without it. The UNet
         calculates in bfloat16, as the models that most people run do; one row, `off, in float32`, shows what that alone changes.
         PAG and SEG need scales that would multiply its rounding into a dose of its own: they are in float32.
         (Before the first image the plan said float32, which takes almost twice as long on CPUs that have bfloat16.)
Dose     the mean change of an image (root of the mean square of its pixels' differences, of full range). Other knobs are set to the
         dose of alpha 1.2, beta 5, found on 84 images of the model in the box (`doses`), or to the most that they can give; what CFG
         scales and the node's defaults give is taken as it is.

Primary measures, each the mean over a model's images
    prompt      share of prompted factors that the classifier sees
    mixture     how unsure the classifier is of factors and styles
    spread      distance between the images of one prompt, in the classifier's space
    typicality  density in pixels: in how many of the neighbourhoods of real images an image lies
Primary tests: their slopes with strength, beta · (alpha − 1), through zero, above 1 (`ABOVE`) and below it (`BELOW`): eight, by Holm
at 5 %. Means and intervals are by random effects over models (Hartung and Knapp): of the mean over models of the kind.
All else is description, without a claim of significance.
Models that are good enough: before any row, images without a knob must show nine in ten of what was asked (`GOOD_ENOUGH`); otherwise
all five learn for 3,200 steps. (The plan said 3,200 at first, then 2,000, and 1,200 before the first model was trained, since five models
that are there show more than five better ones that nobody has the hours for.)

Decided by these results
    a node for guidance   only if it beats alpha 0.8, beta 5 on two primary measures by Holm of four tests, and is worse on none
    equalised strength    only if the image change at one setting then varies less between models, and the change of attention less
                          between blocks, than with alpha
    placebo               its step must have no component along that of circulation: mean cosine within 0.02 of zero
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import torch

from ..evidence.plan import CFG, PER_PROMPT, SAMPLER
from . import knobs
from .knobs import Attention, Change, Placebo

MODELS = (1, 2, 3, 4, 5)  # seeds of training
TRAINING_STEPS = 1200
GOOD_ENOUGH = 0.9  # of prompted factors that the classifier sees, with no knob
PROMPTS = 63  # in each set of seeds
SETS = 2
INTERVAL = (3, 9)  # of the steps, from before one to before the other: where guidance in an interval is on
COSINE = "cosine with circulation"  # of a placebo's step, in its results
PRIMARY = ("prompt recognised", "mixture index", "spread, classifier", "realism, pixels")


@dataclass(frozen=True)
class Row:
    """One way to sample. `strength` is given where it is asked about."""

    name: str
    change: Change = knobs.unchanged
    group: str = "ours"
    sets: int = SETS
    cfg: float = CFG
    sampler: str = SAMPLER
    sampler_options: dict[str, Any] = field(default_factory=dict)
    strength: float | None = None  # beta · (alpha − 1)
    placebo: Placebo | None = None
    dtype: torch.dtype = torch.bfloat16

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-")

    @property
    def images(self) -> int:
        return self.sets * PROMPTS * PER_PROMPT


def static(alpha: float, beta: float, **options) -> Row:
    return Row(f"alpha {alpha:g}, beta {beta:g}", knobs.circulation(alpha=alpha, beta=beta), strength=beta * (alpha - 1), **options)


def one_pass(alpha: float, beta: float) -> Row:
    return Row(f"one pass: alpha {alpha:g}, beta {beta:g}", knobs.circulation(alpha=alpha, beta=beta, method="one pass"))


OFF = Row("off", group="baseline")
ROUNDING = Row("off, in float32", group="rounding", sets=1, dtype=torch.float32)
ABOVE = (static(1.05, 3), static(1.2, 3), static(1.2, 5))
BELOW = (static(0.95, 3), static(0.8, 3), static(0.8, 5))
STRONGEST = ABOVE[-1]
ONE_PASS = (one_pass(1.2, 5), one_pass(0.8, 5))
ADAPTIVE = Row("adaptive: alpha 1.2, beta 5", knobs.adaptive(alpha=1.2, beta=5.0))


def placebo(draw: int, alpha: float, beta: float) -> Row:
    step = Placebo(draw)
    return Row(f"placebo {draw}: alpha {alpha:g}, beta {beta:g}", step.circulation(alpha, beta), group="placebo", sets=1, placebo=step)


def placebo_guidance(alpha: float, scale: float) -> Row:
    step = Placebo(1)
    return Row(f"guidance from a placebo of alpha {alpha:g}", step.guidance(alpha, scale), group="guidance", placebo=step)


PLACEBO = tuple(placebo(draw, alpha, 5) for draw in (1, 2, 3) for alpha in (1.2, 0.8))
GUIDANCE = (Row("guidance from alpha 2", knobs.circulated_guidance(2.0, 1.5), group="guidance"), placebo_guidance(2.0, 1.5))


def knob(name: str, change: Change = knobs.unchanged, **options) -> Row:
    return Row(name, change, group="knob", sets=1, **options)


# At the values that `doses` found, with the dose that each has on the model in the box, where that of alpha 1.2, beta 5 is 0.0576.
KNOBS = (
    *(knob(f"CFG {scale:g}", cfg=scale) for scale in (1.0, 2.0, 3.0)),
    knob("CFG 3.9 in an interval", knobs.guided_from(3.9, *INTERVAL), cfg=3.9),  # 0.0580
    knob("sharper attention: 1.4", knobs.temperature(1.4)),  # 0.0557
    knob("flatter attention: 0.72", knobs.temperature(0.72)),  # 0.0594
    knob("SDE noise: 0.0456", sampler="dpmpp_2m_sde", sampler_options={"eta": 0.0456}),  # 0.0714, the nearest of four
    knob("PAG 75", knobs.perturbed_attention(75.0), dtype=torch.float32),  # 0.0515, the nearest of four
)
EQUALISED = (
    knob("equalised, above: 0.38", knobs.equalised(0.38)),  # 0.0559
    knob("equalised, below: 0.371", knobs.equalised(-0.371)),  # 0.0571
)
# What they are compared with, block by block: one number for all of them.
COMPARED: dict[str, Attention] = {
    ONE_PASS[0].name: knobs.with_alpha(2.0),
    EQUALISED[0].name: knobs.equal_spread(0.38),
    ONE_PASS[1].name: knobs.with_alpha(0.0),
    EQUALISED[1].name: knobs.equal_spread(-0.371),
}
# Planned for hours that were not there: their doses are found, no model has sampled them.
LATER = (
    knob("CADS 0.197", knobs.annealed_condition(0.197)),  # 0.0605, the nearest of four
    knob("SEG 100", knobs.smoothed_energy(100.0), dtype=torch.float32),  # 0.0286, the most that it gives
    knob("SAG 1.48", knobs.self_attention_guidance(1.48)),  # 0.0555
    knob("FreeU 1.73", knobs.free_u(1.73, 0.27)),  # 0.0598
)
ROWS = (OFF, *ABOVE, *BELOW, *PLACEBO, *GUIDANCE, *ONE_PASS, ADAPTIVE, *KNOBS, *EQUALISED, ROUNDING)
