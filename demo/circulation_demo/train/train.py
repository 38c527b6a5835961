"""Trains the avatar model: a UNet that predicts v on Stable Diffusion's noise schedule, and one table of embeddings for each factor.

Run by `python3 -m demo.train`. It goes on where it was interrupted, and writes the averaged weights and the loss curve.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import comfy.ldm.modules.attention
import comfyui_version
import numpy
import torch
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

from ..avatars import unet, vae
from ..avatars.factors import FACTORS
from ..digest import digest, one_thread
from ..files import whole

BATCH = 64
STEPS = 9_000
LEARNING_RATE = 3e-3  # rises over the first steps, then falls in a line to zero
WARM_UP = 100  # steps
AVERAGE = 0.999  # of the weights, per step
SAVED_EVERY = 50  # steps
OPEN = 0.2  # how often a factor is left out of the prompt
EMPTY = 0.12  # how often the whole prompt is
ENDS = ("embedding.", ".input_blocks.0.", ".out.")  # what Muon is not for


class Trainee(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = unet.build(torch.float32)
        self.unet = self.model.diffusion_model.requires_grad_(True)  # newer ComfyUIs build networks that take no gradients
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


def latents(images: numpy.ndarray) -> tuple[torch.Tensor, float, list[float]]:
    """Avatars (N, 16, 16, 3) uint8 as latents (N, 4, 16, 16): red, green, blue, luma, of unit spread.

    With them the factor that gives them this spread, and their mean colour.
    """
    colour = torch.from_numpy(images).float() / 127.5 - 1
    four = vae.with_luma(colour).permute(0, 3, 1, 2)
    scale = float(1 / colour.std())
    return four * scale, scale, colour.mean((0, 1, 2)).tolist()


def plain_attention(q, k, v, heads, *args, **kwargs):
    """On small sequences and CPUs its gradient is several times faster than that of the fused kernel."""
    with torch.autocast(q.device.type, enabled=False):  # which would take the softmax to float32
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        weights = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(dim=-1)
        return (weights @ v).transpose(1, 2).flatten(2)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device calculates in it. A CPU without AVX-512 converts to float32 and back, and takes longer than in float32."""
    return device.type != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512"


class Float32(TorchFunctionMode):
    """`Tensor.bfloat16()` gives a copy in float32. Muon calls it on its matrices, which take most of a step where bfloat16 is imitated."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.bfloat16:
            return args[0].float().clone()
        return function(*args, **(kwargs or {}))


def learning_rate(step: int, steps: int) -> float:
    return LEARNING_RATE * min(1.0, (step + 1) / WARM_UP, 1 - step / steps)


def optimizers(trainee: Trainee) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the matrices and convolutions between the first layer and the last, AdamW for the rest.

    Muon takes matrices only: it is given each kernel as a view (out, in · height · width), and its gradient as one too.
    """
    matrices, rest = [], []
    for name, weight in trainee.named_parameters():
        weight.grad = torch.zeros_like(weight)
        if weight.ndim > 1 and not any(end in name for end in ENDS):
            matrix = torch.nn.Parameter(weight.detach().flatten(1))
            matrix.grad = weight.grad.flatten(1)
            matrices.append(matrix)
        else:
            rest.append(weight)
    return (
        torch.optim.Muon(matrices, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=0.01, fused=True),
    )


def spread(count: int, generator: torch.Generator) -> torch.Tensor:
    """(count,), one in each of as many equal parts of [0, 1): the loss depends on the noise much more than on the image."""
    return ((torch.arange(count) + torch.rand(count, generator=generator)) / count).clamp_max(1 - 2**-24)


class Lessons:
    """Avatars with noise of any strength, and how far from the truth the trainee's prediction of v is."""

    def __init__(self, data: Path, seed: int, trainee: Trainee, device: torch.device):
        with numpy.load(data) as arrays:
            images, *self.range = latents(arrays["images"])
            self._images, self._codes = images.to(device), (torch.from_numpy(arrays["factors"]).long() + 1).to(device)
        sigmas = trainee.model.model_sampling.sigmas.float().to(device)
        self._signal = 1 / (1 + sigmas**2).sqrt()
        self._noise = (1 - self._signal**2).sqrt()
        self._seed, self._device = seed, device

    def loss(self, trainee: Trainee, step: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)  # of the step, so that an interrupted run sees the same
        picked = torch.randint(len(self._images), (BATCH,), generator=generator).to(self._device)
        left_out = (torch.rand(BATCH, len(FACTORS), generator=generator) < OPEN) | (torch.rand(BATCH, 1, generator=generator) < EMPTY)
        timestep = (spread(BATCH, generator) * len(self._signal)).long().to(self._device)
        noise = torch.randn(BATCH, *self._images.shape[1:], generator=generator).to(self._device)
        a, s = (level[timestep][:, None, None, None] for level in (self._signal, self._noise))
        image, prompt = self._images[picked], self._codes[picked].masked_fill(left_out.to(self._device), 0)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=has_bfloat16(self._device)):
            predicted = trainee(a * image + s * noise, timestep.float(), prompt)
        return (predicted.float() - (a * noise - s * image)).square().mean()


class Training:
    """The trainee, the running average of its weights, and what moves both."""

    def __init__(self, data: Path, steps: int, seed: int, device: torch.device):
        torch.manual_seed(seed)
        self.steps = steps
        self.trainee = Trainee().to(device)
        self.average = Trainee().to(device)
        self.average.load_state_dict(self.trainee.state_dict())
        self.lessons = Lessons(data, seed, self.trainee, device)
        self.optimizers = optimizers(self.trainee)

    def step(self, step: int) -> torch.Tensor:
        """Take step number `step`; its loss, a scalar."""
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = learning_rate(step, self.steps)
        self.trainee.zero_grad(set_to_none=False)  # Muon holds views of the gradients
        loss = self.lessons.loss(self.trainee, step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trainee.parameters(), 1.0)
        muon, adamw = self.optimizers
        with nullcontext() if has_bfloat16(loss.device) else Float32():
            muon.step()
        adamw.step()
        with torch.no_grad():
            kept = min(AVERAGE, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(self.average.parameters()), list(self.trainee.parameters()), 1 - kept)
        return loss.detach()

    def state(self) -> dict:
        return {
            "trainee": self.trainee.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load(self, state: dict) -> None:
        self.trainee.load_state_dict(state["trainee"])
        self.average.load_state_dict(state["average"])
        for optimizer, of_it in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(of_it)


def conditions(data: Path, steps: int, seed: int, device: torch.device) -> dict:
    """All that a training depends on, as values of JSON's types. What the code does, the weights after a first step tell, taken from
    a start without zeros, behind which nothing would be seen.
    """
    first = Training(data, steps, seed, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for weight in first.trainee.parameters():
        torch.nn.init.normal_(weight, std=0.02, generator=generator)
    with one_thread():
        first.step(0)
    return {
        "data": digest(data),
        "steps": steps,
        "seed": seed,
        "device": device.type,
        "learning": [LEARNING_RATE, WARM_UP, AVERAGE],
        "torch": torch.__version__,
        "comfyui": comfyui_version.__version__,
        "behaviour": digest(*(weight.detach() for weight in first.trainee.parameters())),
    }


def train(data: Path, work: Path, steps: int, seed: int = 0) -> Path:
    """A folder in `work` with the averaged weights (`avatars.safetensors`), the curve of the loss and the state of the training."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    comfy.ldm.modules.attention.optimized_attention = comfy.ldm.modules.attention.optimized_attention_masked = plain_attention
    folder = work / f"training-{digest(conditions(data, steps, seed, device))}"
    folder.mkdir(parents=True, exist_ok=True)
    training = Training(data, steps, seed, device)
    checkpoint = folder / "training.pt"
    done, spent, curve = 0, 0.0, []
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        training.load(state)
        done, spent, curve = state["done"], state["spent"], state["curve"]
        print(f"Going on after step {done} of {steps}.", flush=True)
    losses, started = [], time.monotonic()
    for step in range(done, steps):
        losses.append(training.step(step))
        done = step + 1
        if done % SAVED_EVERY == 0 or done == steps:
            now = spent + time.monotonic() - started
            mean = float(torch.stack(losses).mean())
            losses.clear()
            curve.append([done, f"{mean:.5f}", f"{learning_rate(step, steps):.3e}", round(now)])
            print(f"step {done}/{steps}  loss {mean:.4f}  {now / 60:.1f} min", flush=True)
            draw_up(folder / "loss.csv", curve)
            whole(folder / "avatars.safetensors", partial(write, training.average, training.lessons.range, done, seed))
            state = {**training.state(), "done": done, "spent": now, "curve": curve}
            whole(checkpoint, partial(torch.save, state))  # the last: what is told by it is there
    return folder


def draw_up(path: Path, curve: list) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["step", "loss", "learning rate", "seconds"], *curve])


def write(trainee: Trainee, range_of_latents: Sequence, steps: int, seed: int, out: Path) -> None:
    """The averaged weights in float16, in the layout of a Stable Diffusion checkpoint."""
    weights = {f"model.diffusion_model.{key}": value for key, value in trainee.unet.state_dict().items()}
    weights |= {f"factors.{factor.name}": table.weight.detach() for factor, table in zip(FACTORS, trainee.embedding)}
    scale, centre = range_of_latents
    about = {"scale": json.dumps(scale), "centre": json.dumps(centre), "steps": str(steps), "batch": str(BATCH), "seed": str(seed)}
    about["factors"] = json.dumps({factor.name: factor.words for factor in FACTORS})
    save_file({key: value.half().contiguous().cpu() for key, value in weights.items()}, out, about)
