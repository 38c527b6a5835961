"""Trains the models, samples the rows and measures them. `python3 -m demo.evidence --models` starts this with its options as JSON.

What is there is not made again: an interrupted study goes on where it was.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

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
    jobs = processes(options.jobs)
    with ThreadPoolExecutor(jobs) as threads:
        weights = dict(zip(plan.MODELS, threads.map(partial(trained, output), plan.MODELS)))
    with pool(jobs, threads=1) as workers:
        workers.apply(describe, (weights, results))
        finish(workers, missing(weights, (plan.OFF,), output, results))  # all others are compared with these images
        check(results)
        workers.starmap(blocks.measure, [(path, results / str(seed)) for seed, path in weights.items()])
        finish(workers, missing(weights, plan.ROWS[1:], output, results))
    report.write(results)
    if options.publish:
        publish()
    print(f"Tables, the graphs and the measures of each image: {results}")
    return 0


def trained(output: Path, seed: int) -> Path:
    """The weights of a model, trained where they are not there yet, on one thread."""
    weights = output / f"{seed}.safetensors"
    if not weights.exists():
        options = dict(steps=plan.TRAINING_STEPS, seed=seed, threads=1, output=str(weights), install=False)
        command = [sys.executable, "-m", "circulation_demo.train.main", json.dumps(options)]
        subprocess.run(command, check=True, env={**MEMORY, **os.environ, "OMP_NUM_THREADS": "1"})
    return weights


def describe(weights: dict[int, Path], results: Path) -> None:
    """`models.json`: digests of the models, and what all images are made with.

    Raises ValueError where there are results of other models: a model that is trained again is another one.
    """
    from ..avatars import loader

    models, described = {str(seed): digest(path) for seed, path in weights.items()}, results / "models.json"
    if described.exists() and json.loads(described.read_text(encoding="utf-8"))["models"] != models:
        raise ValueError(f"The results in {results} are of other models than the weights. Name another --output, or move them away.")
    made_with = provenance({"torch": torch.__version__, "models": models})
    about = {**made_with, "steps of training": plan.TRAINING_STEPS, "model in the box": digest(loader.FILE)}
    results.mkdir(parents=True, exist_ok=True)
    described.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def check(results: Path) -> None:
    """Raises ValueError where models are too poor to ask."""
    shown = {seed: analysis.table(results / str(seed), plan.OFF.slug)[plan.PRIMARY[0]].mean() for seed in plan.MODELS}
    if poor := [f"model {seed} {share:.1%}" for seed, share in shown.items() if share < plan.GOOD_ENOUGH]:
        asked = f"Too little of what was asked is in the images without a knob: {', '.join(poor)}, not {plan.GOOD_ENOUGH:.0%}."
        raise ValueError(f"{asked} The models need more than {plan.TRAINING_STEPS} steps of training.")


def missing(weights: dict[int, Path], rows: Sequence[plan.Row], output: Path, results: Path) -> list[tuple[Path, str, Path, Path]]:
    """The arguments of `measure` for all that is not there, row by row, so that all models are at about the same row."""
    for seed in weights:
        for folder in (output / str(seed), results / str(seed)):
            folder.mkdir(parents=True, exist_ok=True)
    places = [(row, path, output / str(seed), results / str(seed)) for row in rows for seed, path in weights.items()]
    return [(path, row.slug, work, folder) for row, path, work, folder in places if not (folder / f"{row.slug}.csv").exists()]


def finish(workers, work: list[tuple[Path, str, Path, Path]]) -> None:
    started = time.monotonic()
    pending = [workers.apply_async(sampling.measure, arguments) for arguments in work]
    for number, (result, (_, slug, _, folder)) in enumerate(zip(pending, work), 1):
        result.get()
        print(f"{number}/{len(work)}  {(time.monotonic() - started) / 60:.1f} min  model {folder.name}, {slug}", flush=True)


if __name__ == "__main__":
    sys.exit(main(SimpleNamespace(**json.loads(sys.argv[1]))))
