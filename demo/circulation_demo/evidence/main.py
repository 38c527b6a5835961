"""The evidence itself. `python3 -m demo.evidence` starts this file in the environment it has prepared, with its options as JSON."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from .. import DEMO
from . import evaluate, plan, report, sampling
from .data import MODEL, file_of

OUTPUT = DEMO / "output" / "evidence"


def main(options) -> int:
    size = {s.name: s for s in (plan.FULL, plan.DEFAULT, plan.QUICK)}[options.size]
    # images of another model are of no use
    folder = OUTPUT / size.name / f"images-{hashlib.sha256((MODEL / 'avatars.safetensors').read_bytes()).hexdigest()[:8]}"
    results = DEMO / "evidence" / "results" if options.publish else folder.parent
    for directory in (folder, results):
        directory.mkdir(parents=True, exist_ok=True)
    make(size, folder, options.jobs)
    print("Measuring ...", flush=True)
    evaluate.evaluate(size, folder, results)
    report.write(size, folder, results)
    print(f"Tables, graphs and raw numbers: {results}")
    if options.publish:
        report.publish(results)
    return report.headline(results)


def make(size: plan.Size, folder: Path, jobs: int | None) -> None:
    """Make what is not there yet. What is there was made whole, so an interrupted run goes on where it was."""
    import torch

    gpu = torch.cuda.is_available()
    jobs = 1 if gpu else jobs or os.cpu_count()
    work = [
        (sampling.sample, (folder, setting, seed_set, size.prompts_of(setting)))
        for setting in size.settings
        for seed_set in range(size.sets)
        if seed_set < size.sets_of(setting) and not file_of(folder, setting, seed_set).exists()
    ]
    if not (folder / "prediction.npz").exists():
        work.insert(0, (sampling.prediction_change, (folder, plan.PREDICTION, size.prediction_images)))  # the longest first
    if not (folder / "model.npz").exists():
        work.insert(0, (sampling.of_the_model, (folder, size.model_prompts)))
    if not work:
        return
    # Linux: workers keep the memory that they will need again a moment later. Taking it anew takes up to a third of their time.
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32), **os.environ}
    started, threads = time.monotonic(), max(1, os.cpu_count() // jobs)
    with multiprocessing.get_context("spawn").Pool(jobs, sampling.start, (threads,)) as pool:
        pending = [pool.apply_async(task, arguments) for task, arguments in work]
        pool.close()
        for number, result in enumerate(pending, 1):
            name = result.get()
            print(f"{number}/{len(work)}  {(time.monotonic() - started) / 60:.1f} min  {name}", flush=True)


if __name__ == "__main__":
    sys.exit(main(SimpleNamespace(**json.loads(sys.argv[1]))))
