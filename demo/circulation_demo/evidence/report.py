"""From CSVs to what people read: tables in Markdown, graphs, and the tables of the documents."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import product, repeat
from pathlib import Path

import numpy
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pandas import DataFrame, Series, isna, read_csv

from .. import DEMO, ROOT
from . import metrics
from .data import Samples, avatars
from .evaluate import DIFFERENCE, STABILITY, STAGES, Z
from .judge import IMAGE_CHANGE, SPACES
from .plan import BASELINE, BETAS, PER_PROMPT, STATIC, STEPS, VISIBLE, adaptive, static

RESULTS = DEMO / "evidence" / "results"  # those that are published
MODELS = DEMO / "evidence" / "models"  # and those of the study of five models
DOCUMENTS = (ROOT / "EVIDENCE.md", *(ROOT / "docs" / "evidence" / f"{name}.md" for name in ("one-model", "several-models")))
EARLIER = DEMO / "evidence" / "earlier"  # measures.csv of a model before this one, after so many steps of its training
# What the page shows of the main settings and the strongest
STRENGTHS = ((1.05, 3.0), (1.2, 3.0), (1.2, 5.0), (1.5, 5.0), (0.8, 3.0), (0.8, 5.0), (0.5, 5.0))
SHOWN = (*(static(*strength).name for strength in STRENGTHS), adaptive(1.2, 5.0).name)
SIDES = (static(0.8, 5.0).name, static(1.2, 5.0).name)
OVER_MODELS = (
    "prompt recognised", "mixture index", "spread, classifier", "density, pixels", "train distance, pixels", "Vendi, pixels", "FID, pixels",
    "FID, classifier",
)  # fmt: skip
OF_SETS = ("precision", "recall", "density", "coverage", "FID", "Vendi")
REPEATED = (
    "FID, pixels", "FID, classifier", "coverage, pixels", "density, classifier", "prompt recognised", "mixture index", "spread, classifier"
)  # fmt: skip
OF_IMAGES = ("prompt recognised", "mixture index", "palette validity", *(f"{m}, {s}" for m in ("spread", "train distance") for s in SPACES))
OF_SEEDS = ("prompt recognised", "mixture index", "palette validity")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by the colour-blind
MARKERS = ("o", "s", "^", "D", "v", "P")


def with_fields(path: Path) -> DataFrame:
    """The CSV, and in further columns the fields of each row's setting, from the `settings.csv` beside it."""
    return read_csv(path).merge(read_csv(path.with_name("settings.csv")), on="setting", how="left")


def where(table: DataFrame, **values) -> DataFrame:
    """The rows with these values in these columns."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def groups(table: DataFrame, *columns: str):
    """(value or values of the columns, rows) in the order of the file."""
    return table.groupby(list(columns) if len(columns) > 1 else columns[0], sort=False)


def write(samples: Samples, results: Path) -> None:
    """Tables and graphs of the CSVs in `results`, beside them."""
    for name, table in tables(results).items():
        (results / f"{name}.md").write_text(table, encoding="utf-8")
    graphs = {"strength": strength, "places": places, "prediction": prediction, "correlations": correlations, "regimes": regimes}
    graphs |= {"models": models, "changed": strengths}
    for name, draw in graphs.items():
        save(draw(results), results / f"{name}.png")
    save(contact_sheet(samples), results / "avatars.png")


def tables(results: Path) -> dict[str, str]:
    """File name (without .md) → table in Markdown, of the CSVs in `results`."""
    texts = {}
    for cohort, measures in groups(read_csv(results / "measures.csv"), "cohort"):
        for space in SPACES:
            texts[f"{cohort}-{space}"] = sets_table(measures, [f"{name}, {space}" for name in OF_SETS])
        texts[f"{cohort}-images"] = sets_table(measures, OF_IMAGES)
        texts[f"{cohort}-else"] = sets_table(measures, (IMAGE_CHANGE, "colour change"), plain=True)
    texts |= {f"earlier-{path.stem}": sets_table(where(read_csv(path), cohort="main"), REPEATED) for path in EARLIER.glob("*.csv")}
    texts["memory"] = memory_table(read_csv(results / "memory.csv"), read_csv(results / "apart.csv"))
    texts["prediction"] = prediction_table(read_csv(results / "prediction.csv"))
    texts["correlations"] = correlations_table(read_csv(results / "correlations.csv"))
    texts["regimes"] = regimes_table(read_csv(results / "regimes.csv"))
    texts["seed-sets"] = sets_of_seeds_table(read_csv(results / "sets.csv"))
    texts["changed"] = changed_table(changed(read_csv(results / "images.csv")))
    texts["models"] = models_table(results)
    if (results / "seeds.csv").exists():
        texts["seeds"] = seeds_table(results)
    return texts


def markdown(head: Sequence[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def in_lines(names: Sequence[str], line_break: str = "<br>") -> list[str]:
    return [name.replace(", ", line_break) for name in names]


def digits(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 2 else f"{value:.3f}"


def interval(value: float, error: float, signed: bool = False) -> str:
    """Value and half its 95 % interval; of differences (`signed`) with the sign, and bold where it leaves out zero."""
    text = f"{'+' if signed and value > 0 else ''}{digits(value)} ± {digits(Z * error)}".replace("-", "−")
    return f"**{text}**" if signed and abs(value) > Z * error else text


def sets_table(measures: DataFrame, names: Sequence[str], plain: bool = False) -> str:
    """Real images, controls and the baseline with their values, settings with their differences from the baseline unless `plain`."""

    def cell(row: Series) -> str:
        if plain or isna(row["difference"]):
            return interval(row["value"], row["error"])
        return interval(row["difference"], row["difference error"], signed=True)

    rows = []
    for setting, of_setting in groups(measures, "setting"):
        by_name = of_setting.set_index("measure")
        cells = [cell(by_name.loc[name]) if name in by_name.index else "" for name in names]
        if any(cells):
            rows.append([setting, *cells])
    return markdown(["", *in_lines(names)], rows)


def memory_table(distances: DataFrame, tests: DataFrame) -> str:
    rows = []
    for space, images in product(SPACES, distances["images"].unique()):
        signed, test = images == DIFFERENCE, where(tests, space=space).iloc[0]
        quantiles = where(distances, space=space, images=images)
        cells = list(map(interval, quantiles["train distance"], quantiles["error"], repeat(signed)))
        all_of_it = f"{test['greatest difference']:.3f} (p {test['as great when swapped']:.2f})" if signed else ""
        rows.append([f"{images}, {space}", *cells, all_of_it])
    heads = [
        "distance to the nearest training image",
        *(f"{q:.0%} of images are nearer than" for q in distances["quantile"].unique()),
        "all distances: greatest difference of the shares that are nearer",
    ]
    return markdown(heads, rows)


def prediction_table(changes: DataFrame) -> str:
    third = STEPS // 3
    of_steps = {"all steps": slice(None), "first third": slice(third), "last third": slice(-third, None)}
    rows = [[setting, *(f"{rows['change'].iloc[s].mean():.1%}" for s in of_steps.values())] for setting, rows in groups(changes, "setting")]
    return markdown(["change of the noise prediction", *of_steps], rows)


def correlations_table(rhos: DataFrame) -> str:
    outcomes, rows = rhos["outcome"].unique(), []
    for space, stage, measure in product(rhos["space"].unique(), STAGES, STABILITY):
        by_outcome = where(rhos, space=space, stage=stage, stability=measure).set_index("outcome")
        if len(by_outcome):
            intervals = dict(zip(by_outcome.index, map(interval, by_outcome["rho"], by_outcome["error"], repeat(True))))
            rows.append([f"{measure}, {stage}, {space}", *(intervals.get(outcome, "") for outcome in outcomes)])
    return markdown(["", *in_lines(outcomes)], rows)


def regimes_table(changes: DataFrame) -> str:
    rows = [
        [f"{setting}; {tenth} by {measure}", *map(interval, rows["value"], rows["error"], rows["change of"] != IMAGE_CHANGE)]
        for (setting, measure, tenth), rows in groups(changes, "setting", "tenth by", "tenth")
    ]
    return markdown(["", *changes["change of"].unique()], rows)


def sets_of_seeds_table(differences: DataFrame) -> str:
    names = [f"{name}, {space}" for space in SPACES for name in ("precision", "recall", "coverage", "FID")]
    names += ["prompt recognised", "mixture index"]
    rows = [
        [setting, *(" ".join(f"{d:+.3f}".replace("-", "−") for d in where(rows, measure=name)["difference"]) for name in names)]
        for setting, rows in groups(differences, "setting")
    ]
    return markdown(["", *in_lines(names)], rows)


def changed(images: DataFrame) -> DataFrame:
    """Of each setting the share of pictures that change visibly, that lose a prompted detail and that gain one."""
    keys = ["seed set", "prompt", "image"]
    plain = where(images, setting=BASELINE.name).set_index(keys)["prompt recognised"]
    others = images[images["setting"] != BASELINE.name].set_index(keys)
    seen = what_is_seen(others[IMAGE_CHANGE], others["prompt recognised"] - plain.reindex(others.index))
    return DataFrame({"setting": others["setting"], **seen}).groupby("setting", sort=False).mean()


def what_is_seen(change: Series, gained: Series) -> dict[str, Series]:
    """Of each picture, by how much it changed and what share of prompted details it gained, whether that is to be seen."""
    return {"visibly changed": change > VISIBLE, "lost a detail": gained < -1e-6, "gained a detail": gained > 1e-6}


def changed_table(shares: DataFrame) -> str:
    shown = [name for name in SHOWN if name in shares.index]  # the quick study samples fewer
    rows = [[name.removeprefix("static: "), *(f"{100 * share:.1f}" for share in shares.loc[name])] for name in shown]
    return markdown(["of 100 pictures", *shares.columns], rows)


def of_models(results: Path) -> dict[str, DataFrame]:
    """The main settings' measures of each model of the repository, the one in the box last."""
    files = {f"{path.stem} steps": path for path in sorted(EARLIER.glob("*.csv"), key=lambda path: int(path.stem))}
    return {name: where(read_csv(path), cohort="main") for name, path in {**files, "in the box": results / "measures.csv"}.items()}


def of_each_model(tables: Iterable[DataFrame], setting: str, measure: str) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Differences from the baseline, their standard errors, and the baseline's values, (models,) each."""
    rows = [where(table, setting=setting, measure=measure).iloc[0] for table in tables]
    differences, errors, values = (numpy.array([row[c] for row in rows], float) for c in ("difference", "difference error", "value"))
    return differences, errors, values - differences


def estimate(effect: metrics.Effect) -> str:
    """Mean and half of its 95 % interval."""
    return f"{effect.mean:+.4f} ± {effect.half:.4f}".replace("-", "−")


def models_table(results: Path) -> str:
    """Random effects over the models of the repository; bold where the interval leaves out zero."""
    measured = of_models(results).values()

    def cell(setting: str, measure: str) -> str:
        effect = metrics.over_models(*of_each_model(measured, setting, measure)[:2])
        return f"**{estimate(effect)}**" if abs(effect.mean) > effect.half else estimate(effect)

    rows = [[measure, *(cell(setting, measure) for setting in SIDES)] for measure in OVER_MODELS]
    return markdown(["difference from off", *(setting.removeprefix("static: ") for setting in SIDES)], rows)


def seeds_table(results: Path) -> str:
    """What the stability of all blocks, and a preview, tell of the images of one prompt."""
    told = read_csv(results / "seeds.csv", keep_default_na=False)
    shown = told[told["stage"].isin(("", "all"))].set_index(["told by", "outcome"])
    rows = []
    for name in shown.index.unique(0):
        cells = [shown.loc[name, outcome] for outcome in OF_SEEDS]
        rhos = [interval(cell["rho"], cell["rho error"], signed=True) if name != "image" else "" for cell in cells]
        gains = [interval(100 * cell["gain"], 100 * cell["gain error"], signed=True) for cell in cells]
        rows.append(["the image when it is done" if name == "image" else name, *rhos, *gains])
    prompts = [shown.loc["image", outcome]["prompts"] for outcome in OF_SEEDS]
    heads = [f"{outcome}: rho ({count} prompts)" for outcome, count in zip(OF_SEEDS, prompts)]
    heads += [f"{outcome}: points gained" for outcome in OF_SEEDS]
    ps = told[told["stage"] != ""]["p"]
    measures, windows = zip(*(name.split(", ") for name in told[told["stage"] != ""]["told by"].unique()))
    factors = (len(set(measures)), len(STAGES), len(set(windows)), told["outcome"].nunique())
    found = (
        "Of {} correlations with stability ({} measures, {} stages, {} windows, {} outcomes with both kinds of realism; they overlap) "
        "{} are other than zero at 5 %, where {:.0f} would be on average if none were; by Holm {}.\n"
    ).format(len(ps), *factors, (ps < 0.05).sum(), 0.05 * len(ps), metrics.holm(ps).sum())
    return markdown(["told by", *heads], rows) + "\n" + found


def new_figure(rows: int, columns: int, width: float, height: float):
    """The figure, inches wide and high, and its axes (rows, columns)."""
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})


def strength(results: Path) -> Figure:
    """Difference from the baseline against alpha, a line for each beta."""
    measures = where(with_fields(results / "measures.csv"), **STATIC)
    names = [*(f"{name}, {space}" for space in SPACES for name in ("precision", "recall", "coverage", "FID")),
             "prompt recognised", "mixture index", "palette validity", "spread, classifier"]  # fmt: skip
    figure, axes = new_figure(3, 4, 13, 8.5)
    for ax, name in zip(axes.flat, names):
        for beta, colour, marker in zip(BETAS, COLOURS, MARKERS):
            points = where(measures, measure=name, beta=beta).sort_values("alpha")
            if len(points):
                style = dict(color=colour, marker=marker, markersize=4, capsize=2, linewidth=1)
                ax.errorbar(points["alpha"], points["difference"], Z * points["difference error"], **style, label=f"beta {beta:g}")
        ax.axhline(0, color="0.5", linewidth=0.8)
        ax.axvline(1, color="0.5", linewidth=0.8, linestyle=":")
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("alpha")
    axes[0, 0].set_ylabel("difference from the baseline")
    axes[0, 0].legend(fontsize=8)
    figure.suptitle("Static Circulation on all blocks at all steps; bars are 95 % intervals")
    return figure


def places(results: Path) -> Figure:
    """The same strength by rule, rescale, depth and time."""
    measures = with_fields(results / "measures.csv")
    measures = measures[measures["alpha"].isin((0.8, 1.2)) & (measures["beta"] == 5)]
    names = [*(f"{name}, {space}" for name in ("precision", "recall", "FID") for space in SPACES), "prompt recognised", "mixture index"]
    settings = measures["setting"].unique()
    figure, axes = new_figure(2, 4, 15, 9)
    for ax, name in zip(axes.flat, names):
        for position, (_, row) in enumerate(where(measures, measure=name).iterrows()):
            above = int(row["alpha"] > 1)
            error = Z * row["difference error"]
            ax.errorbar(row["difference"], -position, xerr=error, color=COLOURS[above], marker=MARKERS[above], capsize=2)
        ax.axvline(0, color="0.5", linewidth=0.8)
        ax.set_yticks([-p for p in range(len(settings))], settings if ax in axes[:, 0] else [""] * len(settings), fontsize=8)
        ax.locator_params(axis="x", nbins=4)
        ax.set_title(name, fontsize=10)
    figure.supxlabel("difference from the baseline; bars are 95 % intervals")
    return figure


def prediction(results: Path) -> Figure:
    """Change of the noise prediction by step, on each side of alpha 1."""
    changes = with_fields(results / "prediction.csv")
    figure, axes = new_figure(1, 2, 11, 4)
    for ax, alpha in zip(axes.flat, (0.8, 1.2)):
        for (setting, rows), colour, marker in zip(groups(where(changes, alpha=alpha), "setting"), COLOURS, MARKERS):
            ax.plot(rows["step"], rows["change"], color=colour, marker=marker, markersize=4, label=setting)
        ax.set(xlabel="step", ylabel="change of the noise prediction, relative", yscale="log")
        ax.legend(fontsize=8)
    return figure


def correlations(results: Path) -> Figure:
    """Spearman's rho of stability (rows) with outcomes (columns), for each space of measuring stability."""
    rhos = read_csv(results / "correlations.csv")
    outcomes, spaces = rhos["outcome"].unique(), rhos["space"].unique()
    labels = list(product(STAGES, STABILITY))
    figure, axes = new_figure(1, len(spaces), 13, 5.5)
    for ax, space in zip(axes.flat, spaces):
        table = where(rhos, space=space).set_index(["stage", "stability", "outcome"])
        cells = table.reindex([(*label, outcome) for label in labels for outcome in outcomes])
        values, errors = (cells[column].to_numpy().reshape(len(labels), len(outcomes)) for column in ("rho", "error"))
        ax.imshow(values, cmap="RdBu_r", vmin=-0.5, vmax=0.5, aspect="auto")
        for (y, x), rho in numpy.ndenumerate(values):
            if not numpy.isnan(rho):
                sure = abs(rho) > Z * errors[y, x]
                ax.text(x, y, f"{rho:+.2f}", ha="center", va="center", fontsize=8, weight="bold" if sure else "normal")
        ax.set_xticks(range(len(outcomes)), in_lines(outcomes, "\n"), rotation=40, ha="right", fontsize=8)
        ax.set_yticks(range(len(labels)), [f"{m}  {g}" for g, m in labels], fontsize=8)
        ax.set_title(f"Spearman's rho over baseline images, {space}", fontsize=10)
    return figure


def regimes(results: Path) -> Figure:
    """What settings change in the least and in the most stable tenth of the baselines."""
    changes = where(read_csv(results / "regimes.csv"), **{"tenth by": "Align"})
    settings, outcomes = changes["setting"].unique(), changes["change of"].unique()
    figure, axes = new_figure(1, len(outcomes), 16, 4.5)
    for ax, outcome in zip(axes.flat, outcomes):
        for offset, (tenth, colour, marker) in enumerate(zip(("least stable", "most stable"), COLOURS, MARKERS)):
            rows = where(changes, tenth=tenth, **{"change of": outcome})
            heights = [-p - 0.25 * offset for p in range(len(rows))]
            ax.errorbar(rows["value"], heights, xerr=Z * rows["error"], fmt=marker, color=colour, markersize=4, capsize=2, label=tenth)
        ax.axvline(0, color="0.5", linewidth=0.8)
        ax.set_yticks([-p for p in range(len(settings))], settings if ax is axes[0, 0] else [""] * len(settings), fontsize=8)
        ax.set_title(outcome if outcome == IMAGE_CHANGE else f"change of {outcome}", fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle("The least and the most stable tenth of the baselines, by alignment over all blocks")
    return figure


def models(results: Path) -> Figure:
    """The same settings on each model of the repository, in percent of the baseline's value."""
    figure, axes = new_figure(1, len(SIDES), 11, 4.5)
    measured = of_models(results)
    names = list(measured)
    for ax, setting in zip(axes.flat, SIDES):
        for position, measure in enumerate(OVER_MODELS):
            differences, errors, values = of_each_model(measured.values(), setting, measure)
            for number, (d, e, v) in enumerate(zip(differences, errors, values)):
                style = dict(color=COLOURS[number], marker=MARKERS[number], markersize=4, capsize=2, linewidth=1)
                label = names[number] if position == 0 else None
                ax.errorbar(100 * d / abs(v), -position + 0.24 - 0.16 * number, xerr=100 * Z * e / abs(v), label=label, **style)
        ax.axvline(0, color="0.5", linewidth=0.8)
        ax.set_xscale("symlog", linthresh=2)
        ax.set_xticks([-20, -5, -2, -1, 0, 1, 2, 5, 20], ["−20", "−5", "−2", "−1", "0", "1", "2", "5", "20"])
        ax.set_yticks([-p for p in range(len(OVER_MODELS))], OVER_MODELS if ax is axes[0, 0] else [""] * len(OVER_MODELS), fontsize=8)
        ax.set_title(setting.removeprefix("static: "), fontsize=10)
        ax.set_xlabel("difference from off, % of its value")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def strengths(results: Path) -> Figure:
    """How many pictures change visibly, lose and gain a detail, against strength."""
    shares = changed(read_csv(results / "images.csv")).reset_index().merge(read_csv(results / "settings.csv"), on="setting")
    rows = where(shares, **STATIC)
    rows = rows.assign(strength=rows["beta"] * (rows["alpha"] - 1)).sort_values("strength")
    figure, axes = new_figure(1, 2, 9, 3.4)
    for ax, columns in zip(axes.flat, (("visibly changed",), ("lost a detail", "gained a detail"))):
        for number, column in enumerate(columns):
            style = dict(color=COLOURS[number], marker=MARKERS[number], markersize=4, linewidth=1)
            ax.plot(rows["strength"], 100 * rows[column], label=column, **style)
        ax.axvline(0, color="0.5", linewidth=0.8, linestyle=":")
        ax.set(xlabel="beta · (alpha − 1)", ylabel="of 100 pictures")
        ax.legend(fontsize=8)
    return figure


def contact_sheet(samples: Samples, columns: int = 16) -> Figure:
    """Real avatars, and the same prompts and seeds under the main settings."""
    rows = {"real": avatars("held_out").images[:columns]}
    for setting in samples.size.settings:
        if setting.main:
            images = numpy.load(samples.of(setting)[0])["images"]
            rows["\n".join(filter(None, (setting.label, setting.strength)))] = images[: columns * PER_PROMPT : PER_PROMPT]
    figure, axes = new_figure(1, 1, 15, 0.82 * len(rows))
    ax = axes[0, 0]
    ax.imshow(numpy.concatenate([numpy.concatenate(list(images), axis=1) for images in rows.values()]), interpolation="nearest")
    ax.set_yticks([16 * row + 8 for row in range(len(rows))], list(rows), fontsize=8)
    ax.set_xticks([])
    return figure


def publish() -> None:
    """Put the published tables between their marks in the documents."""
    for document in DOCUMENTS:
        document.write_text(with_tables(document.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(text: str) -> str:
    tables = {path.stem: path for folder in (RESULTS, MODELS) for path in folder.glob("*.md")}

    def fill(mark: re.Match) -> str:
        return f"{mark[1]}\n\n{tables[mark[2]].read_text(encoding='utf-8')}\n{mark[3]}"

    return re.sub(r"(<!-- table: ([\w-]+) -->).*?(<!-- end -->)", fill, text, flags=re.DOTALL)


def headline(results: Path) -> int:
    """Print which findings of EVIDENCE.md show again: 0 where all do, else 1."""
    values = where(read_csv(results / "measures.csv"), cohort="main").set_index(["setting", "measure"])["value"]
    shown = {claim: holds(values) for claim, holds in CLAIMS.items()}
    for claim, holds in shown.items():
        print(f"{'shows' if holds else 'DOES NOT SHOW'}: {claim}")
    return int(not all(shown.values()))


LESS, SLIGHTLY_MORE, MORE = (static(alpha, 5.0).name for alpha in (0.8, 1.05, 1.2))
NEAREST, KINDS, OBEDIENCE = "train distance, pixels", "Vendi, pixels", "prompt recognised"
# Those of EVIDENCE.md that are large enough to show in 64 images, whatever the rounding of a machine.
CLAIMS: dict[str, Callable[[Series], bool]] = {
    "Circulation changes images": lambda v: min(v[s, IMAGE_CHANGE] for s in (LESS, MORE)) > 0.01,
    "alpha 1.05 changes them less than 1.2": lambda v: v[SLIGHTLY_MORE, IMAGE_CHANGE] < v[MORE, IMAGE_CHANGE],
    "in pixels, alpha 1.2 is nearer to training images than 0.8": lambda v: v[LESS, NEAREST] > v[MORE, NEAREST],
    "in pixels, there are fewer kinds of images at alpha 1.2 than at 0.8": lambda v: v[LESS, KINDS] > v[MORE, KINDS],
    "prompts stay recognised": lambda v: min(v[s, OBEDIENCE] for s in (BASELINE.name, LESS, MORE)) > 0.95,
}
