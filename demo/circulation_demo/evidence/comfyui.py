"""Images of the avatar model by ComfyUI's own sampler, in this process.

Import this before anything of ComfyUI's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import torch

from .. import ROOT

os.environ.setdefault("CIRCULATION_DEVICE", "cuda" if torch.cuda.is_available() else "cpu")

from ..inprocess import args, load, patch, probe  # noqa: E402, F401

args.use_pytorch_cross_attention = True

load(ROOT)
for noisy in ("root", "comfy"):
    logging.getLogger(noisy).setLevel(logging.WARNING)

import comfy.sample  # noqa: E402

from ..avatars import loader  # noqa: E402, F401


def noise(seeds: Sequence[int], size: int = 16) -> torch.Tensor:
    """Each image's noise as it would be alone in its batch, (B, 4, size, size)."""
    blank = torch.zeros(1, 4, size, size)
    return torch.cat([comfy.sample.prepare_noise(blank, seed) for seed in seeds])


@torch.inference_mode()
def sample(model, text, prompts: Sequence[Sequence[int]], seeds: Sequence[int], *, steps: int, cfg: float, sampler="dpmpp_2m", scheduler="karras"):
    """Latents (B, 4, 16, 16) of one prompt (its codes) and one seed each."""
    positive = [[text.encode(prompts), {}]]
    negative = text.encode_from_tokens_scheduled(text.tokenize(""))
    start = noise(seeds)
    # An empty prompt is a word in a vocabulary like any other here, so both halves have the same length.
    return comfy.sample.sample(
        model, start, steps, cfg, sampler, scheduler, positive, negative, torch.zeros_like(start), disable_pbar=True, seed=seeds[0]
    )


@torch.inference_mode()
def pictures(vae, latents: torch.Tensor) -> torch.Tensor:
    """Avatars (B, 16, 16, 3) uint8: the decoded picture at one pixel for each latent pixel."""
    decoded = torch.cat([vae.decode(part) for part in latents.split(64)])
    return (decoded[:, 4::8, 4::8] * 255).round().clamp(0, 255).to(torch.uint8).cpu()
