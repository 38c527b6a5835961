"""The avatar model's UNet: ComfyUI's own Stable Diffusion 1.5 class, narrow enough for a CPU."""

import comfy.model_base
import comfy.supported_models

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

    unet_extra_config = {"num_heads": -1, "num_head_channels": 32}

    def model_type(self, state_dict, prefix=""):
        return comfy.model_base.ModelType.V_PREDICTION


def build(dtype) -> comfy.model_base.BaseModel:
    """The model with weights that are not set yet."""
    config = AvatarConfig(dict(UNET))
    config.set_inference_dtype(dtype, None)
    return config.get_model({}, "")
