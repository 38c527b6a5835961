"""Can the best of a prompt's seeds be told before it is done, by its stability or by a look at the preview?

Run by `python3 -m demo.evidence --seeds`. It samples the baseline's images again, with a Stability Probe. Asked after the paper's
Table 1 had been seen to compare prompts more than images.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy
import pandas
from numpy import ndarray as Array
from scipy.stats import norm, rankdata

from ..digest import digest
from . import provenance, report, sampling
from .data import prompts, seeds
from .evaluate import STAGES
from .judge import REALISM, Judge, Row
from .main import OUTPUT, processes
from .plan import FULL, PER_PROMPT, RESAMPLES, STEPS

EARLY = STEPS // 3
WINDOWS = {f"first {EARLY} steps": slice(EARLY), "all steps": slice(None)}
PREVIEWS = (EARLY, STEPS // 2)  # after so many steps
STEADINESS = ("−E", "−r", "Align")  # the larger, the more stable
SIGNS = numpy.array([-1, -1, 1])
# 1: the more, the better
OUTCOMES = {"prompt recognised": 1, "mixture index": -1, "palette validity": 1, **dict.fromkeys(REALISM.values(), 1)}


def main(options) -> int:
    output = Path(options.output or OUTPUT)
    results = report.RESULTS if options.publish else output / "seeds"
    results.mkdir(parents=True, exist_ok=True)
    asked = [(prompts(s, FULL.main_prompts), seeds(s, FULL.main_prompts)) for s in range(FULL.sets)]
    factors, drawn = (numpy.concatenate(parts) for parts in zip(*asked))
    with multiprocessing.get_context("spawn").Pool(processes(options.jobs), sampling.start, (1,)) as pool:
        conditions = pool.apply(sampling.conditions)
        made_with = provenance.provenance(conditions)
        folder = output / f"watched-{digest(conditions, list(WINDOWS), PREVIEWS)}"
        folder.mkdir(parents=True, exist_ok=True)
        batches = list(sampling.batches(numpy.repeat(factors, PER_PROMPT, axis=0), drawn))
        paths = [folder / f"{digest(*batch)}.npz" for batch in batches]
        missing = [(path, *batch, tuple(WINDOWS.values()), PREVIEWS) for path, batch in zip(paths, batches) if not path.exists()]
        for number, result in enumerate([pool.apply_async(sampling.watch, arguments) for arguments in missing], 1):
            result.get()
            print(f"{number}/{len(missing)}", flush=True)
    watched = [numpy.load(path) for path in paths]
    stability = SIGNS[:, None, None, None] * numpy.concatenate([arrays["stability"] for arrays in watched], axis=-1)
    judge = Judge()
    pictures = numpy.concatenate([arrays["pictures"] for arrays in watched], axis=1)
    *previews, final = (Row(judge, "", of_step, factors).of_images for of_step in pictures)
    table = told(stability, final, dict(zip(PREVIEWS, previews)))
    table.to_csv(results / "seeds.csv", index=False, float_format="%.5g", lineterminator="\n")
    provenance.write(results, made_with, "seeds.json")
    text = report.seeds_table(results)
    (results / "seeds.md").write_text(text, encoding="utf-8")
    print(text)
    if options.publish:
        report.publish()
    return 0


def told(stability: Array, final: dict[str, Array], previews: dict[int, dict[str, Array]]) -> pandas.DataFrame:
    """What each measure of stability, and of a preview the outcome itself, tells about an outcome among the images of one prompt.

    `rho` is Spearman's within prompts, `gain` what is won by keeping the best of a prompt's images in its eyes.
    """
    predictors = [
        (f"{measure}, {window}", stage, dict.fromkeys(OUTCOMES, stability[m, w, g]))
        for (m, measure), (w, window), (g, stage) in product(enumerate(STEADINESS), enumerate(WINDOWS), enumerate(STAGES))
    ]
    predictors += [(f"preview after {step} steps", "", preview) for step, preview in previews.items()]
    predictors.append(("image", "", final))
    rows = []
    for (name, stage, values), (outcome, sign) in product(predictors, OUTCOMES.items()):
        x, y = (of_images[outcome].reshape(-1, PER_PROMPT) for of_images in (values, final))
        x, y = x if stage else sign * x, sign * y
        rows.append((name, stage, outcome, *within(x, y), *gain(x, y)))
    return pandas.DataFrame(rows, columns=["told by", "stage", "outcome", "prompts", "rho", "rho error", "p", "gain", "gain error"])


def within(x: Array, y: Array) -> tuple[int, float, float, float]:
    """Spearman's rho within prompts of (prompts, images) each, over those prompts whose images differ in y: how many they are, rho, its
    standard error by resampling them, and p, by the variance that the products of ranks have when a prompt's images are shuffled.
    """
    chosen = numpy.ptp(y, axis=1) > 0
    x, y = (rankdata(values[chosen], axis=1) - (PER_PROMPT + 1) / 2 for values in (x, y))
    products = numpy.stack([(x * y).sum(1), (x * x).sum(1), (y * y).sum(1)])
    drawn = products[:, numpy.random.default_rng(0).integers(len(x), size=(RESAMPLES, len(x)))].sum(-1)
    (both, of_x, of_y), (drawn_both, drawn_x, drawn_y) = products.sum(-1), drawn
    shuffled = ((x * x).sum(1) * (y * y).sum(1)).sum() / (PER_PROMPT - 1)
    p = 2 * norm.sf(abs(both) / numpy.sqrt(shuffled))
    return len(x), float(both / numpy.sqrt(of_x * of_y)), float((drawn_both / numpy.sqrt(drawn_x * drawn_y)).std(ddof=1)), float(p)


def gain(x: Array, y: Array) -> tuple[float, float]:
    """How far the y of the image (or images) with the greatest x is over its prompt's mean, and the standard error."""
    best = x == x.max(axis=1, keepdims=True)
    gains = (best * y).sum(1) / best.sum(1) - y.mean(1)
    return float(gains.mean()), float(gains.std(ddof=1) / len(gains) ** 0.5)


if __name__ == "__main__":
    sys.exit(main(SimpleNamespace(**json.loads(sys.argv[1]))))
