"""What the browser draws of a run: means by stage at each step, small enough for an event and for ComfyUI's history."""

from __future__ import annotations

import math

from torch import Tensor

from .record import RunRecord
from .stability import MEASURES

MOST_POINTS = 256


def point(values: Tensor, stages: dict[str, list[int]], step: float, sigma: float) -> dict:
    """One measured step. `values` is (measure, block, branch, image); None stands for what is not a number."""
    means = {stage: values[:, positions].flatten(1).nanmean(dim=1).tolist() for stage, positions in stages.items()}
    return {
        "step": math.floor(step) + 1,
        "sigma": sigma,
        "stages": {stage: [_short(mean) for mean in row] for stage, row in means.items()},
    }


def chart(run: RunRecord) -> dict:
    """The points of a run as its probe told them: of each step the first evaluation. Of a long run, evenly fewer."""
    first = {math.floor(step): evaluation for evaluation, step in reversed(list(enumerate(run.step.tolist())))}
    evaluations = [first[step] for step in sorted(first)]
    every = math.ceil(len(evaluations) / MOST_POINTS) or 1
    stages = run.stages()
    points = [point(run.values[:, e], stages, float(run.step[e]), float(run.sigma[e])) for e in evaluations[::every]]
    return {"steps": run.info.steps, "measures": list(MEASURES), "points": points}


def _short(mean: float) -> float | None:
    return float(f"{mean:.6g}") if math.isfinite(mean) else None
