"""The work on the model: images of each setting, stability of the baselines, change of the noise prediction. Runs in worker processes."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy
import torch
from numpy import ndarray as Array

from .. import ROOT
from ..digest import digest, one_thread
from ..files import whole
from ..inprocess import args, load, patch, probe
from .data import model_prompts, prompts, seeds
from .plan import BASELINE, CFG, EXAMPLES, PER_PROMPT, SAMPLER, SCHEDULER, STEPS, Setting

BATCH = 64
STABILITY = ("energy", "instability", "alignment")
SPACES = ("value space", "input space (paper)")


class Model:
    """The avatar model in this process, into which the pack is loaded."""

    def __init__(self, file: Path | None = None, dtype: torch.dtype = torch.float32):
        """`file` holds the weights, by default those in the box; `dtype` is what the UNet calculates in."""
        from ..avatars import loader

        self.file = file or loader.FILE
        self.unet, self.text, self.vae = loader.load(self.file, dtype)
        # Its kernels see a single pixel (`avatars.vae`), so without the enlargement by eight each pixel is the same.
        decoder = self.vae.first_stage_model.taesd_decoder
        for number, layer in enumerate(decoder):
            if isinstance(layer, torch.nn.Upsample):
                decoder[number] = torch.nn.Identity()

    def under(self, setting: Setting):
        return self.unet if setting.node is None else patch(self.unet, setting.node, **setting.inputs)

    @torch.inference_mode()
    def latents(self, model, factors: Array, seeds: Array, steps: int = STEPS, callback=None) -> torch.Tensor:
        """(N, 4, 16, 16) of N prompts (positions of their factors' values, (N, 9)) and seeds (N,), sampled as one batch."""
        import comfy.sample

        noise = self.noise(seeds)
        arguments = (SAMPLER, SCHEDULER, *self.conditionings(factors), torch.zeros_like(noise))
        return comfy.sample.sample(model, noise, steps, CFG, *arguments, callback=callback, disable_pbar=True, seed=int(seeds[0]))

    def conditionings(self, factors: Array) -> tuple[list, list]:
        """The positive one of N prompts and the empty negative one, as a sampler takes them."""
        positive = [[self.text.encode((factors + 1).tolist()), {}]]
        # An empty prompt is a word in a vocabulary like any other here, so both halves have the same length.
        return positive, self.text.encode_from_tokens_scheduled(self.text.tokenize(""))

    @staticmethod
    def noise(seeds: Array) -> torch.Tensor:
        """(N, 4, 16, 16): each image's noise as it would be alone in its batch."""
        import comfy.sample

        blank = torch.zeros(1, 4, 16, 16)
        return torch.cat([comfy.sample.prepare_noise(blank, seed) for seed in seeds.tolist()])

    @torch.inference_mode()
    def images(self, latents: torch.Tensor) -> Array:
        """(N, 16, 16, 3) uint8: a pixel for each latent pixel."""
        decoded = torch.cat([self.vae.decode(part) for part in latents.split(BATCH)])
        assert decoded.shape[1:3] == latents.shape[2:]
        return (decoded * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()

    def measured(self, factors: Array, seeds: Array, steps: int = STEPS) -> tuple[torch.Tensor, Array]:
        """The baseline's latents and the stability of its images, (space, measure, stage, image)."""
        model, records = self.unet, []
        for space in SPACES:
            model, record = probe(model, measure_in=space)
            records.append(record)
        latents = self.latents(model, factors, seeds, steps)
        return latents, numpy.stack([by_stage(record.of(None).runs[-1]) for record in records])

    def behaviour(self) -> str:
        """A digest of what the pack's nodes do to the model now: latents after a few steps under each example, and what the probe reads."""
        factors, drawn, steps = prompts(0, 2), seeds(0, 2)[::PER_PROMPT], 3
        with one_thread():
            outputs = [self.latents(self.under(setting), factors, drawn, steps) for setting in EXAMPLES]
            return digest(*self.measured(factors, drawn, steps), *outputs)

    def conditions(self) -> dict:
        """All that images depend on but their settings, prompts and seeds, as values of JSON's types."""
        import comfyui_version
        from comfy.model_management import get_torch_device

        return {
            "model": digest(self.file),
            "sampler": dict(steps=STEPS, cfg=CFG, sampler=SAMPLER, scheduler=SCHEDULER, batch=BATCH),
            "torch": torch.__version__,
            "comfyui": comfyui_version.__version__,
            "device": str(get_torch_device()),
            "behaviour": self.behaviour(),
        }


_model: Model


def start(threads: int) -> None:
    """Set up a worker process."""
    global _model
    os.environ["OMP_NUM_THREADS"] = str(threads)
    args.cpu, args.use_pytorch_cross_attention = not torch.cuda.is_available(), True
    load(ROOT)
    for noisy in ("root", "comfy"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    torch.set_num_threads(threads)
    _model = Model()


def model() -> Model:
    """That of this process."""
    return _model


def conditions() -> dict:
    return _model.conditions()


def batches(factors: Array, seeds: Array) -> Iterator[tuple[Array, Array]]:
    for first in range(0, len(seeds), BATCH):
        yield factors[first : first + BATCH], seeds[first : first + BATCH]


def sample(path: Path, setting: Setting, seed_set: int, count: int) -> None:
    """Images of `count` prompts, and for the baseline their stability, in one file."""
    asked, drawn = prompts(seed_set, count), seeds(seed_set, count)
    images, stability = [], []
    for factors, batch_seeds in batches(numpy.repeat(asked, PER_PROMPT, axis=0), drawn):
        if setting == BASELINE:
            latents, measured = _model.measured(factors, batch_seeds)
            stability.append(measured)
        else:
            latents = _model.latents(_model.under(setting), factors, batch_seeds)
        images.append(_model.images(latents))
    arrays = {"images": numpy.concatenate(images), "factors": asked, "seeds": drawn}
    if stability:
        arrays["stability"] = numpy.concatenate(stability, axis=-1)
    save(path, **arrays)


def save(path: Path, **arrays) -> None:
    def write(part: Path) -> None:
        with part.open("wb") as file:  # a path would get .npz at its end
            numpy.savez_compressed(file, **arrays)

    whole(path, write)


def sample_the_model(path: Path, count: int) -> None:
    """The baseline on `count` prompts, one image each."""
    asked = model_prompts(count)
    images = [_model.images(_model.latents(_model.unet, *batch)) for batch in batches(asked, numpy.arange(count))]
    save(path, images=numpy.concatenate(images), factors=asked)


def watch(path: Path, factors: Array, seeds: Array, windows: Sequence[slice], previews: Sequence[int]) -> None:
    """Of the baseline's images `stability` in each window of steps, (measure, window, stage, image), and `pictures`,
    (step, image, 16, 16, 3): the previews after so many steps, and at the end the images.
    """
    model, record = probe(_model.unet, measure_in=SPACES[0])
    shown = []

    def keep(step, denoised, *_):
        if step + 1 in previews:
            shown.append(_model.unet.model.process_latent_out(denoised))

    shown.append(_model.latents(model, factors, seeds, callback=keep))
    run = record.of(None).runs[-1]
    stability = numpy.stack([by_stage(run, window) for window in windows], axis=1)
    save(path, stability=stability, pictures=numpy.stack([_model.images(latents) for latents in shown]))


def by_stage(run, steps: slice = slice(None)) -> Array:
    """(measure, stage, image): means over steps, branches and the blocks of input, middle, output, and all."""
    stages = run.stages()
    chosen = [*(stages[stage] for stage in ("input", "middle", "output")), sorted(itertools.chain(*stages.values()))]
    return torch.stack([run.values[: len(STABILITY), steps][:, :, blocks].nanmean(dim=(1, 2, 3)) for blocks in chosen], dim=1).numpy()


def predict(path: Path, settings: tuple[Setting, ...], count: int) -> None:
    """Change of the guided noise prediction at the baseline's own noisy images, relative to the prediction's length.

    `settings` begin with the baseline. `changes` in the file: (setting, step, image).
    """
    import comfy.sample
    import comfy.samplers

    asked, drawn = prompts(0, count), seeds(0, count)[::PER_PROMPT]
    sampling = _model.unet.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, SCHEDULER, STEPS)
    noisy: list[torch.Tensor] = []
    conditionings = _model.conditionings(asked)
    noise = _model.noise(drawn)

    def run(model, sampler, callback=None):
        with torch.inference_mode():
            arguments = (sampler, sigmas, *conditionings, torch.zeros_like(noise))
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

    run(_model.unet, comfy.samplers.sampler_object(SAMPLER), lambda step, denoised, x, of: noisy.append(x.clone()))
    plain = noise_predictions(settings[0])
    changes = [((noise_predictions(s) - plain).norm(dim=-1) / plain.norm(dim=-1)).numpy() for s in settings[1:]]
    names = [setting.name for setting in settings[1:]]
    save(path, changes=numpy.stack(changes), settings=names, sigmas=sigmas[:-1].numpy())
