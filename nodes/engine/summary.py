"""A record in words."""

from __future__ import annotations

import torch

from .record import AXIS_BRANCHES, Record, RunRecord
from .stability import MEASURES


def summary(record: Record) -> str:
    return "\n\n".join(_run(number, run) for number, run in enumerate(record.runs, 1))


def _run(number: int, run: RunRecord) -> str:
    info, values = run.info, run.values
    evaluations, blocks, images = values.shape[1], values.shape[2], values.shape[4]
    measured = [name for b, name in enumerate(AXIS_BRANCHES) if values[:, :, :, b].isfinite().any()]
    lines = [
        f"Run {number}{f' ({info.label})' if info.label else ''}: {info.family}, {info.sampler}, {info.steps} steps"
        + ("" if info.complete else ", stopped early"),
        f"Circulation: {'; '.join(info.rules) or 'none'}",
        f"Measured in {info.space}: {evaluations} model evaluations, {blocks} blocks, {images} images, "
        f"{' and '.join(measured) or 'no branch'}",
        "",
        "stage".ljust(12) + "".join(name.rjust(13) for name in MEASURES),
    ]
    for stage, positions in {**run.stages(), "all": list(range(blocks))}.items():
        means = values[:, :, positions].flatten(1).nanmean(dim=1) if values.numel() else torch.full((len(MEASURES),), torch.nan)
        lines.append(stage.ljust(12) + "".join(f"{mean:.4g}".rjust(13) for mean in means.tolist()))
    return "\n".join([*lines, *(["", *info.notes] if info.notes else [])])
