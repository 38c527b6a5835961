"""From the file to what ComfyUI samples with."""

from __future__ import annotations

import json
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch
from safetensors import safe_open

from . import unet, vae
from .factors import FACTORS
from .text import FactorEncoder

FILE = Path(__file__).resolve().parents[2] / "model" / "avatars.safetensors"
PREFIX = "model.diffusion_model."


def load(path: Path = FILE, dtype: torch.dtype = torch.float32) -> tuple[comfy.model_patcher.ModelPatcher, FactorEncoder, comfy.sd.VAE]:
    """The UNet calculates in `dtype`. Raises FileNotFoundError where the file is missing."""
    with safe_open(path, "pt") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}
        scale, centre = (json.loads(file.metadata()[key]) for key in ("scale", "centre"))
    model = unet.build(dtype)
    model.model_sampling = unet.Sampling(model.model_config, vae.with_luma(torch.tensor(centre)) * scale)
    model.diffusion_model.load_state_dict({k.removeprefix(PREFIX): w for k, w in weights.items() if k.startswith(PREFIX)})
    patcher = comfy.model_patcher.ModelPatcher(
        model.eval().requires_grad_(False),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    text = FactorEncoder([weights[f"factors.{factor.name}"] for factor in FACTORS])
    return patcher, text, comfy.sd.VAE(sd=vae.state_dict(scale, centre))
