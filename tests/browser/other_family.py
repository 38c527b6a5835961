"""A custom node of a server: a model whose blocks cannot be patched."""

import torch
from comfy.ldm.pixart.pixartms import PixArtMS
from comfy.model_patcher import ModelPatcher


class PixArt(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.diffusion_model = PixArtMS.__new__(PixArtMS)
        torch.nn.Module.__init__(self.diffusion_model)


class OtherFamily:
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "load", "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def load(self):
        cpu = torch.device("cpu")
        return (ModelPatcher(PixArt(), cpu, cpu),)


NODE_CLASS_MAPPINGS = {"OtherFamily": OtherFamily}
