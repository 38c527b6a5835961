"""`python3 -m demo.evidence --doses`: how far each of the other knobs must be turned to change images as much as alpha 1.2, beta 5 does.

On 84 images of the model in the box. What it prints is written into `plan`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from .. import inprocess  # noqa: F401  ComfyUI first
from ..avatars.loader import FILE
from ..evidence import metrics
from ..evidence import sampling as workers
from . import knobs, plan, sampling
from .plan import Row

PROMPTS = 21
ROUNDS = 4


def row(change: knobs.Change) -> Row:
    return Row("dose", change, sets=1)


# Of each knob the row at a value, the value that does nothing, one to begin with and the most that is tried.
KNOBS: dict[str, tuple[Callable[[float], Row], float, float, float]] = {
    "sharper": (lambda factor: row(knobs.temperature(factor)), 1.0, 1.4, 3.0),
    "flatter": (lambda factor: row(knobs.temperature(factor)), 1.0, 0.75, 0.1),
    "interval": (lambda scale: Row("dose", knobs.guided_from(scale, *plan.INTERVAL), sets=1, cfg=scale), 1.0, 3.5, 12.0),
    "SDE": (lambda eta: Row("dose", sets=1, sampler="dpmpp_2m_sde", sampler_options={"eta": eta}), 0.0, 0.2, 1.0),
    "PAG": (lambda scale: row(knobs.perturbed_attention(scale)), 0.0, 30.0, 100.0),
    "CADS": (lambda strength: row(knobs.annealed_condition(strength)), 0.0, 0.25, 1.0),
    "SEG": (lambda scale: row(knobs.smoothed_energy(scale)), 0.0, 30.0, 100.0),
    "SAG": (lambda scale: row(knobs.self_attention_guidance(scale)), 0.0, 1.0, 5.0),
    "FreeU": (lambda backbone: row(knobs.free_u(backbone, 2 - backbone)), 1.0, 1.4, 2.0),
    "equalised, above": (lambda spread: row(knobs.equalised(spread)), 0.0, 0.2, 3.0),
    "equalised, below": (lambda spread: row(knobs.equalised(spread)), 0.0, -0.2, -3.0),
}


def image_change(row: Row) -> float:
    """The mean over 84 images of the model in the box, of full range, without the noise of bfloat16."""
    asked, drawn = sampling.asked(0, PROMPTS)
    rows = (replace(each, dtype=torch.float32) for each in (row, plan.OFF))
    return float(metrics.image_change(*(sampling.sampled(FILE, each, asked, drawn) for each in rows)).mean())


def find(target: float, knob: Callable[[float], Row], nothing: float, value: float, most: float) -> tuple[float, float]:
    """The value of a knob whose dose is nearest to the target, and its dose, which grows about evenly from the value that does nothing."""
    tried = {value: image_change(knob(value))}
    while len(tried) < ROUNDS and abs(tried[value] / target - 1) > 0.04:
        factor = min(4.0, target / max(tried[value], 1e-4))
        value = nothing + (value - nothing) * factor
        value = math.copysign(min(abs(value - nothing), abs(most - nothing)), most - nothing) + nothing
        value = float(f"{value:.3g}")
        if value in tried:
            break
        tried[value] = image_change(knob(value))
    return min(tried.items(), key=lambda pair: abs(pair[1] - target))


def main() -> None:
    """On one thread, so that the last digit does not depend on the machine's cores."""
    workers.start(1)
    target = image_change(plan.STRONGEST)
    print(f"{plan.STRONGEST.name}: {target:.4f}", flush=True)
    for name, knob in KNOBS.items():
        value, dose = find(target, *knob)
        print(f"{name}: {value:g} gives {dose:.4f}", flush=True)


if __name__ == "__main__":
    main()
