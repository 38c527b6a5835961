"""The evidence itself. `python3 -m demo.evidence` starts this module in the environment it has prepared, with its options as JSON."""

from __future__ import annotations

import json
import multiprocessing.pool
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

from .. import DEMO
from ..digest import digest
from . import evaluate, plan, provenance, report, sampling
from .data import Samples

OUTPUT = DEMO / "output" / "evidence"
# Linux: processes keep the memory that they need again a moment later, in large pages. Taking it anew takes up to a third of their time.
MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def main(options) -> int:
    size = {s.name: s for s in (plan.FULL, plan.DEFAULT, plan.QUICK)}[options.study]
    output = Path(options.output or OUTPUT)
    results = report.RESULTS if options.publish else output / size.name
    results.mkdir(parents=True, exist_ok=True)
    samples, conditions = make(size, output, options.jobs)
    made_with = provenance.provenance(conditions)  # before results change the work tree
    print("Measuring ...", flush=True)
    evaluate.evaluate(samples, results)
    report.write(samples, results)
    provenance.write(results, made_with)
    print(f"Tables, graphs and raw numbers: {results}")
    if options.publish:
        report.publish()
    return report.headline(results)


def processes(jobs: int | None) -> int:
    """As many as are asked for, or one for each core; one on a GPU."""
    return 1 if torch.cuda.is_available() else jobs or os.cpu_count() or 1


def pool(jobs: int, threads: int) -> multiprocessing.pool.Pool:
    """Worker processes with ComfyUI and the pack in them."""
    os.environ |= MEMORY | os.environ
    return multiprocessing.get_context("spawn").Pool(jobs, sampling.start, (threads,))


def make(size: plan.Size, output: Path, jobs: int | None) -> tuple[Samples, dict]:
    """Sample what is not there yet under the conditions of today. Files are written whole, so an interrupted run goes on where it was."""
    jobs = processes(jobs)
    started, threads = time.monotonic(), max(1, (os.cpu_count() or 1) // jobs)
    with pool(jobs, threads) as workers:
        conditions = workers.apply(sampling.conditions)
        samples = Samples(output / f"images-{digest(conditions)}", size)
        samples.folder.mkdir(parents=True, exist_ok=True)
        (samples.folder / "conditions.json").write_text(json.dumps(conditions, indent=2) + "\n", encoding="utf-8")
        work = missing(samples)
        pending = [(what, workers.apply_async(task, arguments)) for what, task, arguments in work]
        workers.close()
        for number, (what, result) in enumerate(pending, 1):
            result.get()
            print(f"{number}/{len(work)}  {(time.monotonic() - started) / 60:.1f} min  {what}", flush=True)
    return samples, conditions


def missing(samples: Samples) -> list[tuple[str, Callable[..., None], tuple]]:
    """What is still to be sampled: its name for people, a function of `sampling` and its arguments. The longest comes first."""
    size = samples.size
    work: list[tuple[str, Callable[..., None], tuple]] = [
        ("the model", sampling.sample_the_model, (samples.of_the_model, size.model_prompts)),
        ("noise predictions", sampling.predict, (samples.predictions, plan.PREDICTION, size.prediction_images)),
        *(
            (f"{setting.name}, seeds {seed_set + 1}", sampling.sample, (path, setting, seed_set, size.prompts_of(setting)))
            for setting in size.settings
            for seed_set, path in enumerate(samples.of(setting))
        ),
    ]
    return [(what, task, arguments) for what, task, arguments in work if not arguments[0].exists()]


if __name__ == "__main__":
    sys.exit(main(SimpleNamespace(**json.loads(sys.argv[1]))))
