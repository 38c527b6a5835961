"""`pairs.png`: pictures without and with Circulation, chosen by rank alone: of so many pictures one changes at least as much as this.

`python3 -m demo.evidence --pairs` samples them again, at the places that the published `images.csv` gives.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy
from numpy import ndarray as Array
from pandas import DataFrame, read_csv

from . import metrics, plan, provenance, report, sampling
from .data import prompts, seeds
from .judge import IMAGE_CHANGE
from .main import OUTPUT
from .plan import PER_PROMPT, Setting

SETTINGS = plan.static(1.05, 3.0), plan.static(1.2, 5.0)
ONE_IN = (2, 4, 10, 50)
CHANGED = 0.1  # of full range, in any colour: Comparison Sheet frames pixels from there on


def main(options) -> int:
    results = report.RESULTS if options.publish else Path(options.output or OUTPUT)
    results.mkdir(parents=True, exist_ok=True)
    sampling.start(1)
    made_with = provenance.provenance(sampling.conditions())  # before results change the work tree
    images = read_csv(report.RESULTS / "images.csv")
    found = {setting: at_ranks(images[images["setting"] == setting.name]) for setting in SETTINGS}
    report.save(draw({setting: (places, *sampled(setting, places)) for setting, places in found.items()}), results / "pairs.png")
    provenance.write(results, made_with, "pairs.json")
    return 0


def at_ranks(images: DataFrame) -> DataFrame:
    """Of a setting's pictures one for each of `ONE_IN`."""
    ranks = [len(images) // one_in - 1 for one_in in ONE_IN]
    return images.sort_values(IMAGE_CHANGE, ascending=False, kind="stable").iloc[ranks]


def sampled(setting: Setting, places: DataFrame) -> tuple[Array, Array]:
    """The pictures at these places, without and with the setting, (N, 16, 16, 3) uint8 each.

    Raises ValueError where they change by more or less than is recorded.
    """
    model = sampling.model()
    factors, drawn = [], []
    for seed_set, prompt, image in places[["seed set", "prompt", "image"]].to_numpy() - 1:
        factors.append(prompts(seed_set, prompt + 1)[prompt])
        drawn.append(seeds(seed_set, prompt + 1)[prompt * PER_PROMPT + image])
    asked = numpy.array(factors), numpy.array(drawn)
    plain, changed = (model.images(model.latents(model.under(each), *asked)) for each in (plan.BASELINE, setting))
    change = metrics.image_change(changed, plain)
    if not numpy.allclose(change, places[IMAGE_CHANGE], rtol=0.05, atol=5e-4):
        raise ValueError(f"{setting.name} changes these pictures by {change} here, by {places[IMAGE_CHANGE].to_numpy()} in the results.")
    return plain, changed


def draw(pairs: dict[Setting, tuple[DataFrame, Array, Array]]):
    figure, axes = report.new_figure(2, len(pairs) * len(ONE_IN), 14, 4.4)
    columns = [
        (one_in, change, *pictures)
        for places, plain, changed in pairs.values()
        for one_in, change, *pictures in zip(ONE_IN, places[IMAGE_CHANGE], plain, changed)
    ]
    for (upper, lower), (one_in, change, plain, changed) in zip(axes.T, columns):
        differs = (numpy.abs(changed.astype(int) - plain).max(axis=-1) > 255 * CHANGED).repeat(8, axis=0).repeat(8, axis=1)
        for ax, picture in ((upper, plain), (lower, changed)):
            ax.imshow(picture, extent=(0, 16, 16, 0), interpolation="nearest")
            ax.set_xticks([])
            ax.set_yticks([])
        if differs.any():
            lower.contour(numpy.arange(0.5, 128) / 8, numpy.arange(0.5, 128) / 8, differs, [0.5], colors="#ff00ff", linewidths=1.5)
        upper.set_title(f"1 in {one_in}\n{100 * change:.1f} % or more", fontsize=10)
    for number, setting in enumerate(pairs):
        axes[1, number * len(ONE_IN)].set_ylabel(setting.strength, fontsize=10)
        axes[0, number * len(ONE_IN)].set_ylabel("off", fontsize=10)
    figure.suptitle("Same prompt and seed. 1 in N pictures changes by as much as this or more; lines are around what changed")
    return figure


if __name__ == "__main__":
    sys.exit(main(SimpleNamespace(**json.loads(sys.argv[1]))))
