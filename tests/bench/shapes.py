"""What is measured: attentions of the families at their usual resolutions, and whole models."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """One self-attention of a model. With `projections` it is the layer of a UNet, without them the attention alone."""

    model: str
    tokens: int
    heads: int
    head_dim: int
    text: int = 0  # of the tokens, in front of the image's
    projections: bool = True

    @property
    def channels(self) -> int:
        return self.heads * self.head_dim

    def __str__(self) -> str:
        return f"{self.model}: {self.tokens} tokens, {self.heads} heads of {self.head_dim}"


def unet(model: str, *layers: tuple[int, int, int]) -> tuple[Shape, ...]:
    return tuple(Shape(model, *layer) for layer in layers)


# group: what it is on a GPU, and on a CPU, where transformers have fewer tokens than in use or are left out
SHAPES = {
    "sd15": (
        unet("SD1.5 512²", (4096, 8, 40), (1024, 8, 80), (256, 8, 160)),
        unet("SD1.5 512²", (4096, 8, 40), (1024, 8, 80), (256, 8, 160)),
    ),
    "sdxl": (
        unet("SDXL 1024²", (4096, 10, 64), (1024, 20, 64)),
        unet("SDXL 512²", (1024, 10, 64), (256, 20, 64)) + unet("SDXL 1024²", (4096, 10, 64)),
    ),
    "flux": (
        (Shape("Flux 1024²", 4608, 24, 128, text=512, projections=False),),
        (Shape("Flux, a quarter", 1152, 24, 128, text=128, projections=False),),
    ),
    "z-image": (
        (Shape("Z-Image 1024²", 4352, 30, 128, text=256, projections=False),),
        (Shape("Z-Image, a quarter", 1088, 30, 128, text=64, projections=False),),
    ),
    "qwen-image": ((Shape("Qwen-Image 1328²", 7145, 24, 128, text=256, projections=False),), ()),
    "wan": (
        (
            Shape("Wan 14B 480p, 81 frames", 32760, 40, 128, projections=False),
            Shape("Wan 14B 720p, 81 frames", 75600, 40, 128, projections=False),
        ),
        (Shape("Wan 1.3B, a 16th", 2048, 12, 128, projections=False),),
    ),
    "growth": (tuple(Shape("attention alone", tokens, 10, 64, projections=False) for tokens in (1024, 2048, 4096, 8192, 16384)),) * 2,
    "tiny": (unet("a test", (64, 2, 32)),) * 2,
}
MEASURED = {"sdxl": (1024, 256), "tiny": (64,)}  # tokens of the layers whose measures are compared with the published ones
USUAL = ("sd15", "sdxl", "flux", "z-image", "qwen-image", "wan", "growth", "models")

# whole models: name of the configuration, side of the latent
MODELS = {"cpu": (("sd15", 32), ("sdxl", 32)), "cuda": (("full sdxl", 128),), "tiny": (("sd15", 8),)}
