"""From CSVs to what people read: tables in Markdown, graphs, and the tables of EVIDENCE.md."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .. import DEMO, ROOT
from .data import avatars, file_of
from .evaluate import STABILITY, STAGES, Z
from .judge import SPACES
from .plan import ALPHAS, BASELINE, BETAS, PER_PROMPT, STEPS, Size, static

EVIDENCE = ROOT / "EVIDENCE.md"
EARLIER = DEMO / "evidence" / "earlier"  # measures.csv of a model before this one, after so many steps of its training
OF_SETS = ("precision", "recall", "density", "coverage", "FID", "Vendi")
REPEATED = ("FID, pixels", "FID, classifier", "coverage, pixels", "density, classifier", "prompt recognised", "mixture index", "spread, classifier")
OF_IMAGES = ("prompt recognised", "mixture index", "palette validity", *(f"{m}, {s}" for m in ("spread", "train distance") for s in SPACES))
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by the colour-blind
MARKERS = ("o", "s", "^", "D", "v", "P")


class Table:
    """A CSV as a list of dicts, with numbers where there are numbers."""

    def __init__(self, path: Path):
        with path.open(newline="", encoding="utf-8") as file:
            self.rows = [{key: number(value) for key, value in row.items()} for row in csv.DictReader(file)]

    def where(self, **values) -> list[dict]:
        wanted = {key.replace("_", " "): value for key, value in values.items()}
        return [row for row in self.rows if all(row[key] == value for key, value in wanted.items())]

    def one(self, **values) -> dict | None:
        return next(iter(self.where(**values)), None)

    def distinct(self, column: str, **values) -> list:
        return list(dict.fromkeys(row[column] for row in self.where(**values)))


def number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def write(size: Size, folder: Path, results: Path) -> None:
    for name, table in tables(results).items():
        (results / f"{name}.md").write_text(table, encoding="utf-8")
    graphs = {"strength": strength, "places": places, "prediction": prediction, "correlations": correlations, "regimes": regimes}
    for name, draw in graphs.items():
        save(draw(results), results / f"{name}.png")
    save(contact_sheet(size, folder), results / "avatars.png")


def tables(results: Path) -> dict[str, str]:
    measures = Table(results / "measures.csv")
    made = {}
    for cohort in measures.distinct("cohort"):
        for space in SPACES:
            made[f"{cohort}-{space}"] = sets_table(measures, cohort, [f"{name}, {space}" for name in OF_SETS])
        made[f"{cohort}-images"] = sets_table(measures, cohort, OF_IMAGES)
        made[f"{cohort}-else"] = sets_table(measures, cohort, ("image change", "colour change"), plain=True)
    made |= {f"earlier-{path.stem}": sets_table(Table(path), "main", REPEATED) for path in EARLIER.glob("*.csv")}
    made["memory"] = memory_table(Table(results / "memory.csv"), Table(results / "apart.csv"))
    made["prediction"] = prediction_table(Table(results / "prediction.csv"))
    made["correlations"] = correlations_table(Table(results / "correlations.csv"))
    made["regimes"] = regimes_table(Table(results / "regimes.csv"))
    made["seed-sets"] = sets_of_seeds_table(Table(results / "sets.csv"))
    return made


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def digits(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 2 else f"{value:.3f}"


def interval(value: float, error: float, sign: str = "") -> str:
    """Value and half its 95 % interval; bold where that leaves out zero, for differences."""
    text = f"{'+' if sign and value > 0 else ''}{digits(value)} ± {digits(Z * error)}".replace("-", "−")
    return f"**{text}**" if sign and abs(value) > Z * error else text


def sets_table(measures: Table, cohort: str, names, plain: bool = False) -> str:
    """Real images, controls and the baseline with their values, settings with their differences from the baseline."""
    rows = []
    for setting in measures.distinct("setting", cohort=cohort):
        cells = []
        for name in names:
            row = measures.one(cohort=cohort, setting=setting, measure=name)
            if row is None:
                cells.append("")
            elif row["difference"] == "" or plain:
                cells.append(interval(row["value"], row["error"]))
            else:
                cells.append(interval(row["difference"], row["difference error"], "signed"))
        if any(cells):
            rows.append([setting, *cells])
    return markdown(["", *(name.replace(", ", "<br>") for name in names)], rows)


def memory_table(found: Table, whole: Table) -> str:
    rows = []
    for space in SPACES:
        for images in found.distinct("images"):
            of, sign = found.where(images=images, space=space), "signed" if "difference" in images else ""
            test = whole.one(space=space)
            all_of_it = f"{test['greatest difference']:.3f} (p {test['as great when swapped']:.2f})" if sign else ""
            rows.append([f"{images}, {space}", *(interval(row["train distance"], row["error"], sign) for row in of), all_of_it])
    quantiles = (f"{q:.0%} of images are nearer than" for q in found.distinct("quantile"))
    return markdown(["distance to the nearest training image", *quantiles, "all distances: greatest difference of the shares that are nearer"], rows)


def prediction_table(changes: Table) -> str:
    groups = {"all steps": range(1, STEPS + 1), "first third": range(1, STEPS // 3 + 1), "last third": range(STEPS - STEPS // 3 + 1, STEPS + 1)}
    rows = []
    for setting in changes.distinct("setting"):
        of = {row["step"]: row["change"] for row in changes.where(setting=setting)}
        rows.append([setting, *(f"{numpy.mean([of[step] for step in steps]):.1%}" for steps in groups.values())])
    return markdown(["change of the noise prediction", *groups], rows)


def correlations_table(found: Table) -> str:
    outcomes, rows = found.distinct("outcome"), []
    for space in found.distinct("space"):
        for stage in STAGES:
            for measure in STABILITY:
                row = [found.one(space=space, stability=measure, stage=stage, outcome=outcome) for outcome in outcomes]
                if any(row):
                    rows.append([f"{measure}, {stage}, {space}", *(interval(r["rho"], r["error"], "signed") if r else "" for r in row)])
    return markdown(["", *(outcome.replace(", ", "<br>") for outcome in outcomes)], rows)


def regimes_table(found: Table) -> str:
    changes, rows = found.distinct("change of"), []
    for setting in found.distinct("setting"):
        for measure in STABILITY:
            for tenth in ("least stable", "most stable"):
                cells = [found.one(setting=setting, tenth_by=measure, tenth=tenth, change_of=change) for change in changes]
                rows.append([f"{setting}; {tenth} by {measure}", *(interval(c["value"], c["error"], "" if c["change of"] == "image change" else "signed") for c in cells)])
    return markdown(["", *changes], rows)


def sets_of_seeds_table(found: Table) -> str:
    names = [*(f"{name}, {space}" for space in SPACES for name in ("precision", "recall", "coverage", "FID")), "prompt recognised", "mixture index"]
    rows = []
    for setting in found.distinct("setting"):
        of = [[row["difference"] for row in found.where(setting=setting, measure=name)] for name in names]
        rows.append([setting, *(" ".join(f"{d:+.3f}".replace("-", "−") for d in differences) for differences in of)])
    return markdown(["", *(name.replace(", ", "<br>") for name in names)], rows)


def figure(rows: int, columns: int, width: float, height: float):
    made = Figure((width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made, made.subplots(rows, columns, squeeze=False)


def save(made: Figure, path: Path) -> None:
    made.savefig(path, dpi=110, metadata={"Software": None})


def strength(results: Path) -> Figure:
    """Difference from the baseline against alpha, a line for each beta."""
    measures = Table(results / "measures.csv")
    names = [*(f"{name}, {space}" for space in SPACES for name in ("precision", "recall", "coverage", "FID")),
             "prompt recognised", "mixture index", "palette validity", "spread, classifier"]  # fmt: skip
    made, axes = figure(3, 4, 13, 8.5)
    for ax, name in zip(axes.flat, names):
        for beta, colour, marker in zip(BETAS, COLOURS, MARKERS):
            points = [(alpha, measures.one(setting=static(alpha, beta).name, measure=name)) for alpha in ALPHAS]
            points = [(alpha, row["difference"], Z * row["difference error"]) for alpha, row in points if row]
            if points:
                alphas, values, errors = zip(*points)
                ax.errorbar(alphas, values, errors, color=colour, marker=marker, markersize=4, capsize=2, linewidth=1, label=f"beta {beta:g}")
        ax.axhline(0, color="0.5", linewidth=0.8)
        ax.axvline(1, color="0.5", linewidth=0.8, linestyle=":")
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("alpha")
    axes[0, 0].set_ylabel("difference from the baseline")
    axes[0, 0].legend(fontsize=8)
    made.suptitle("Static Circulation on all blocks at all steps; bars are 95 % intervals")
    return made


def places(results: Path) -> Figure:
    """The same strength by rule, rescale, depth and time."""
    measures = Table(results / "measures.csv")
    names = [*(f"{name}, {space}" for name in ("precision", "recall", "FID") for space in SPACES), "prompt recognised", "mixture index"]
    settings = [s for s in measures.distinct("setting", measure="image change") if re.search(r"alpha (0\.8|1\.2), beta 5", s)]
    made, axes = figure(2, 4, 15, 9)
    for ax, name in zip(axes.flat, names):
        for position, setting in enumerate(settings):
            row = measures.one(setting=setting, measure=name)
            above = "alpha 1.2" in setting
            ax.errorbar(row["difference"], -position, xerr=Z * row["difference error"], color=COLOURS[above], marker=MARKERS[above], capsize=2)
        ax.axvline(0, color="0.5", linewidth=0.8)
        ax.set_yticks([-p for p in range(len(settings))], settings if ax in axes[:, 0] else [""] * len(settings), fontsize=8)
        ax.locator_params(axis="x", nbins=4)
        ax.set_title(name, fontsize=10)
    made.supxlabel("difference from the baseline; bars are 95 % intervals")
    return made


def prediction(results: Path) -> Figure:
    changes = Table(results / "prediction.csv")
    made, axes = figure(1, 2, 11, 4)
    for ax, alpha in zip(axes.flat, (0.8, 1.2)):
        shown = [s for s in changes.distinct("setting") if f"alpha {alpha:g}," in s]
        for setting, colour, marker in zip(shown, COLOURS, MARKERS):
            rows = changes.where(setting=setting)
            ax.plot([r["step"] for r in rows], [r["change"] for r in rows], color=colour, marker=marker, markersize=4, label=setting)
        ax.set(xlabel="step", ylabel="change of the noise prediction, relative", yscale="log")
        ax.legend(fontsize=8)
    return made


def correlations(results: Path) -> Figure:
    found = Table(results / "correlations.csv")
    outcomes, spaces = found.distinct("outcome"), found.distinct("space")
    made, axes = figure(1, len(spaces), 13, 5.5)
    for ax, space in zip(axes.flat, spaces):
        labels = [(stage, measure) for stage in STAGES for measure in STABILITY]
        cells = [[found.one(space=space, stability=m, stage=g, outcome=o) for o in outcomes] for g, m in labels]
        values = numpy.array([[cell["rho"] if cell else numpy.nan for cell in row] for row in cells])
        ax.imshow(values, cmap="RdBu_r", vmin=-0.5, vmax=0.5, aspect="auto")
        for y, row in enumerate(cells):
            for x, cell in enumerate(row):
                if cell:
                    sure = abs(cell["rho"]) > Z * cell["error"]
                    ax.text(x, y, f"{cell['rho']:+.2f}", ha="center", va="center", fontsize=8, weight="bold" if sure else "normal")
        ax.set_xticks(range(len(outcomes)), [o.replace(", ", "\n") for o in outcomes], rotation=40, ha="right", fontsize=8)
        ax.set_yticks(range(len(labels)), [f"{m}  {g}" for g, m in labels], fontsize=8)
        ax.set_title(f"Spearman's rho over baseline images, {space}", fontsize=10)
    return made


def regimes(results: Path) -> Figure:
    found = Table(results / "regimes.csv")
    settings, changes = found.distinct("setting"), found.distinct("change of")
    made, axes = figure(1, len(changes), 16, 4.5)
    for ax, change in zip(axes.flat, changes):
        for offset, (tenth, colour, marker) in enumerate(zip(("least stable", "most stable"), COLOURS, MARKERS)):
            rows = [found.one(setting=s, tenth_by="Align", tenth=tenth, change_of=change) for s in settings]
            heights = [-p - 0.25 * offset for p in range(len(rows))]
            ax.errorbar([r["value"] for r in rows], heights, xerr=[Z * r["error"] for r in rows], fmt=marker, color=colour, markersize=4, capsize=2, label=tenth)
        ax.axvline(0, color="0.5", linewidth=0.8)
        ax.set_yticks([-p for p in range(len(settings))], settings if ax is axes[0, 0] else [""] * len(settings), fontsize=8)
        ax.set_title(f"change of {change}" if "change" not in change else change, fontsize=10)
    made.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    made.suptitle("The least and the most stable tenth of the baselines, by alignment over all blocks")
    return made


def contact_sheet(size: Size, folder: Path, columns: int = 16) -> Figure:
    """Real avatars, and the same prompts and seeds under the main settings."""
    shown = [s for s in size.settings if s.main]
    rows = {"real": avatars("held_out").images[:columns]}
    rows |= {s.name: numpy.load(file_of(folder, s, 0))["images"][: columns * PER_PROMPT : PER_PROMPT] for s in shown}
    made, axes = figure(1, 1, 15, 0.82 * len(rows))
    ax = axes[0, 0]
    ax.imshow(numpy.concatenate([numpy.concatenate(list(images), axis=1) for images in rows.values()]), interpolation="nearest")
    ax.set_yticks([16 * row + 8 for row in range(len(rows))], [name.replace(": ", "\n") for name in rows], fontsize=8)
    ax.set_xticks([])
    return made


def publish(results: Path) -> None:
    """Put the tables between their marks in EVIDENCE.md."""
    EVIDENCE.write_text(with_tables(EVIDENCE.read_text(encoding="utf-8"), results), encoding="utf-8")


def with_tables(text: str, results: Path) -> str:
    def fill(mark: re.Match) -> str:
        return f"{mark[1]}\n\n{(results / f'{mark[2]}.md').read_text(encoding='utf-8')}\n{mark[3]}"

    return re.sub(r"(<!-- table: ([\w-]+) -->).*?(<!-- end -->)", fill, text, flags=re.DOTALL)


def headline(results: Path) -> int:
    """0 where the findings of EVIDENCE.md show again, else 1."""
    measures = Table(results / "measures.csv")
    failed = 0
    for claim, holds in CLAIMS.items():
        shown = holds(measures)
        failed |= not shown
        print(f"{'shows' if shown else 'DOES NOT SHOW'}: {claim}")
    return int(failed)


def value(measures: Table, setting: str, measure: str) -> float:
    return measures.one(cohort="main", setting=setting, measure=measure)["value"]


LESS, SLIGHTLY_MORE, MORE = (static(alpha, 5.0).name for alpha in (0.8, 1.05, 1.2))
# Those of EVIDENCE.md that are large enough to show in 64 images, whatever the rounding of a machine.
CLAIMS: dict[str, Callable[[Table], bool]] = {
    "Circulation changes images": lambda m: min(value(m, s, "image change") for s in (LESS, MORE)) > 0.01,
    "alpha 1.05 changes them less than 1.2": lambda m: value(m, SLIGHTLY_MORE, "image change") < value(m, MORE, "image change"),
    "in pixels, alpha 1.2 is nearer to training images than 0.8": lambda m: value(m, LESS, "train distance, pixels") > value(m, MORE, "train distance, pixels"),
    "in pixels, there are fewer kinds of images at alpha 1.2 than at 0.8": lambda m: value(m, LESS, "Vendi, pixels") > value(m, MORE, "Vendi, pixels"),
    "prompts stay recognised": lambda m: min(value(m, s, "prompt recognised") for s in (BASELINE.name, LESS, MORE)) > 0.95,
}
