"""The avatar model's UNet: ComfyUI's own Stable Diffusion 1.5 class, narrow enough for a CPU."""

from typing import ClassVar

import comfy.model_base
import comfy.model_sampling
import comfy.supported_models
import torch

WIDTH = 64
CONTEXT = 64
LATENT = 16  # pixels of an avatar, each one a latent pixel
UNET = dict(
    image_size=32, in_channels=4, out_channels=4, model_channels=WIDTH, num_res_blocks=[1, 1, 1], channel_mult=[1, 2, 2],
    transformer_depth=[1, 1, 1], transformer_depth_output=[1] * 6, transformer_depth_middle=1, context_dim=CONTEXT,
    use_spatial_transformer=True, use_linear_in_transformer=False, use_checkpoint=False, legacy=False,
    use_temporal_attention=False, use_temporal_resblock=False, adm_in_channels=None,
)  # fmt: skip


class AvatarConfig(comfy.supported_models.SD15):
    """Ten self-attentions: three at 16×16, three at 8×8, four at 4×4, with heads of 32 channels."""

    unet_extra_config: ClassVar = {"num_heads": -1, "num_head_channels": 32}

    def model_type(self, state_dict, prefix=""):
        return comfy.model_base.ModelType.V_PREDICTION


class Centred(comfy.model_sampling.V_PREDICTION):
    """Latents whose zero is `centre` for who samples, while the network goes on seeing the ones that it learned.

    Stable Diffusion's schedule ends before all is noise, and an image begins as noise around zero: had zero another colour
    than the average picture, each image would begin, and end, a little too close to it (Lin et al. 2024, arXiv:2305.08891).
    """

    centre: torch.Tensor

    def calculate_input(self, sigma, noise):
        return super().calculate_input(sigma, noise + self.centre)

    def calculate_denoised(self, sigma, model_output, model_input):
        return super().calculate_denoised(sigma, model_output, model_input + self.centre) - self.centre


class Sampling(comfy.model_sampling.ModelSamplingDiscrete, Centred):
    def __init__(self, config, centre: torch.Tensor):
        super().__init__(config)
        self.register_buffer("centre", centre[:, None, None])


def build(dtype) -> comfy.model_base.BaseModel:
    """The model with weights that are not set yet."""
    config = AvatarConfig(dict(UNET))
    config.set_inference_dtype(dtype, None)
    return config.get_model({}, "")
