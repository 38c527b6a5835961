"""Images of one row under one model, and what is measured of them. Runs in worker processes."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy
import pandas
import torch
from numpy import ndarray as Array

from ..digest import digest
from ..evidence.data import prompts, seeds
from ..evidence.judge import Judge, Row
from ..evidence.metrics import halves
from ..evidence.plan import PER_PROMPT, SCHEDULER, STEPS
from ..evidence.sampling import Model, batches, save
from ..files import whole
from . import plan

HALVES = 100
DIGITS = ".4g"
judge = functools.cache(Judge)


@functools.lru_cache(2)
def model(weights: Path, dtype: torch.dtype) -> Model:
    return Model(weights, dtype)


@torch.inference_mode()
def latents(model: Model, row: plan.Row, factors: Array, drawn: Array) -> torch.Tensor:
    """(N, 4, 16, 16) of N prompts and seeds."""
    import comfy.sample
    import comfy.samplers

    sigmas = comfy.samplers.calculate_sigmas(model.unet.get_model_object("model_sampling"), SCHEDULER, STEPS)
    sampler = comfy.samplers.ksampler(row.sampler, row.sampler_options)
    noise, changed = model.noise(drawn), row.change(model.unet)
    arguments = (row.cfg, sampler, sigmas, *model.conditionings(factors), torch.zeros_like(noise))
    return comfy.sample.sample_custom(changed, noise, *arguments, disable_pbar=True, seed=int(drawn[0]))


def asked(seed_set: int, count: int) -> tuple[Array, Array]:
    """Factors (N, 9) and seeds (N,) of the images of so many prompts."""
    return numpy.repeat(prompts(seed_set, count), PER_PROMPT, axis=0), seeds(seed_set, count)


def sampled(weights: Path, row: plan.Row, factors: Array, drawn: Array) -> Array:
    """Images (N, 16, 16, 3) uint8."""
    of_it = model(weights, row.dtype)
    return numpy.concatenate([of_it.images(latents(of_it, row, *batch)) for batch in batches(factors, drawn)])


def images(weights: Path, row: plan.Row, work: Path) -> dict[str, Array]:
    """`images` (N, 16, 16, 3) uint8 of all sets of seeds, and of a placebo `cosine`; sampled where they are not in `work` yet."""
    path = work / f"{row.slug}.npz"
    if not path.exists():
        arrays = {"images": numpy.concatenate([sampled(weights, row, *asked(seed_set, plan.PROMPTS)) for seed_set in range(row.sets)])}
        if row.placebo:
            arrays["cosine"] = numpy.array(row.placebo.cosine)
        save(path, **arrays)
    with numpy.load(path) as arrays:
        return dict(arrays)


def measure(weights: Path, slug: str, work: Path, results: Path) -> None:
    """`ROW.csv`, measures of each image, and `ROW.json`, those of the whole set, in `results`. Images stay in `work`."""
    row = next(row for row in plan.ROWS if row.slug == slug)
    made = images(weights, row, work)
    plain = None if row is plan.OFF else baseline(weights, work, row.sets)
    judged = Row(judge(), row.name, made["images"], factors(row.sets), plain and plain.images)
    about = {"row": row.name, "images": row.images, "digest": digest(made["images"]), "sets": of_sets(judged, plain)}
    if row.placebo:
        about[plan.COSINE] = round(float(made["cosine"]), 4)
    (results / f"{row.slug}.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    table = pandas.DataFrame({"prompt": numpy.arange(row.images) // PER_PROMPT, **judged.of_images})
    whole(results / f"{row.slug}.csv", functools.partial(table.to_csv, index=False, float_format=f"%{DIGITS}", lineterminator="\n"))


def factors(sets: int) -> Array:
    """Of the prompts of so many sets of seeds."""
    return numpy.concatenate([prompts(seed_set, plan.PROMPTS) for seed_set in range(sets)])


@functools.cache
def baseline(weights: Path, work: Path, sets: int) -> Row:
    """The first images without a knob, so many sets of them."""
    return Row(judge(), plan.OFF.name, images(weights, plan.OFF, work)["images"][: sets * plan.PROMPTS * PER_PROMPT], factors(sets))


def of_sets(judged: Row, plain: Row | None) -> dict[str, list[float]]:
    """Of each measure that only a set has: its value, or where there is a baseline the difference from it, and the standard error."""
    values, drawn = measured(judged)
    names = values.keys() - judged.of_images.keys()
    if plain is not None:
        values, drawn = ({name: both[name] - its[name] for name in names} for both, its in zip((values, drawn), measured_once(plain)))
    return {name: [float(f"{values[name]:{DIGITS}}"), float(f"{drawn[name].std(ddof=1):{DIGITS}}")] for name in sorted(names)}


def measured(judged: Row) -> tuple[dict[str, float], dict[str, Array]]:
    """A row's measures, and those of random halves of its images."""
    return judged.measures(), judged.draws(halves(len(judged.images) // PER_PROMPT, PER_PROMPT, HALVES))


measured_once = functools.cache(measured)  # for the baselines, which are asked for with each row
