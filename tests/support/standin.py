"""Small checkpoints with random weights that ComfyUI's own loader takes for Stable Diffusion 1.5 or SDXL.

    python standin.py COMFYUI sd15|sdxl FILE

The UNet is as small as ComfyUI's detection allows; the text encoders have their fixed size but are almost empty; the VAE is
a hand-set TAESD. Nothing in them is trained: they show that a graph runs and what changes, not how good an image gets.
"""

import json
import math
import sys
from pathlib import Path

import torch

UNET = dict(
    image_size=32, in_channels=4, out_channels=4, model_channels=320, use_checkpoint=False, use_spatial_transformer=True, legacy=False,
    use_temporal_attention=False, use_temporal_resblock=False, transformer_depth_middle=-2,
)
SHAPES = {
    # 6 self-attentions: 3 at the latent's resolution and 3 at half of it
    "sd15": ("SD15", dict(
        num_res_blocks=[1, 1], channel_mult=[1, 1], transformer_depth=[1, 1], transformer_depth_output=[1, 1, 1, 1],
        use_linear_in_transformer=False, context_dim=768, adm_in_channels=None,
    )),
    # The depths [0, 2, 5] are those by which KOALA, the smallest of the SDXL family, is recognised. 9 self-attentions:
    # 2 + 1 at the latent's resolution and 5 + 1 at half of it
    "sdxl": ("KOALA_700M", dict(
        num_res_blocks=[2, 1], channel_mult=[1, 1], transformer_depth=[0, 2, 5], transformer_depth_output=[0, 0, 1, 0, 1],
        use_linear_in_transformer=True, context_dim=2048, adm_in_channels=2816, num_classes="sequential",
    )),
}


def checkpoint(kind, seed=0):
    """The state dict of a checkpoint, in float16. ComfyUI must be importable."""
    import comfy.supported_models

    family, shape = SHAPES[kind]
    config = getattr(comfy.supported_models, family)({**UNET, **shape})
    config.set_inference_dtype(torch.float16, None)
    generator = torch.Generator().manual_seed(seed)
    unet = config.get_model({}, "").diffusion_model.state_dict()
    state = {f"model.diffusion_model.{key}": unet_weight(key, value, generator) for key, value in unet.items()}
    text_encoder = config.clip_target().clip(dtype=torch.float16, device="meta").state_dict()
    text_encoder = {key: text_weight(key, value, generator) for key, value in text_encoder.items()}
    state |= config.process_clip_state_dict_for_saving(text_encoder)
    state |= {f"first_stage_model.{key}": value for key, value in vae(config.latent_format.scale_factor).items()}
    return {key: value.half().contiguous() for key, value in state.items()}


def unet_weight(key, like, generator):
    if like.ndim == 1:
        return torch.full(like.shape, float(key.endswith("weight")))
    # Plain random attention is almost uniform and adds little to the image: nothing could be seen of what the pack does.
    gain = 2.1 if key.endswith(("attn1.to_q.weight", "attn1.to_k.weight")) else 1.4 if "attn1" in key or key == "out.2.weight" else 0.7
    return torch.randn(like.shape, generator=generator) * gain / math.sqrt(like[0].numel())


def text_weight(key, like, generator):
    """All layers pass their input through, except the first, whose uniform attention mixes the words of a prompt."""
    if "embedding.weight" in key:
        return torch.randn(like.shape, generator=generator, dtype=torch.float32).half()
    if key.endswith(("layers.0.self_attn.v_proj.weight", "layers.0.self_attn.out_proj.weight", "text_projection.weight")):
        return torch.eye(*like.shape, dtype=torch.float16)
    if "norm" in key and key.endswith("weight"):
        return torch.ones(like.shape, dtype=torch.float16)
    return torch.zeros(like.shape, dtype=torch.float16)


# Red, green and blue that each latent channel adds to the picture.
PALETTE = torch.tensor([[0.7, 0.2, -0.3], [-0.4, 0.5, 0.3], [0.3, -0.5, 0.6], [0.4, 0.4, 0.5]]).T
CONTRAST = 0.9
SPREAD = 12  # a random model leaves latents about this many times larger than a trained one
KERNEL = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0])) / 16
CENTRE = torch.zeros(3, 3)
CENTRE[1, 1] = 1


def vae(scale_factor):
    """A TAESD whose decoder turns latents into soft clouds of colour, and whose encoder reads back the mean colour of 8×8 pixels.

    Values are carried as positive and negative parts, channels 0-2 and 3-5, because every layer ends in a ReLU.
    A residual block of zeros changes nothing.
    """
    from comfy.taesd.taesd import TAESD

    state = {key: torch.zeros_like(value) for key, value in TAESD().state_dict().items()}
    state["vae_scale"] = torch.tensor(scale_factor / SPREAD)

    decoder = {key.removeprefix("taesd_decoder."): value for key, value in state.items() if key.startswith("taesd_decoder.")}
    decoder["1.weight"][:3] = PALETTE[:, :, None, None] * CENTRE
    decoder["1.weight"][3:6] = -PALETTE[:, :, None, None] * CENTRE
    blur_block(decoder, "3.conv")
    for upsampling in (7, 12, 17):
        for channel in range(6):
            decoder[f"{upsampling}.weight"][channel, channel] = KERNEL
    for colour in range(3):
        decoder["19.weight"][colour, colour] = CONTRAST * CENTRE
        decoder["19.weight"][colour, 3 + colour] = -CONTRAST * CENTRE
    decoder["19.bias"][:] = 0.5

    encoder = {key.removeprefix("taesd_encoder."): value for key, value in state.items() if key.startswith("taesd_encoder.")}
    for colour in range(3):
        encoder["0.weight"][colour, colour] = CENTRE
        for halving in (2, 6, 10):
            encoder[f"{halving}.weight"][colour, colour, 1:, 1:] = 0.25
    to_latent = torch.linalg.pinv(PALETTE) / CONTRAST
    encoder["14.weight"][:, :3] = to_latent[:, :, None, None] * CENTRE
    encoder["14.bias"][:] = -to_latent.sum(1) / 2
    return state


def blur_block(decoder, block):
    """Blur three times. The block adds its input to its result, so a copy of the input travels along and is taken off again."""
    for channel in range(6):
        for layer in (0, 2, 4):
            decoder[f"{block}.{layer}.weight"][channel, channel] = KERNEL
        decoder[f"{block}.0.weight"][6 + channel, channel] = CENTRE
        decoder[f"{block}.2.weight"][6 + channel, 6 + channel] = CENTRE
        decoder[f"{block}.4.weight"][channel, 6 + channel] = -CENTRE


def save(state, path):
    """Write a safetensors file, leaving tensors of zeros as holes: SDXL's text encoders are 1.6 GB of almost only zeros."""
    header, end = {}, 0
    for key, value in state.items():
        header[key] = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [end, end + value.nbytes]}
        end += value.nbytes
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    part = Path(path).with_suffix(".part")
    with part.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for value in state.values():
            if value.any():
                file.write(value.numpy().tobytes())
            else:
                file.seek(value.nbytes, 1)
        file.truncate(8 + len(header) + end)
    part.replace(path)


if __name__ == "__main__":
    sys.path[0], kind, path = sys.argv[1:]
    sys.argv[1:] = ["--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    save(checkpoint(kind), path)
