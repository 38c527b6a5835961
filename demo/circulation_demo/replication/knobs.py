"""What is done to a model in each row of the study: our nodes, ComfyUI's, and what neither has, written out.

Each function gives a `Change`: from a model to the model that is sampled. All that is written out here works on the self-attentions
of a UNet, with q, k, v of shape (B, H, N, d).
"""

from __future__ import annotations

import functools
import importlib
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import comfy.model_patcher
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from scipy.stats import ortho_group
from torch import Tensor
from torch.nn.functional import conv2d, cosine_similarity, pad, scaled_dot_product_attention

from ..inprocess import patch

Change = Callable[[ModelPatcher], ModelPatcher]
Attention = Callable[[Tensor, Tensor, Tensor, dict], Tensor]  # of q, k, v and ComfyUI's options of the call

STAGES = {"input": 9, "middle": 1, "output": 9}  # numbers of blocks, at most
MIDDLE = {"middle": 1}


def unchanged(model: ModelPatcher) -> ModelPatcher:
    return model


# --- nodes


def circulation(**inputs) -> Change:
    return functools.partial(patch, node_id="CirculationControl", **inputs)


def adaptive(**inputs) -> Change:
    return functools.partial(patch, node_id="CirculationAdaptive", **inputs)


def stock(module: str, name: str, *arguments) -> Change:
    """A node of ComfyUI's own `comfy_extras`, old or new in its ways."""

    def change(model: ModelPatcher) -> ModelPatcher:
        node = getattr(importlib.import_module(f"comfy_extras.{module}"), name)
        output = node.execute(model, *arguments) if hasattr(node, "execute") else getattr(node(), node.FUNCTION)(model, *arguments)
        return getattr(output, "result", output)[0]

    return change


def temperature(factor: float) -> Change:
    """All logits of self-attention times `factor`: above 1 attention is sharper."""
    return stock("nodes_attention_multiply", "UNetSelfAttentionMultiply", factor, 1.0, 1.0, 1.0)


def perturbed_attention(scale: float) -> Change:
    """PAG, Ahn et al. 2024 (arXiv:2403.17377)."""
    return stock("nodes_pag", "PerturbedAttentionGuidance", scale)


def self_attention_guidance(scale: float) -> Change:
    """SAG, Hong et al. 2023 (arXiv:2210.00939), with the node's own blur."""
    return stock("nodes_sag", "SelfAttentionGuidance", scale, 2.0)


def free_u(backbone: float, skip: float) -> Change:
    """FreeU, Si et al. 2024 (arXiv:2309.11497), in its second version."""
    return stock("nodes_freelunch", "FreeU_V2", backbone, backbone, skip, skip)


# --- self-attention, written out


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """Values are widened to the width of queries: PyTorch's fast kernel on CPUs takes no others."""
    widened = pad(v, (0, q.shape[-1] - v.shape[-1]))
    return scaled_dot_product_attention(q, k, widened, scale=scale)[..., : v.shape[-1]]


def circulated(q: Tensor, k: Tensor, v: Tensor, alpha: float | Tensor) -> Tensor:
    """softmax(M_sym + α M_skew) v. A tensor `alpha` is (B, 1, 1, 1)."""
    return attend(torch.cat((q, k), -1), torch.cat(((1 + alpha) / 2 * k, (1 - alpha) / 2 * q), -1), v, q.shape[-1] ** -0.5)


def at_random(q: Tensor, k: Tensor, v: Tensor, alpha: float, rotation: Tensor) -> Tensor:
    """softmax(M + (α − 1) N) v, where N = (q R kᵀ − k Rᵀ qᵀ) / 2 √d is skew-symmetric as M_skew is, and R (H, d, d) is `rotation`."""
    a = (alpha - 1) / 2
    queries, keys = torch.cat((q, q @ rotation, k @ rotation.mT), -1), torch.cat((k, a * k, -a * q), -1)
    return attend(queries, keys, v, q.shape[-1] ** -0.5)


def with_alpha(alpha: float) -> Attention:
    return lambda q, k, v, options: circulated(q, k, v, alpha)


def length(t: Tensor) -> Tensor:
    return t.norm(dim=-1, keepdim=True).clamp_min(1e-6)


def blended(plain: Tensor, other: Tensor, beta: float) -> Tensor:
    """The paper's blend, brought back to the length of `other` as its rescale in value space does."""
    new = torch.lerp(plain, other, beta)
    return new * (length(other) / length(new)).clamp(0.25, 4)


@functools.cache
def rotation(draw: int, block: tuple, heads: int, d: int) -> Tensor:
    """(heads, d, d) from the Haar measure: another in each block and head, the same in each call."""
    seed = zlib.crc32(repr((draw, block)).encode())
    drawn = ortho_group(d).rvs(heads, random_state=seed).reshape(heads, d, d)
    return torch.from_numpy(drawn).float()


@dataclass
class Placebo:
    """As long a step as circulation takes, for each token and head, in a random skew direction of the logits.

    `cosines` are those between the two steps, averaged over tokens and heads of each call.
    """

    draw: int
    cosines: list[Tensor] = field(default_factory=list)

    @property
    def cosine(self) -> float:
        """The mean over all calls since the last time that this was read."""
        mean = float(torch.stack(self.cosines).mean())
        self.cosines.clear()
        return mean

    def retrieve(self, q: Tensor, k: Tensor, v: Tensor, options: dict, alpha: float) -> tuple[Tensor, Tensor]:
        """The plain retrieval and that of the placebo."""
        plain = attend(q, k, v)
        turned = at_random(q, k, v, alpha, rotation(self.draw, tuple(options["block"]), q.shape[1], q.shape[-1]))
        ours, other = circulated(q, k, v, alpha) - plain, turned - plain
        self.cosines.append(cosine_similarity(ours, other, dim=-1).mean())
        return plain, plain + other * (length(ours) / length(other))

    def circulation(self, alpha: float, beta: float) -> Change:
        return everywhere(lambda q, k, v, options: blended(*self.retrieve(q, k, v, options, alpha), beta))

    def guidance(self, alpha: float, scale: float) -> Change:
        return away_from(lambda q, k, v, options: self.retrieve(q, k, v, options, alpha)[1], scale)


def equalised(spread: float) -> Change:
    """One pass with a strength of its own for each call, `equal_spread`."""
    return everywhere(equal_spread(spread))


def equal_spread(spread: float) -> Attention:
    """α' = 1 + `spread` / σ, where σ is that of M_skew over the heads and pairs of tokens of an image."""

    def attention(q, k, v, options):
        logits = q @ k.mT * q.shape[-1] ** -0.5
        skew = (logits - logits.mT) / 2
        return circulated(q, k, v, 1 + spread / skew.flatten(1).std(dim=1).clamp_min(1e-6)[:, None, None, None])

    return attention


def everywhere(attention: Attention) -> Change:
    """`attention` in the place of each self-attention."""

    def change(model: ModelPatcher) -> ModelPatcher:
        model = model.clone()
        for stage, count in STAGES.items():
            for number in range(count):
                model.set_model_attn1_replace(replacement(attention), stage, number)
        return model

    return change


def replacement(attention: Attention) -> Callable[..., Tensor]:
    """An attention as ComfyUI calls it, with heads side by side in (B, N, H · d). It is calculated in float32."""

    def replaced(q, k, v, options, **_):
        dtype = q.dtype
        q, k, v = (t.float().unflatten(-1, (options["n_heads"], -1)).transpose(1, 2) for t in (q, k, v))
        return attention(q, k, v, options).transpose(1, 2).flatten(2).to(dtype)

    return replaced


# --- guidance


def away_from(attention: Attention, scale: float, stages: dict[str, int] = STAGES) -> Change:
    """A further pass of the positive prompt with `attention`; the result goes on away from it, as PAG's does."""

    def after(arguments: dict) -> Tensor:
        options = arguments["model_options"].copy()
        for stage, count in stages.items():
            for number in range(count):
                options = comfy.model_patcher.set_model_options_patch_replace(options, replacement(attention), "attn1", stage, number)
        (other,) = comfy.samplers.calc_cond_batch(
            arguments["model"], [arguments["cond"]], arguments["input"], arguments["sigma"], options
        )  # fmt: skip
        return arguments["denoised"] + scale * (arguments["cond_denoised"] - other)

    def change(model: ModelPatcher) -> ModelPatcher:
        model = model.clone()
        model.set_model_sampler_post_cfg_function(after)
        return model

    return change


def circulated_guidance(alpha: float, scale: float) -> Change:
    return away_from(with_alpha(alpha), scale)


def smoothed_energy(scale: float, sigma: float = math.inf) -> Change:
    """SEG, Hong 2024 (arXiv:2408.00760): away from a pass whose queries are blurred over the picture, in the middle block."""

    def attention(q, k, v, options):
        side = math.isqrt(q.shape[-2])
        picture = q.transpose(-1, -2).unflatten(-1, (side, side))
        return attend(blurred(picture, sigma).flatten(-2).transpose(-1, -2).contiguous(), k, v)

    return away_from(attention, scale, MIDDLE)


def blurred(picture: Tensor, sigma: float) -> Tensor:
    """(…, side, side) under a Gaussian; without end it is the mean."""
    if sigma == math.inf:
        return picture.mean((-1, -2), keepdim=True).expand_as(picture)
    reach = min(picture.shape[-1] - 1, math.ceil(3 * sigma))
    kernel = torch.exp(-torch.arange(-reach, reach + 1.0).square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum())[None, None]
    rows = pad(picture.reshape(-1, 1, *picture.shape[-2:]), (reach,) * 4, mode="reflect")
    return conv2d(conv2d(rows, kernel[..., None, :]), kernel[..., None]).reshape(picture.shape)


def guided_from(scale: float, first: int, last: int) -> Change:
    """Guidance of `scale` only at some of the steps (Kynkäänniemi et al. 2024, arXiv:2404.07724), from `first` to before `last`."""

    def mix(arguments: dict) -> Tensor:
        sigmas = arguments["model_options"]["transformer_options"]["sample_sigmas"]
        step = int((sigmas[:-1] >= arguments["sigma"].max() * (1 - 1e-5)).sum()) - 1
        return arguments["uncond"] + (scale if first <= step < last else 1.0) * (arguments["cond"] - arguments["uncond"])

    def change(model: ModelPatcher) -> ModelPatcher:
        model = model.clone()
        model.set_model_sampler_cfg_function(mix)
        return model

    return change


def annealed_condition(strength: float, clean: float = 0.6, noisy: float = 0.9) -> Change:
    """CADS, Sadat et al. 2024 (arXiv:2310.17347): noise on the positive prompt, less and less from the time `noisy` to `clean`."""

    def change(model: ModelPatcher) -> ModelPatcher:
        model = model.clone()
        sampling, generator = model.get_model_object("model_sampling"), torch.Generator().manual_seed(0)

        def wrapper(apply, arguments):
            condition, parts = dict(arguments["c"]), len(arguments["cond_or_uncond"])
            time = float(sampling.timestep(arguments["timestep"].max())) / 1000
            kept = min(1.0, max(0.0, (noisy - time) / (noisy - clean)))
            if kept < 1:
                contexts = list(condition["c_crossattn"].chunk(parts))
                for number, is_negative in enumerate(arguments["cond_or_uncond"]):
                    if not is_negative:
                        contexts[number] = annealed(contexts[number], kept, strength, generator)
                condition["c_crossattn"] = torch.cat(contexts)
            return apply(arguments["input"], arguments["timestep"], **condition)

        model.set_model_unet_function_wrapper(wrapper)
        return model

    return change


def annealed(context: Tensor, kept: float, strength: float, generator: torch.Generator) -> Tensor:
    """√γ y + s √(1 − γ) n, with the mean and spread of y again; y is (B, tokens, channels)."""

    def moments(t: Tensor) -> tuple[Tensor, Tensor]:
        return t.mean((1, 2), keepdim=True), t.std((1, 2), keepdim=True).clamp_min(1e-6)

    (mean, spread), noise = moments(context), torch.randn(context.shape, generator=generator)
    noisy = math.sqrt(kept) * context + strength * math.sqrt(1 - kept) * spread * noise
    of_it, its_spread = moments(noisy)
    return (noisy - of_it) / its_spread * spread + mean
