"""What the browser draws of a run: means by stage at each step, small enough for an event and for ComfyUI's history."""

import math

from torch import Tensor

from ..choices import MEASURES
from .record import RunRecord

MAX_POINTS = 256
EMPTY = {"steps": 0, "measures": list(MEASURES), "points": []}


def point(values: Tensor, stages: dict[str, list[int]], step: float, sigma: float) -> dict:
    """One measured step. `values` is (measure, block, branch, image); None stands for what is not a number."""
    means = {stage: values[:, positions].flatten(1).nanmean(dim=1).tolist() for stage, positions in stages.items()}
    return {
        "step": math.floor(step) + 1,
        "sigma": _short(sigma),
        "stages": {stage: [_short(mean) for mean in row] for stage, row in means.items()},
    }


def chart_data(run: RunRecord) -> dict:
    """Chart data of a run: the first evaluation of each step, thinned evenly to at most 256 points."""
    first = {math.floor(step): evaluation for evaluation, step in reversed(list(enumerate(run.step.tolist()))) if math.isfinite(step)}
    evaluations = [first[step] for step in sorted(first)]
    every = math.ceil(len(evaluations) / MAX_POINTS) or 1
    stages = run.stages()
    points = [point(run.values[:, e], stages, float(run.step[e]), float(run.sigma[e])) for e in evaluations[::every]]
    return {"steps": run.info.steps, "measures": list(MEASURES), "points": points}


def _short(mean: float) -> float | None:
    return float(f"{mean:.6g}") if math.isfinite(mean) else None
