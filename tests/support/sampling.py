"""Sampling through ComfyUI's own sampler."""

import re

import comfy.model_management
import comfy.sample
import comfy.samplers
import torch

from .models import conditioning

_CHANGE = re.compile(r" Attention changed by \S+ %( in the first step)?\.")


def sample(
    model, name="sd15", *, steps=2, cfg=4.0, sampler="euler", scheduler="normal", size=16, batch=1, seed=0,
    noise=None, latent=None, positive=None, negative=None, denoise=1.0, **kwargs,
) -> torch.Tensor:  # fmt: skip
    """The latent that ComfyUI's KSampler makes, (batch, 4, size, size)."""
    latent = torch.zeros(batch, 4, size, size) if latent is None else latent
    noise = comfy.sample.prepare_noise(latent, seed) if noise is None else noise
    with torch.inference_mode():
        return comfy.sample.sample(
            model,
            noise,
            steps,
            cfg,
            sampler,
            scheduler,
            conditioning(name, 1) if positive is None else positive,
            conditioning(name, 2) if negative is None else negative,
            latent,
            denoise=denoise,
            disable_pbar=True,
            seed=seed,
            **kwargs,
        )


def without_change(statuses: dict[str, str]) -> dict[str, str]:
    """What Circulation nodes are told, but for how much attention changed, which has tests of its own."""
    assert all(map(_CHANGE.search, statuses.values())), statuses
    return {node: _CHANGE.sub("", line) for node, line in statuses.items()}
