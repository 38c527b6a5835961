"""Small diffusion models with random weights, built by ComfyUI's own classes."""

import math

import comfy.model_patcher
import comfy.supported_models
import torch

UNET = dict(
    image_size=32, use_checkpoint=False, use_spatial_transformer=True, legacy=False, in_channels=4, out_channels=4, context_dim=32,
    use_temporal_attention=False, use_temporal_resblock=False,
)  # fmt: skip
SD15 = dict(
    UNET, model_channels=32, num_res_blocks=[1, 1, 1], channel_mult=[1, 2, 2], transformer_depth=[1, 1, 1],
    transformer_depth_output=[1] * 6, transformer_depth_middle=1, use_linear_in_transformer=False, adm_in_channels=None,
)  # fmt: skip
SDXL = dict(
    UNET, model_channels=64, num_res_blocks=[1, 1, 1], channel_mult=[1, 2, 2], transformer_depth=[0, 2, 1],
    transformer_depth_output=[0, 0, 2, 2, 1, 1], transformer_depth_middle=2, use_linear_in_transformer=True, adm_in_channels=2816,
    num_classes="sequential",
)  # fmt: skip
SVD = dict(
    SDXL, in_channels=8, adm_in_channels=768, use_temporal_attention=True, use_temporal_resblock=True, extra_ff_mix_layer=True,
    use_spatial_context=True, merge_strategy="learned_with_images", merge_factor=0.0, video_kernel_size=[3, 1, 1],
    disable_temporal_crossattention=False, max_ddpm_temb_period=10000,
)  # fmt: skip
X4_UPSCALER = dict(
    SD15, in_channels=7, num_res_blocks=[1] * 4, channel_mult=[1, 1, 2, 2], transformer_depth=[0, 1, 1, 1],
    transformer_depth_output=[0, 0, 1, 1, 1, 1, 1, 1],
)  # fmt: skip

# for build(**ONE_LEVEL): four self-attentions instead of ten
ONE_LEVEL = dict(channel_mult=[1], num_res_blocks=[1], transformer_depth=[1], transformer_depth_output=[1, 1])

# name: (ComfyUI's class, its configuration, width of the pooled text or None)
CONFIGS: dict[str, tuple[str, dict, int | None]] = {
    "sd15": ("SD15", SD15, None),
    "sd20": ("SD20", dict(SD15, model_channels=64, use_linear_in_transformer=True), None),
    "sdxl": ("SDXL", SDXL, 1280),
    "refiner": ("SDXLRefiner", dict(SDXL, adm_in_channels=2560), 1280),
    "ssd1b": ("SSD1B", dict(SDXL, transformer_depth_middle=-1), 1280),
    "svd": ("SVD_img2vid", SVD, None),
    "x4_upscaler": ("SD_X4Upscaler", X4_UPSCALER, None),
}


def build(name: str, dtype: torch.dtype = torch.float32, seed: int = 0, compute: torch.dtype | None = None, device: str = "cpu", **unet):
    """A MODEL. Weights are held in `dtype` and, where that is another, computed with in `compute`."""
    family, config, _ = CONFIGS[name]
    return made(family, {**config, **unet}, dtype, seed, compute, device)


def made(
    family: str,
    config: dict,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    compute: torch.dtype | None = None,
    device: str = "cpu",
) -> comfy.model_patcher.ModelPatcher:
    """A MODEL of one of ComfyUI's families."""
    model_config = getattr(comfy.supported_models, family)(dict(config))
    model_config.unet_config.update(config)
    model_config.set_inference_dtype(dtype, compute)
    model = model_config.get_model({}, "").eval().requires_grad_(False)
    fill(model.diffusion_model, seed)
    return comfy.model_patcher.ModelPatcher(model, load_device=torch.device(device), offload_device=torch.device("cpu"))


@torch.no_grad()
def fill(module: torch.nn.Module, seed: int = 0) -> None:
    """Every weight: ComfyUI leaves them unset, and zero-initialised outputs would hide any effect.

    Self-attention's q and k are doubled: with small ones attention is uniform and skewing it does nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weight in (*module.named_parameters(), *module.named_buffers()):
        if not weight.is_floating_point():
            continue
        if weight.ndim > 1:
            values = torch.randn(weight.shape, generator=generator) * (0.7 / math.sqrt(weight[0].numel()))
            if name.endswith(("attn1.to_q.weight", "attn1.to_k.weight")):
                values *= 2
        else:
            values = torch.full(weight.shape, 1.0 if name.endswith(("weight", "scale")) else 0.0)
        weight.copy_(values)


def conditioning(name: str, seed: int, tokens: int = 77, **extra) -> list:
    """What a text encoder would give: [[(1, tokens, 32), {...}]]."""
    generator = torch.Generator().manual_seed(seed)
    pooled = CONFIGS[name][2]
    if pooled:
        extra["pooled_output"] = torch.randn(1, pooled, generator=generator)
    return [[torch.randn(1, tokens, 32, generator=generator), extra]]
