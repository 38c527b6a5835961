"""Trains the models, samples the rows and measures them. `python3 -m demo.evidence --models` starts this with its options as JSON.

What is there is not made again: an interrupted study goes on where it was.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch

from .. import DEMO
from ..digest import digest
from ..evidence.main import MEMORY, pool, processes
from ..evidence.provenance import provenance
from ..evidence.report import MODELS, publish
from . import analysis, blocks, plan, report, sampling

OUTPUT = DEMO / "output" / "evidence" / "models"


def main(options) -> int:
    output = Path(options.output or OUTPUT)
    results = MODELS if options.publish else output / "results"
    places = [Place(seed, output, results) for seed in plan.MODELS]
    unfinished = [place for place in places if place.missing(plan.ROWS)]
    jobs = processes(options.jobs)
    with ThreadPoolExecutor(jobs) as threads:
        list(threads.map(train, unfinished))
    with pool(jobs, threads=1) as workers:
        workers.map(describe, unfinished)
        finish(workers, unfinished, (plan.OFF,))  # all others are compared with these images
        check(results)
        workers.map(measure_blocks, unfinished)
        finish(workers, unfinished, plan.ROWS)
    report.write(results)
    if options.publish:
        publish()
    print(f"Tables, the graphs and the measures of each image: {results}")
    return 0


class Place(NamedTuple):
    """Where the weights, the images and the results of a model are. With all results there, weights and images are not asked for."""

    seed: int
    output: Path
    results: Path

    @property
    def weights(self) -> Path:
        return self.output / f"{self.seed}.safetensors"

    @property
    def images(self) -> Path:
        return self.output / str(self.seed)

    @property
    def measures(self) -> Path:
        return self.results / str(self.seed)

    def missing(self, rows: Sequence[plan.Row]) -> list[plan.Row]:
        return [row for row in rows if not (self.measures / f"{row.slug}.csv").exists()]


def train(place: Place) -> None:
    """Train a model on one thread, where it is not trained yet."""
    if not place.weights.exists():
        options = dict(steps=plan.TRAINING_STEPS, seed=place.seed, threads=1, output=str(place.weights), install=False)
        command = [sys.executable, "-m", "circulation_demo.train.main", json.dumps(options)]
        subprocess.run(command, check=True, env={**MEMORY, **os.environ, "OMP_NUM_THREADS": "1"})


def describe(place: Place) -> None:
    """`model.json`, the digest of the weights and what its images are made with, and `loss.csv`, how it was trained.

    Raises ValueError where there are results of other weights: a model that is trained again is another one.
    """
    import comfyui_version

    from ..avatars import loader

    weights, described = digest(place.weights), place.measures / "model.json"
    if described.exists() and json.loads(described.read_text(encoding="utf-8"))["weights"] != weights:
        asked = "Name another --output, or move them away."
        raise ValueError(f"The results in {place.measures} are of another model than {place.weights}. {asked}")
    made_with = provenance({"torch": torch.__version__, "comfyui": comfyui_version.__version__, "weights": weights})
    about = {**made_with, "seed": place.seed, "steps of training": plan.TRAINING_STEPS, "model in the box": digest(loader.FILE)}
    for folder in (place.images, place.measures):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(place.weights.with_suffix(".csv"), place.measures / "loss.csv")
    described.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def measure_blocks(place: Place) -> None:
    if not (place.measures / "blocks.json").exists():
        blocks.measure(place.weights, place.measures)


def check(results: Path) -> None:
    """Raises ValueError where models are too poor to ask."""
    shown = {seed: analysis.table(results / str(seed), plan.OFF.slug)[plan.PRIMARY[0]].mean() for seed in plan.MODELS}
    if poor := [f"model {seed} {share:.1%}" for seed, share in shown.items() if share < plan.GOOD_ENOUGH]:
        asked = f"Too little of what was asked is in the images without a knob: {', '.join(poor)}, not {plan.GOOD_ENOUGH:.0%}."
        raise ValueError(f"{asked} The models need more than {plan.TRAINING_STEPS} steps of training.")


def finish(workers, places: Sequence[Place], rows: Sequence[plan.Row]) -> None:
    """Measure all rows that are not there, model by model: of a model with all its rows the numbers are complete."""
    started = time.monotonic()
    work = [(place, row) for place in places for row in place.missing(rows)]
    pending = [workers.apply_async(sampling.measure, (place.weights, row.slug, place.images, place.measures)) for place, row in work]
    for number, (result, (place, row)) in enumerate(zip(pending, work), 1):
        result.get()
        print(f"{number}/{len(work)}  {(time.monotonic() - started) / 60:.1f} min  model {place.seed}, {row.name}", flush=True)


if __name__ == "__main__":
    sys.exit(main(SimpleNamespace(**json.loads(sys.argv[1]))))
