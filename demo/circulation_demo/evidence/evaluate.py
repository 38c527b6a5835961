"""From images to tables: every number of EVIDENCE.md is in a CSV that is written here."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path

import numpy
import pandas
from numpy import ndarray as Array
from scipy.stats import rankdata, spearmanr

from .data import CONTROLS, MODEL_PROMPTS, OTHER_REAL, Samples, avatars
from .judge import IMAGE_CHANGE, REALISM, SPACES, Judge, Row, controls
from .metrics import apart, halves
from .plan import BASELINE, PER_PROMPT, PREDICTION, QUANTILES, RESAMPLES, Setting, Size

Z = 1.96  # standard errors to either side of a 95 % interval
STAGES = ("input", "middle", "output", "all")
STABILITY = ("−E", "r", "Align")
OUTCOMES = ("prompt recognised", "mixture index", "palette validity", *REALISM.values(), *(f"spread, {space}" for space in SPACES))
CHANGES = (IMAGE_CHANGE, "mixture index", "prompt recognised", *REALISM.values())
REGIMES = ("setting", "tenth by", "tenth", "images", "change of", "value", "error")
DIFFERENCE = "difference of the last two"  # of images, in memory.csv


def write(path: Path, columns: tuple[str, ...], rows: list[tuple]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([f"{value:.5g}" if isinstance(value, float) else value for value in row] for row in rows)


def write_settings(path: Path, settings: tuple[Setting, ...]) -> None:
    """The fields of settings by their names, which stand for them in all other files."""
    rows = [{"setting": setting.name, **asdict(setting)} for setting in settings]
    pandas.DataFrame(rows).drop_duplicates("setting").to_csv(path, index=False, lineterminator="\n")


def evaluate(samples: Samples, results: Path) -> None:
    """Measure what was sampled and write the CSVs of `results`."""
    judge, size = Judge(), samples.size
    held_out = avatars("held_out")
    write_settings(results / "settings.csv", (*size.settings, *PREDICTION))
    rows = {setting: load(judge, samples, setting) for setting in size.settings}
    baseline = rows[BASELINE]
    main = [setting for setting in size.settings if setting.main]
    cohorts = {"main": (main, len(baseline.images))}
    if rest := [setting for setting in size.settings if not setting.main]:
        cohorts["rest"] = ([BASELINE, *rest], size.prompts * PER_PROMPT)
    with numpy.load(samples.of_the_model) as arrays:
        model = Row(judge, "baseline, each image of another prompt", arrays["images"], arrays["factors"], per_prompt=1)
    real = held_out_real(judge, len(model.images))
    measured = compare("model", [real, *controls(judge, held_out[CONTROLS], len(model.images)), model], None)
    described = held_out[MODEL_PROMPTS][: len(model.images)]
    asked = Row(judge, "held-out real, of the same prompts", described.images, described.factors, per_prompt=1)
    write(results / "memory.csv", ("images", "space", "quantile", "train distance", "error"), memory(real, asked, model))
    distances = {space: [row.of_images[f"train distance, {space}"] for row in (asked, model)] for space in SPACES}
    tests = [(space, *apart(*pair)) for space, pair in distances.items()]
    write(results / "apart.csv", ("space", "greatest difference", "as great when swapped"), tests)
    for cohort, (settings, count) in cohorts.items():
        measured += compare(cohort, [held_out_real(judge, count), *controls(judge, held_out[CONTROLS], count)], None)
        measured += compare(cohort, [rows[setting].first(count) for setting in settings], baseline.first(count))
    columns = ("cohort", "setting", "images", "measure", "value", "error", "difference", "difference error")
    write(results / "measures.csv", columns, measured)
    write(results / "sets.csv", ("setting", "seed set", "measure", "difference"), by_set(size, rows))
    write(results / "images.csv", *of_images(size, rows))
    stability = numpy.concatenate([numpy.load(path)["stability"] for path in samples.of(BASELINE)], axis=-1)
    assert stability.shape[1:3] == (len(STABILITY), len(STAGES))
    stability = stability * numpy.array([-1, 1, 1])[None, :, None, None]
    write(results / "correlations.csv", ("space", "stability", "stage", "outcome", "rho", "error"), correlations(stability, baseline))
    write(results / "regimes.csv", REGIMES, regimes(stability, rows, main))
    write(results / "prediction.csv", ("setting", "step", "sigma", "change"), prediction(samples))


def load(judge: Judge, samples: Samples, setting: Setting) -> Row:
    def arrays(of: Setting, key: str) -> Array:
        return numpy.concatenate([numpy.load(path)[key] for path in samples.of(of)])

    images, plain = arrays(setting, "images"), None
    if setting != BASELINE:
        plain = arrays(BASELINE, "images")[: len(images)]
    return Row(judge, setting.name, images, arrays(setting, "factors"), plain)


def held_out_real(judge: Judge, count: int) -> Row:
    other = avatars("held_out")[OTHER_REAL][slice(count)]
    return Row(judge, "held-out real against held-out real", other.images, other.factors, per_prompt=1)


def memory(other: Row, asked: Row, model: Row) -> list[tuple]:
    """How far images are from the nearest of the 32,000 that the model was trained on: a remembered image is at zero.

    `asked` are the real images that the prompts of `model` describe, in their order, so that prompts are resampled for both at once.
    """
    table, drawn = [], numpy.random.default_rng(0).integers(len(model.images), size=(RESAMPLES, len(model.images)))
    for space in SPACES:
        distances = {row.name: row.of_images[f"train distance, {space}"] for row in (other, asked, model)}
        values = {name: numpy.quantile(d, QUANTILES) for name, d in distances.items()}
        draws = {name: numpy.quantile(d[drawn], QUANTILES, axis=1) for name, d in distances.items()}
        values[DIFFERENCE] = values[model.name] - values[asked.name]
        draws[DIFFERENCE] = draws[model.name] - draws[asked.name]
        for name, of_images in values.items():
            errors = draws[name].std(axis=1, ddof=1)
            table += [(name, space, *numbers) for numbers in zip(QUANTILES, map(float, of_images), map(float, errors))]
    return table


def compare(cohort: str, rows: list[Row], baseline: Row | None) -> list[tuple]:
    """Each measure of each row with its standard error, and the same of its difference from the baseline's on the same prompts."""
    table, of_baseline = [], None
    for row in ([baseline] if baseline else []) + [row for row in rows if baseline is None or row.name != baseline.name]:
        drawn = row.draws(halves(len(row.images) // row.per_prompt, row.per_prompt, RESAMPLES))
        values = row.measures()
        if row is baseline:
            of_baseline = values, drawn
        for name, value in values.items():
            difference: tuple = ("", "")
            if of_baseline and row is not baseline and name in of_baseline[0]:
                difference = (value - of_baseline[0][name], float((drawn[name] - of_baseline[1][name]).std(ddof=1)))
            table.append((cohort, row.name, len(row.images), name, value, float(drawn[name].std(ddof=1)), *difference))
    return table


def by_set(size: Size, rows: dict[Setting, Row]) -> list[tuple]:
    """Differences of main settings from the baseline in each set of seeds alone."""
    count, table = size.main_prompts * PER_PROMPT, []
    for seed_set in range(size.sets):
        chosen = numpy.arange(seed_set * count, (seed_set + 1) * count)
        plain = rows[BASELINE].measures(chosen)
        for setting, row in rows.items():
            if setting.main and setting != BASELINE:
                values = row.measures(chosen)
                table += [(setting.name, seed_set + 1, name, values[name] - value) for name, value in plain.items()]
    return table


def of_images(size: Size, rows: dict[Setting, Row]) -> tuple[tuple[str, ...], list[tuple]]:
    names = sorted({name for row in rows.values() for name in row.of_images})
    table = []
    for setting, row in rows.items():
        per_set = len(row.images) // size.sets_of(setting)
        for image in range(len(row.images)):
            seed_set, position = divmod(image, per_set)
            values = (round(float(row.of_images[name][image]), 4) if name in row.of_images else "" for name in names)
            table.append((setting.name, seed_set + 1, position // PER_PROMPT + 1, position % PER_PROMPT + 1, *map(str, values)))
    return ("setting", "seed set", "prompt", "image", *names), table


def correlations(stability: Array, baseline: Row) -> list[tuple]:
    """The paper's Table 1: Spearman's rho over the baseline's images, with its standard error over halves of the prompts."""
    chosen, table = halves(len(baseline.images) // PER_PROMPT, PER_PROMPT, RESAMPLES), []
    for s, space in enumerate(("value space", "input space")):
        for m, measure in enumerate(STABILITY):
            for g, stage in enumerate(STAGES):
                for outcome in OUTCOMES:
                    x, y = stability[s, m, g], baseline.of_images[outcome]
                    if numpy.ptp(x) == 0 or numpy.ptp(y) == 0:
                        continue
                    error = numpy.std([spearmanr(x[half], y[half]).statistic for half in chosen], ddof=1)
                    table.append((space, measure, stage, outcome, float(spearmanr(x, y).statistic), float(error)))
    return table


def regimes(stability: Array, rows: dict[Setting, Row], main: list[Setting]) -> list[tuple]:
    """What each setting does to the least and to the most stable tenth of the baseline's images, by all blocks in value space."""
    baseline, table = rows[BASELINE], []
    energy, instability, align = stability[0, :, -1]
    ranks = {"−E": rankdata(energy), "r": rankdata(-instability), "Align": rankdata(align)}
    for setting in main:
        if setting == BASELINE:
            continue
        changed, before = rows[setting].of_images, baseline.of_images
        for name, rank in ranks.items():
            order = numpy.argsort(rank, kind="stable")
            tenth = max(2, len(order) // 10)
            for which, chosen in (("least stable", order[:tenth]), ("most stable", order[-tenth:])):
                for outcome in CHANGES:
                    moved = changed[outcome][chosen] - (0 if outcome == IMAGE_CHANGE else before[outcome][chosen])
                    error = float(moved.std(ddof=1) / numpy.sqrt(tenth))
                    table.append((setting.name, name, which, tenth, outcome, float(moved.mean()), error))
    return table


def prediction(samples: Samples) -> list[tuple]:
    with numpy.load(samples.predictions) as arrays:
        return [
            (str(setting), step + 1, float(sigma), float(change.mean()))
            for setting, changes in zip(arrays["settings"], arrays["changes"])
            for step, (sigma, change) in enumerate(zip(arrays["sigmas"], changes))
        ]
