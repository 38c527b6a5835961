"""ComfyUI in this process, with the pack and the demo's nodes loaded as ComfyUI loads them, and images made by its own sampler.

Import this before anything of ComfyUI's.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent
PACK = DEMO.parent

sys.path[:0] = [os.environ["COMFYUI_PATH"]]

from comfy.cli_args import args  # noqa: E402
import torch  # noqa: E402

args.cpu = not torch.cuda.is_available()
args.use_pytorch_cross_attention = True

import comfy.sample  # noqa: E402
import comfy_api.latest._io  # noqa: E402
import nodes as comfy_nodes  # noqa: E402

for pack in (PACK, DEMO / "avatars"):
    assert asyncio.run(comfy_nodes.load_custom_node(str(pack))), f"ComfyUI could not load {pack}"
for noisy in ("root", "comfy"):
    logging.getLogger(noisy).setLevel(logging.WARNING)
# as ComfyUI names the packages that it loads
loader = importlib.import_module(f"{str(DEMO / 'avatars').replace('.', '_x_')}.loader")


def node(node_id: str):
    return comfy_nodes.NODE_CLASS_MAPPINGS[node_id]


def circulated(model, node_id: str = "CirculationControl", **inputs):
    """The MODEL that one of the pack's nodes makes of `model`, with the node's defaults for what is not given."""
    required, optional = (node(node_id).INPUT_TYPES()[kind] for kind in ("required", "optional"))
    defaults = {name: spec[1]["default"] for name, spec in {**required, **optional}.items() if "default" in spec[1]}
    return node(node_id).execute(model, **{**defaults, **inputs}).result[0]


def probed(model, **inputs):
    """The MODEL of a Stability Probe and the record that sampling with it fills."""
    hidden, newer = {"UNIQUE_ID": "1"}, hasattr(comfy_api.latest._io, "V3Data")
    cls = node("StabilityProbe").PREPARE_CLASS_CLONE({"hidden_inputs": hidden} if newer else hidden)
    return cls.execute(model, **{"measure_in": "value space", "every_n_steps": 1, "blocks": "all", **inputs}).result


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
