"""From the measures of all models to tables and a graph, which `python3 -m demo.evidence --models` writes beside the models' folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy
from matplotlib.figure import Figure

from ..evidence import metrics
from ..evidence.evaluate import Z
from ..evidence.report import COLOURS, MARKERS, estimate, markdown, new_figure, save
from . import analysis, plan
from .plan import Row

SIDES = {"above 1": plan.ABOVE, "below 1": plan.BELOW}
RIVAL = plan.BELOW[-1]  # what guidance from a circulated pass has to beat
BETTER = {"mixture index": -1}  # the other primary measures are the better the larger
PROMPT, _, SPREAD, TYPICALITY = plan.PRIMARY
# What the page shows, as it was chosen before there were results; the placebo's three draws are one line.
BESIDE = {
    plan.STRONGEST.name: [plan.STRONGEST],
    RIVAL.name: [RIVAL],
    "placebo of alpha 1.2": [row for row in plan.PLACEBO if "1.2" in row.name],
    plan.GUIDANCE[0].name: [plan.GUIDANCE[0]],
    **{row.name: [row] for row in plan.KNOBS if row.name.startswith(("CFG 3.9", "sharper", "SDE", "PAG"))},
}
FURTHER = {  # in the graph
    "placebo of alpha 0.8": [row for row in plan.PLACEBO if "0.8" in row.name],
    **{row.name: [row] for row in (plan.GUIDANCE[1], *plan.KNOBS) if row.name not in BESIDE},
}


def write(results: Path) -> None:
    """Tables in Markdown and the graphs, of the models that are there and the rows that all of them have."""
    models = models_of(results)
    rows = [row for row in plan.ROWS[1:] if all((model / f"{row.slug}.csv").exists() for model in models)]
    tables = {
        "primary": primary_table(models), "knobs": knobs_table(models, rows), "rows": rows_table(models, rows),
        "guidance": guidance_table(models, rows), "placebo": placebo_table(models, rows), "equalised": equalised_table(models),
    }  # fmt: skip
    for name, table in tables.items():
        (results / f"{name}.md").write_text(table, encoding="utf-8")
    save(pareto(models, rows), results / "pareto.png")
    save(each_model(models), results / "models.png")


def models_of(results: Path) -> list[Path]:
    return [folder for seed in plan.MODELS if (folder := results / str(seed)).exists()]


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


def knobs_table(models: Sequence[Path], rows: Sequence[Row]) -> str:
    """What a user asks: other knobs beside this one, at about the same change of an image, in percent of the values without a knob."""

    def cells(name: str, chosen: Sequence[Row]) -> list[str]:
        return [name, f"{analysis.dose(models, chosen).mean():.3f}", *(percent(models, chosen, measure) for measure in plan.PRIMARY)]

    shown = {name: chosen for name, chosen in BESIDE.items() if all(row in rows for row in chosen)}
    return markdown(["difference from off, %", "image change", *plan.PRIMARY], [cells(*each) for each in shown.items()])


def percent(models: Sequence[Path], rows: Sequence[Row], measure: str) -> str:
    effect, of_off = analysis.difference(models, rows, measure), analysis.without_a_knob(models, measure)
    return f"{100 * effect.mean / of_off:+.2f} ± {100 * effect.half / of_off:.2f}".replace("-", "−")


def unequal(values: numpy.ndarray) -> str:
    """The standard deviation, of the mean."""
    return f"{100 * values.std(ddof=1) / values.mean():.0f} %"


def rows_table(models: Sequence[Path], rows: Sequence[Row]) -> str:
    """Of each row how much it changes, how unequally in the models, and its differences from off."""

    def cells(row: Row) -> list[str]:
        doses = analysis.dose(models, [row])
        shares = [f"{100 * share:.1f}" for share in analysis.changed(models, row)]
        effects = [estimate(analysis.difference(models, [row], measure)) for measure in plan.PRIMARY]
        return [row.name, f"{doses.mean():.4f}", unequal(doses), *shares, *effects]

    seen = analysis.changed(models, plan.STRONGEST).index
    head = ["", "image change", "its spread over models", *(f"of 100 {what}" for what in seen), *plan.PRIMARY]
    return markdown(head, [cells(row) for row in rows])


def guidance_table(models: Sequence[Path], rows: Sequence[Row]) -> str:
    """Guidance from a circulated or a placebo pass against circulation below 1: four tests each."""
    lines = []
    for row in (row for row in rows if row.group == "guidance"):
        effects = [analysis.difference(models, [row], measure, RIVAL) for measure in plan.PRIMARY]
        for measure, effect, shown in zip(plan.PRIMARY, effects, metrics.holm([effect.p for effect in effects])):
            verdict = ("better" if effect.mean * BETTER.get(measure, 1) > 0 else "worse") if shown else "not told apart"
            lines.append([row.name, measure, estimate(effect), f"{effect.p:.3f}", verdict])
    return markdown([f"against {RIVAL.name}", "measure", "difference", "p", "by Holm"], lines)


def placebo_table(models: Sequence[Path], rows: Sequence[Row]) -> str:
    """The mean cosine of a placebo's step with that of circulation, model by model, and of all draws as one."""

    def cosine(model: Path, row: Row) -> float:
        return json.loads((model / f"{row.slug}.json").read_text(encoding="utf-8"))[plan.COSINE]

    cosines = {row.name: numpy.array([cosine(model, row) for model in models]) for row in rows if row.placebo}
    cosines["mean of all"] = numpy.mean(list(cosines.values()), axis=0)
    lines = [[name, *(f"{value:+.3f}".replace("-", "−") for value in (*values, values.mean()))] for name, values in cosines.items()]
    return markdown([plan.COSINE, *(f"model {model.name}" for model in models), "mean"], lines)


def equalised_table(models: Sequence[Path]) -> str:
    """Whether one number does the same in each model, and in each block."""
    by_name = {row.name: row for row in plan.ROWS}

    def cells(name: str) -> list[str]:
        doses = analysis.dose(models, [by_name[name]])
        of_blocks = [json.loads((model / "blocks.json").read_text(encoding="utf-8"))[name] for model in models]
        changes = numpy.array([list(blocks.values()) for blocks in of_blocks])
        over_blocks = (changes.std(axis=1, ddof=1) / changes.mean(axis=1)).mean()
        return [name, f"{doses.mean():.4f}", unequal(doses), f"{changes.mean():.3f}", f"{100 * over_blocks:.0f} %"]

    head = ["", "image change", "its spread over models", "change of attention", "its spread over blocks"]
    return markdown(head, [cells(name) for name in plan.COMPARED])


def each_model(models: Sequence[Path]) -> Figure:
    """The primary measures' differences from off on each model, and over models, in percent of the values without a knob."""
    figure, axes = new_figure(1, len(plan.PRIMARY), 13, 3.6)
    for ax, measure in zip(axes.flat, plan.PRIMARY):
        of_off = analysis.without_a_knob(models, measure) / 100
        for side, row in enumerate((plan.STRONGEST, plan.BELOW[-1])):
            effects = [analysis.differences(model, row, measure) for model in models]
            means = [values.mean() / of_off for values in effects]
            halves = [Z * values.std(ddof=1) / len(values) ** 0.5 / of_off for values in effects]
            places = [-side - 0.1 * number for number in range(len(models))]
            style = dict(color=COLOURS[side], capsize=2, linewidth=1)
            ax.errorbar(means, places, xerr=halves, fmt=MARKERS[side], markersize=4, alpha=0.6, **style)
            over = analysis.combined(effects)
            mean_style = dict(marker="D", markersize=7, markeredgecolor="black", label=f"{row.name}: mean over models")
            ax.errorbar(over.mean / of_off, -side - 0.1 * len(models) - 0.05, xerr=over.half / of_off, **style, **mean_style)
        ax.axvline(0, color="0.5", linewidth=0.8)
        ax.set_yticks([])
        ax.set_title(measure, fontsize=10)
        ax.set_xlabel("difference from off, % of its value")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def pareto(models: Sequence[Path], rows: Sequence[Row]) -> Figure:
    """Variety against how well prompts are followed, and against how typical images are: differences from off, upper right is better."""
    figure, axes = new_figure(1, 2, 13, 5.4)
    shown = {name: chosen for name, chosen in {**BESIDE, **FURTHER}.items() if all(row in rows for row in chosen)}
    groups = list(dict.fromkeys(chosen[0].group for chosen in shown.values()))
    for ax, measure in zip(axes.flat, (PROMPT, TYPICALITY)):
        for number, (name, chosen) in enumerate(shown.items(), 1):
            x, y = (analysis.difference(models, chosen, each) for each in (measure, SPREAD))
            group = groups.index(chosen[0].group)
            style = dict(color=COLOURS[group], marker=MARKERS[group], markersize=5, capsize=2, linewidth=0.8)
            ax.errorbar(x.mean, y.mean, xerr=x.half, yerr=y.half, label=f"{number}  {name}", **style)
            ax.annotate(str(number), (x.mean, y.mean), (4, 3), textcoords="offset points", fontsize=9, weight="bold")
        for line in (ax.axvline, ax.axhline):
            line(0, color="0.5", linewidth=0.8)
        ax.set(xlabel=measure, ylabel=SPREAD)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right", fontsize=8)
    return figure
