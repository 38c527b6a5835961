"""Trains the avatar model: a UNet that predicts v on Stable Diffusion's noise schedule, and one table of embeddings for each factor.

Run by `python3 -m demo.train`. It goes on where it was interrupted, and writes the averaged weights and the loss curve.
"""

from __future__ import annotations

import copy
import csv
import json
import time
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file

import comfy.ldm.modules.attention
from avatars import unet, vae
from avatars.factors import FACTORS

BATCH = 64
LEARNING_RATE = 1e-3
WARM_UP = 100  # steps
DECAY = 0.3  # the last share of all steps, in which the learning rate goes to zero
AVERAGE = 0.999  # of the weights, per step
OPEN = 0.2  # how often a factor is left out of the prompt
EMPTY = 0.12  # how often the whole prompt is
LUMA = torch.tensor(vae.LUMA)


class Trainee(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = unet.build(torch.float32)
        self.unet = self.model.diffusion_model
        self.embedding = torch.nn.ModuleList(torch.nn.Embedding(len(f.values) + 1, unet.CONTEXT) for f in FACTORS)
        initialise(self.unet)

    def forward(self, noisy, timestep, codes):
        context = torch.stack([table(codes[:, position]) for position, table in enumerate(self.embedding)], dim=1)
        return self.unet(noisy, timestep, context=context)


def initialise(network: torch.nn.Module) -> None:
    """PyTorch's usual start, which ComfyUI's layers leave out, and zeros where a residual branch ends."""
    for module in network.modules():
        for kind in (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm):
            if isinstance(module, kind):
                kind.reset_parameters(module)
    for name, weight in network.named_parameters():
        if name.endswith(("out_layers.3.weight", "proj_out.weight", "out.2.weight")):
            torch.nn.init.zeros_(weight)


def latents(images: numpy.ndarray) -> tuple[torch.Tensor, float]:
    """Avatars (N, 16, 16, 3) uint8 as latents (N, 4, 16, 16) of unit spread: red, green, blue, luma; and the factor that made it so."""
    colour = torch.from_numpy(images).float() / 127.5 - 1
    four = torch.cat((colour, (colour * LUMA).sum(-1, keepdim=True)), dim=-1).permute(0, 3, 1, 2)
    scale = float(1 / colour.std())
    return four * scale, scale


def plain_attention(q, k, v, heads, *args, **kwargs):
    """On small sequences and CPUs its gradient is several times faster than that of the fused kernel."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1).to(v.dtype)
    return (weights @ v).transpose(1, 2).flatten(2)


def rate(step: int, steps: int) -> float:
    """Warm up, stay, go down in a line: a run that is made longer or shorter keeps all but its end."""
    return LEARNING_RATE * min(1.0, (step + 1) / WARM_UP, max(0.01, (steps - step) / (DECAY * steps)))


def train(data: Path, work: Path, out: Path, steps: int, seed: int = 0) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    comfy.ldm.modules.attention.optimized_attention = comfy.ldm.modules.attention.optimized_attention_masked = plain_attention
    torch.manual_seed(seed)
    with numpy.load(data) as arrays:
        x0, scale = latents(arrays["images"])
        codes = torch.from_numpy(arrays["factors"]).long() + 1
    x0, codes = x0.to(device), codes.to(device)
    trainee = Trainee().to(device)
    average = copy.deepcopy(trainee)
    optimizer = torch.optim.AdamW(trainee.parameters(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    sampling = trainee.model.model_sampling
    signal = (1 / (1 + sampling.sigmas.float() ** 2).sqrt()).to(device)
    noise_level = (1 - signal**2).sqrt()

    checkpoint, curve = work / "training.pt", work / "loss.csv"
    done, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        trainee.load_state_dict(state["trainee"]), average.load_state_dict(state["average"]), optimizer.load_state_dict(state["optimizer"])
        done, spent = state["done"], state["spent"]
        print(f"Going on after step {done} of {steps}.", flush=True)
    losses, started = [], time.monotonic()
    for step in range(done, steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)  # of the step, so that an interrupted run sees the same
        picked = torch.randint(len(x0), (BATCH,), generator=generator).to(device)
        left_out = (torch.rand(BATCH, len(FACTORS), generator=generator) < OPEN) | (torch.rand(BATCH, 1, generator=generator) < EMPTY)
        timestep = torch.randint(len(signal), (BATCH,), generator=generator).to(device)
        noise = torch.randn(BATCH, *x0.shape[1:], generator=generator).to(device)
        a, s = (level[timestep][:, None, None, None] for level in (signal, noise_level))
        prompts = codes[picked].masked_fill(left_out.to(device), 0)
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps)
        with torch.autocast(device.type, torch.bfloat16):
            predicted = trainee(a * x0[picked] + s * noise, timestep.float(), prompts)
        loss = (predicted.float() - (a * noise - s * x0[picked])).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(trainee.parameters()), 1 - min(AVERAGE, (step + 1) / (step + 10)))
        losses.append(loss.detach())
        if (step + 1) % 50 == 0 or step + 1 == steps:
            now = spent + time.monotonic() - started
            mean = float(torch.stack(losses).mean())
            losses.clear()
            note(curve, step + 1, mean, rate(step, steps), now)
            print(f"step {step + 1}/{steps}  loss {mean:.4f}  {now / 60:.1f} min", flush=True)
        if (step + 1) % 250 == 0 or step + 1 == steps:
            state = {"trainee": trainee.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            part = checkpoint.with_suffix(".part")
            torch.save({**state, "done": step + 1, "spent": spent + time.monotonic() - started}, part)
            part.replace(checkpoint)
            write(average, scale, step + 1, seed, out)


def note(curve: Path, step: int, loss: float, learning_rate: float, seconds: float) -> None:
    fresh = step == 50
    with curve.open("w" if fresh else "a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow(["step", "loss", "learning rate", "seconds"])
        writer.writerow([step, f"{loss:.5f}", f"{learning_rate:.3e}", round(seconds)])


def write(trainee: Trainee, scale: float, steps: int, seed: int, out: Path) -> None:
    """The averaged weights in float16, in the layout of a Stable Diffusion checkpoint."""
    weights = {f"model.diffusion_model.{key}": value for key, value in trainee.unet.state_dict().items()}
    weights |= {f"factors.{factor.name}": table.weight.detach() for factor, table in zip(FACTORS, trainee.embedding)}
    about = {"scale": repr(scale), "steps": str(steps), "batch": str(BATCH), "seed": str(seed)}
    about["factors"] = json.dumps({factor.name: factor.words for factor in FACTORS})
    save_file({key: value.half().contiguous().cpu() for key, value in weights.items()}, out, about)
