"""A record in words, as Markdown."""

from collections.abc import Sequence

from ..choices import MEASURES
from .record import ALL_STEPS, AXIS_BRANCHES, AttentionChange, Record, RunRecord


def to_markdown(record: Record) -> str:
    """Paragraphs and a table for each run."""
    return "\n\n".join(_run(number, run) for number, run in enumerate(record.runs, 1))


def _run(number: int, run: RunRecord) -> str:
    info, values = run.info, run.values
    evaluations, blocks, images = values.shape[1], values.shape[2], values.shape[4]
    measured = [name for b, name in enumerate(AXIS_BRANCHES) if values[:, :, :, b].isfinite().any()]
    branches = " and ".join(measured) or "no branch"
    change = None if info.attention_change is None else AttentionChange(info.attention_change, info.attention_change_in or ALL_STEPS)
    paragraphs = [
        f"Run {number}{f' ({info.label})' if info.label else ''}: {info.family}, {info.sampler}, {info.steps} steps"
        + ("" if info.complete else ", stopped early"),
        f"Circulation: {'; '.join(info.rules) or 'none'}",
        *([] if change is None else [change.sentence]),
        f"Measured in {info.space}: {evaluations} model evaluations, {blocks} blocks, {images} images, {branches}",
        _table(run) if measured else "Nothing was measured in this run.",
        *info.notes,
    ]
    return "\n\n".join(paragraphs)


def _table(run: RunRecord) -> str:
    """Means by stage, in Markdown, aligned for those who read it as it is."""
    values = run.values
    lines = [_row("stage", MEASURES), _row("---", ["---:"] * len(MEASURES))]
    for stage, positions in {**run.stages(), "all": list(range(values.shape[2]))}.items():
        means = values[:, :, positions].flatten(1).nanmean(dim=1)
        lines.append(_row(stage, [f"{mean:.4g}" for mean in means.tolist()]))
    return "\n".join(lines)


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name:8} | {' | '.join(f'{cell:>11}' for cell in cells)} |"
