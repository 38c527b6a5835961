"""A VAE in TAESD's format whose weights are set by hand: an avatar's latent is the avatar, pixel for latent pixel.

Latents are red, green, blue and luma, −`scale` … `scale`. Decoding repeats each pixel eight times in both directions,
encoding takes the mean of 8×8 pixels. Residual blocks of zeros change nothing.
"""

import torch

import comfy.latent_formats
from comfy.taesd.taesd import TAESD

LUMA = (0.299, 0.587, 0.114)
FAINT = 0.25  # of full range, in which TAESD's tanh at the entry is straight to a third of a grey level


def state_dict(scale: float) -> dict[str, torch.Tensor]:
    state = {key: torch.zeros_like(value) for key, value in TAESD().state_dict().items()}
    state["vae_scale"] = torch.tensor(comfy.latent_formats.SD15().scale_factor * FAINT / scale)
    decoder, encoder = (
        {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)}
        for part in ("taesd_decoder.", "taesd_encoder.")
    )
    decoder["1.bias"][:3] = 0.5
    encoder["14.bias"][:] = -FAINT
    for colour in range(3):
        decoder["1.weight"][colour, colour, 1, 1] = 0.5 / FAINT
        for layer in (7, 12, 17, 19):
            decoder[f"{layer}.weight"][colour, colour, 1, 1] = 1
        encoder["0.weight"][colour, colour, 1, 1] = 1
        for halving in (2, 6, 10):
            encoder[f"{halving}.weight"][colour, colour, 1:, 1:] = 0.25
        encoder["14.weight"][colour, colour, 1, 1] = 2 * FAINT
        encoder["14.weight"][3, colour, 1, 1] = 2 * FAINT * LUMA[colour]
    return state
