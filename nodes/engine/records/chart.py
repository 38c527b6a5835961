"""What the browser draws of a run: at each step means by stage and one measure by block, small enough for events and ComfyUI's history."""

import math
from collections.abc import Sequence

from torch import Tensor

from ..choices import MEASURES
from .record import RunRecord

MAX_POINTS = 256
EMPTY = {"steps": 0, "measures": list(MEASURES), "points": []}
BY_BLOCK = "instability"  # a share of tokens, so that one scale fits every block


def point(values: Tensor, stages: dict[str, list[int]], step: float, sigma: float) -> dict:
    """One measured step. `values` is (measure, block, branch, image); None stands for what is not a number."""
    means = {stage: values[:, positions].flatten(1).nanmean(dim=1).tolist() for stage, positions in stages.items()}
    return {
        "step": math.floor(step) + 1,
        "sigma": _short(sigma),
        "stages": {stage: [_short(mean) for mean in row] for stage, row in means.items()},
    }


def by_block(values: Tensor, probed: Sequence[str], blocks: Sequence[str], percent: float) -> dict:
    """Further of that step: how unsettled each of the model's `blocks` is, and where in the sampling it lies, from 0 to 1."""
    means = dict(zip(probed, values[MEASURES.index(BY_BLOCK)].flatten(1).nanmean(dim=1).tolist()))
    return {"percent": _short(percent), "unsettled": [_short(means.get(block, math.nan), 3) for block in blocks]}


def chart_data(run: RunRecord) -> dict:
    """Chart data of a run: the first evaluation of each step, thinned evenly to at most 256 points."""
    first = {math.floor(step): evaluation for evaluation, step in reversed(list(enumerate(run.step.tolist()))) if math.isfinite(step)}
    evaluations = [first[step] for step in sorted(first)]
    every = math.ceil(len(evaluations) / MAX_POINTS) or 1
    stages = run.stages()
    shown = evaluations[::every]
    points = [point(run.values[:, e], stages, float(run.step[e]), float(run.sigma[e])) for e in shown]
    data = {"steps": run.info.steps, "measures": list(MEASURES), "points": points}
    if run.percent is None or run.info.model_blocks is None:
        return data
    for values, e in zip(points, shown):
        values.update(by_block(run.values[:, e], run.info.blocks, run.info.model_blocks, float(run.percent[e])))
    return {**data, "blocks": list(run.info.model_blocks)}


def _short(mean: float, digits: int = 6) -> float | None:
    return float(f"{mean:.{digits}g}") if math.isfinite(mean) else None
