"""A VAE in TAESD's format whose weights are set by hand: an avatar's latent is the avatar, pixel for latent pixel.

Latents are red, green, blue and luma, from black to white 2 · `scale` wide, and zero is `centre`. Decoding repeats each pixel
eight times in both directions, encoding takes the mean of 8×8 pixels. Residual blocks of zeros change nothing.
"""

from collections.abc import Sequence

import comfy.latent_formats
import torch
from comfy.taesd.taesd import TAESD

LUMA = (0.299, 0.587, 0.114)
FAINT = 0.125  # of full range, in which TAESD's tanh at the entry is straight to a third of a grey level


def with_luma(colour: torch.Tensor) -> torch.Tensor:
    """Red, green, blue, (..., 3), and their luma, (..., 4)."""
    return torch.cat((colour, (colour * torch.tensor(LUMA)).sum(-1, keepdim=True)), dim=-1)


def state_dict(scale: float, centre: Sequence[float]) -> dict[str, torch.Tensor]:
    """`centre` is a colour: red, green and blue from −1 to 1."""
    state = {key: torch.zeros_like(value) for key, value in TAESD().state_dict().items()}
    state["vae_scale"] = torch.tensor(comfy.latent_formats.SD15().scale_factor * FAINT / scale)
    decoder, encoder = (
        {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)}
        for part in ("taesd_decoder.", "taesd_encoder.")
    )
    zero = torch.tensor(centre)
    decoder["1.bias"][:3] = 0.5 + 0.5 * zero
    encoder["14.bias"][:] = -FAINT * (1 + with_luma(zero))
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
