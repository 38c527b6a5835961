"""From the measures of all models to tables and a graph, which `python3 -m demo.evidence --models` writes beside the models' folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy
from matplotlib.figure import Figure

from ..evidence import metrics
from ..evidence.judge import IMAGE_CHANGE
from ..evidence.report import COLOURS, MARKERS, estimate, markdown, new_figure, save
from . import analysis, plan
from .plan import Row

SIDES = {"above 1": plan.ABOVE, "below 1": plan.BELOW}
RIVAL = plan.BELOW[-1]  # what guidance from a circulated pass has to beat
BETTER = {"mixture index": -1}  # the other primary measures are the better the larger
PROMPT, _, SPREAD, TYPICALITY = plan.PRIMARY


def write(results: Path) -> None:
    """Tables in Markdown and the graph."""
    models, rows = [results / str(seed) for seed in plan.MODELS], plan.ROWS[1:]
    tables = {
        "primary": primary_table(models), "rows": rows_table(models, rows), "guidance": guidance_table(models, rows),
        "placebo": placebo_table(models, rows),
    }  # fmt: skip
    for name, table in tables.items():
        (results / f"{name}.md").write_text(table, encoding="utf-8")
    save(pareto(models, rows), results / "pareto.png")


def primary_table(models: Sequence[Path]) -> str:
    """The eight primary tests: slopes with strength, by Holm, and what would have been seen in four of five studies."""
    asked = [(measure, side) for measure in plan.PRIMARY for side in SIDES]
    slopes = ([analysis.slope(model, SIDES[side], measure) for model in models] for measure, side in asked)
    effects = [analysis.combined(of_models, len(asked)) for of_models in slopes]
    rows = [
        [measure, side, estimate(effect), f"{effect.p:.3f}", "yes" if shown else "no", f"{effect.smallest:.4f}"]
        for (measure, side), effect, shown in zip(asked, effects, metrics.holm([effect.p for effect in effects]))
    ]
    return markdown(["change for each beta · (alpha − 1)", "side", "slope", "p", "shown, by Holm", "would have been seen"], rows)


def rows_table(models: Sequence[Path], rows: Sequence[Row]) -> str:
    """Of each row how much it changes, how unequally in the models, and its differences from off."""

    def cells(row: Row) -> list[str]:
        doses = numpy.array([analysis.table(model, row.slug)[IMAGE_CHANGE].mean() for model in models])
        shares = [f"{100 * share:.1f}" for share in analysis.changed(models, row)]
        effects = [estimate(analysis.difference(models, row, measure)) for measure in plan.PRIMARY]
        return [row.name, f"{doses.mean():.4f}", f"{100 * doses.std(ddof=1) / doses.mean():.0f} %", *shares, *effects]

    seen = analysis.changed(models, plan.STRONGEST).index
    head = ["", "image change", "its spread over models", *(f"of 100 {what}" for what in seen), *plan.PRIMARY]
    return markdown(head, [cells(row) for row in rows])


def guidance_table(models: Sequence[Path], rows: Sequence[Row]) -> str:
    """Guidance from a circulated or a placebo pass against circulation below 1: four tests each."""
    lines = []
    for row in (row for row in rows if row.group == "guidance"):
        effects = [analysis.difference(models, row, measure, RIVAL) for measure in plan.PRIMARY]
        for measure, effect, shown in zip(plan.PRIMARY, effects, metrics.holm([effect.p for effect in effects])):
            verdict = ("better" if effect.mean * BETTER.get(measure, 1) > 0 else "worse") if shown else "not told apart"
            lines.append([row.name, measure, estimate(effect), f"{effect.p:.3f}", verdict])
    return markdown([f"against {RIVAL.name}", "measure", "difference", "p", "by Holm"], lines)


def placebo_table(models: Sequence[Path], rows: Sequence[Row]) -> str:
    """The mean cosine of a placebo's step with that of circulation, model by model."""

    def cosine(model: Path, row: Row) -> float:
        return json.loads((model / f"{row.slug}.json").read_text(encoding="utf-8"))[plan.COSINE]

    lines = [[row.name, *(f"{cosine(model, row):+.3f}".replace("-", "−") for model in models)] for row in rows if row.placebo]
    return markdown([plan.COSINE, *(f"model {model.name}" for model in models)], lines)


def pareto(models: Sequence[Path], rows: Sequence[Row]) -> Figure:
    """Variety against how well prompts are followed, and against how typical images are: differences from off, upper right is better."""
    figure, axes = new_figure(1, 2, 13, 6)
    groups = list(dict.fromkeys(row.group for row in rows))
    for ax, measure in zip(axes.flat, (PROMPT, TYPICALITY)):
        for row in rows:
            x, y = (analysis.difference(models, row, each) for each in (measure, SPREAD))
            number = groups.index(row.group)
            style = dict(color=COLOURS[number], marker=MARKERS[number], markersize=5, capsize=2, linewidth=0.8)
            ax.errorbar(x.mean, y.mean, xerr=x.half, yerr=y.half, label=row.group, **style)
            ax.annotate(row.name, (x.mean, y.mean), (3, 3), textcoords="offset points", fontsize=7)
        for line in (ax.axvline, ax.axhline):
            line(0, color="0.5", linewidth=0.8)
        ax.set(xlabel=measure, ylabel=SPREAD)
    labelled = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels())))  # one of each group
    figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=len(groups))
    return figure
