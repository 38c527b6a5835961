"""The work on the model: images of each setting, stability of the baselines, change of the noise prediction. Runs in worker processes."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy
import torch

from .data import MODEL_PROMPTS, avatars, file_of, prompts, seeds
from .plan import CFG, PER_PROMPT, STEPS, Setting

BATCH = 64
STABILITY = ("energy", "instability", "alignment")
SPACES = ("value space", "input space (paper)")


class Model:
    """The avatar model in this process."""

    def __init__(self, threads: int):
        from . import comfyui

        torch.set_num_threads(threads)
        logging.getLogger().setLevel(logging.WARNING)
        self.comfyui = comfyui
        self.unet, self.text, self.vae = comfyui.loader.load()

    def under(self, setting: Setting):
        return self.unet if setting.node is None else self.comfyui.patch(self.unet, setting.node, **setting.inputs)

    def images(self, model, factors: numpy.ndarray, seeds: numpy.ndarray) -> numpy.ndarray:
        """(N, 16, 16, 3) uint8 for one prompt (positions of its factors' values) and one seed each."""
        latents = self.comfyui.sample(model, self.text, (factors + 1).tolist(), seeds.tolist(), steps=STEPS, cfg=CFG)
        return self.comfyui.pictures(self.vae, latents).numpy()


_model: Model | None = None


def start(threads: int) -> None:
    global _model
    os.environ["OMP_NUM_THREADS"] = str(threads)
    _model = Model(threads)


def batches(factors: numpy.ndarray, seeds: numpy.ndarray):
    for first in range(0, len(seeds), BATCH):
        yield factors[first : first + BATCH], seeds[first : first + BATCH]


def sample(folder: Path, setting: Setting, seed_set: int, count: int) -> str:
    """Images of `count` prompts, and for the baseline their stability, in one file."""
    path = file_of(folder, setting, seed_set)
    asked, drawn = prompts(seed_set, count), seeds(seed_set, count)
    images, stability = [], []
    for factors, some in batches(numpy.repeat(asked, PER_PROMPT, axis=0), drawn):
        model, records = _model.under(setting), []
        if setting.node is None:
            for space in SPACES:
                model, record = _model.comfyui.probe(model, measure_in=space)
                records.append(record)
        images.append(_model.images(model, factors, some))
        if records:
            stability.append(numpy.stack([by_stage(record.of(None).runs[-1]) for record in records]))
    arrays = {"images": numpy.concatenate(images), "factors": asked, "seeds": drawn}
    if stability:
        arrays["stability"] = numpy.concatenate(stability, axis=-1)  # (space, measure, stage, image)
    return save(path, **arrays)


def save(path: Path, **arrays) -> str:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        numpy.savez_compressed(file, **arrays)
    part.replace(path)
    return path.name


def of_the_model(folder: Path, count: int) -> str:
    """The baseline on `count` prompts, one image each."""
    asked = avatars("held_out").factors[MODEL_PROMPTS][:count].astype(int)
    images = [_model.images(_model.unet, factors, some) for factors, some in batches(asked, numpy.arange(count))]
    return save(folder / "model.npz", images=numpy.concatenate(images), factors=asked)


def by_stage(run) -> numpy.ndarray:
    """(measure, stage, image): means over steps, branches and the blocks of input, middle, output, and all."""
    stages = run.stages()
    chosen = [*(stages[stage] for stage in ("input", "middle", "output")), sorted(sum(stages.values(), []))]
    return torch.stack([run.values[: len(STABILITY), :, blocks].nanmean(dim=(1, 2, 3)) for blocks in chosen], dim=1).numpy()


def prediction_change(folder: Path, settings: tuple[Setting, ...], count: int) -> str:
    """Change of the guided noise prediction at the baseline's own noisy images, (setting, step, image), relative to the prediction's length."""
    import comfy.sample
    import comfy.samplers

    c, asked, drawn = _model.comfyui, prompts(0, count), seeds(0, count)[::PER_PROMPT]
    sampling = _model.unet.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "karras", STEPS)
    noisy = []
    positive = [[_model.text.encode((asked + 1).tolist()), {}]]
    negative = _model.text.encode_from_tokens_scheduled(_model.text.tokenize(""))
    noise = c.noise(drawn.tolist())

    def run(model, sampler, callback=None):
        with torch.inference_mode():
            arguments = (sampler, sigmas, positive, negative, torch.zeros_like(noise))
            comfy.sample.sample_custom(model, noise, CFG, *arguments, callback=callback, disable_pbar=True, seed=int(drawn[0]))

    def noise_predictions(setting) -> torch.Tensor:
        predicted = []

        def replay(model, x, sigmas, extra_args, **_):
            for x, sigma in zip(noisy, sigmas[:-1]):
                denoised = model(x, sigma.expand(len(x)), **extra_args)
                predicted.append((x - denoised) / sigma)
            return x

        run(_model.under(setting), comfy.samplers.KSAMPLER(replay))
        return torch.stack(predicted).flatten(2)

    run(_model.unet, comfy.samplers.sampler_object("dpmpp_2m"), lambda step, denoised, x, of: noisy.append(x.clone()))
    own = noise_predictions(settings[0])
    changes = [((noise_predictions(s) - own).norm(dim=-1) / own.norm(dim=-1)).numpy() for s in settings[1:]]
    names = [setting.name for setting in settings[1:]]
    return save(folder / "prediction.npz", changes=numpy.stack(changes), settings=names, sigmas=sigmas[:-1].numpy())
