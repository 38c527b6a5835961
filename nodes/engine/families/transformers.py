"""The transformers that ComfyUI samples: a row for each, by the class of its network.

A family is one row, and a function where it is odd. Classes are found by name along their bases, so
that rows for newer versions of ComfyUI do no harm in older ones, and a class that is made of another
counts as that one unless it has its own row.
"""

from __future__ import annotations

from collections.abc import Mapping

from .transformer import (
    IMAGE_REFINER,
    REFERENCE_REFINER,
    TEXT_ONLY,
    Stage,
    Transformer,
    before_references,
    everything,
    first,
    last,
    pair,
)


def padded_last(forward, tokens: int, options: Mapping) -> slice:
    """Lumina and Z-Image: the image comes last, filled up to a multiple of some number of tokens."""
    multiple = forward.module.pad_tokens_multiple or 1
    start = tokens - -(-forward.image_tokens // multiple) * multiple
    return slice(start, start + forward.image_tokens)


def hunyuan_video(forward, tokens: int, options: Mapping) -> slice:
    """[references, image, text] in older versions of ComfyUI, [text, references, image] in newer ones."""
    if not getattr(forward.module.double_blocks[0], "flipped_img_txt", False):
        return last(forward, tokens, options)
    start = forward.tokens_of("ref_latent")
    return slice(start, start + forward.image_tokens)


def wan(forward, tokens: int, options: Mapping) -> slice:
    """A reference that has its own patch embedding comes before the frames, all other things after them."""
    start = forward.tokens_of("reference_latent") if getattr(forward.module, "ref_conv", None) is not None else 0
    return slice(start, start + forward.image_tokens)


def after_reference(forward, tokens: int, options: Mapping) -> slice:
    start = forward.tokens_of("reference_latent")
    return slice(start, start + forward.image_tokens)


def hidream(forward, tokens: int, options: Mapping) -> slice:
    """First. An image to edit stands beside the new one in the same rows, so it belongs to it here."""
    return slice(0, forward.image_tokens + forward.tokens_of("image_cond"))


def krea2(forward, tokens: int, options: Mapping) -> slice:
    start = options["img_slice"][0]
    return slice(start, start + forward.image_tokens)


FLUX = (Stage("double", "double_blocks", "", "double"), Stage("single", "single_blocks", "", "single"))
WAN = (Stage("layer", "blocks", "self_attn", "double", calls=2),)


def refined(attention: str, *between: Stage) -> tuple[Stage, ...]:
    """Text and image each go through layers of their own before they go through the main ones together."""
    return (
        Stage("context_refiner", "context_refiner", attention, left_alone=TEXT_ONLY),
        Stage("noise_refiner", "noise_refiner", attention, left_alone=IMAGE_REFINER),
        *between,
        Stage("layer", "layers", attention, "double"),
    )


def in_space_and_time(module) -> tuple[int, ...]:
    return (module.patch_temporal, *pair(module.patch_spatial))


TRANSFORMERS: dict[str, Transformer] = {
    "comfy.ldm.modules.diffusionmodules.mmdit.MMDiT": Transformer(
        "Stable Diffusion 3 and 3.5",
        # some blocks of 3.5 attend twice: with the text, and then the image alone
        (Stage("double", "joint_blocks", "x_block.attn", "double", own=lambda b: 2 if b.x_block.x_block_self_attn else 1),),
        last,
        slots=True,
    ),
    "comfy.ldm.aura.mmdit.MMDiT": Transformer(
        "AuraFlow",
        (Stage("double", "double_layers", "attn", "double"), Stage("single", "single_layers", "attn", "single")),
        last,
        slots=True,
    ),
    "comfy.ldm.flux.model.Flux": Transformer("Flux, Flux 2", FLUX, before_references),
    "comfy.ldm.chroma.model.Chroma": Transformer("Chroma", FLUX, before_references),
    "comfy.ldm.hunyuan_video.model.HunyuanVideo": Transformer("HunyuanVideo, HunyuanImage", FLUX, hunyuan_video),
    "comfy.ldm.qwen_image.model.QwenImageTransformer2DModel": Transformer(
        "Qwen-Image", (Stage("double", "transformer_blocks", "attn", "double"),), before_references
    ),
    "comfy.ldm.lumina.model.NextDiT": Transformer("Lumina 2, Z-Image", refined("attention"), padded_last, counted=True),
    "comfy.ldm.omnigen.omnigen2.OmniGen2Transformer2DModel": Transformer(
        "OmniGen2",
        refined("attn", Stage("ref_image_refiner", "ref_image_refiner", "attn", left_alone=REFERENCE_REFINER, needs="ref_latents")),
        last,
        counted=True,
    ),
    "comfy.ldm.hidream.model.HiDreamImageTransformer2DModel": Transformer(
        "HiDream-I1",
        (
            Stage("double", "double_stream_blocks", "block.attn1", "double"),
            Stage("single", "single_stream_blocks", "block.attn1", "single"),
        ),
        hidream,
        counted=True,
    ),
    "comfy.ldm.wan.model.WanModel": Transformer("Wan 2.1 and 2.2", WAN, wan, slots=True),
    "comfy.ldm.wan.model.SCAILWanModel": Transformer("Wan 2.1 and 2.2", WAN, after_reference, slots=True),
    "comfy.ldm.lightricks.model.LTXVModel": Transformer(
        "LTX-Video",
        (Stage("layer", "transformer_blocks", "attn1", "double", calls=2),),
        everything,
        patch=lambda module: (1, 1),
        slots=True,
    ),
    "comfy.ldm.genmo.joint_model.asymm_models_joint.AsymmDiTJoint": Transformer(
        "Mochi", (Stage("double", "blocks", "attn", "double"),), first, slots=True
    ),
    "comfy.ldm.cosmos.model.GeneralDIT": Transformer(
        "Cosmos 1", (Stage("layer", "blocks", "blocks.0.block.attn", calls=2),), everything, in_space_and_time, counted=True
    ),
    "comfy.ldm.cosmos.predict2.MiniTrainDIT": Transformer(
        "Cosmos Predict2, Anima", (Stage("layer", "blocks", "self_attn", calls=2),), everything, in_space_and_time, counted=True
    ),
}

OUT_OF_REACH = "their attention asks for no override, so no node can reach it"
RECTANGULAR = "in their attention the keys outnumber the queries, and circulation is defined where both are the same tokens"
NO_PICTURES = "they make no pictures"

REFUSED: dict[str, str] = {
    "comfy.ldm.pixart.pixartms.PixArtMS": OUT_OF_REACH,
    "comfy.ldm.hydit.models.HunYuanDiT": OUT_OF_REACH,
    "comfy.ldm.wan.model.WanModel_S2V": OUT_OF_REACH,
    "comfy.ldm.ernie.model.ErnieImageModel": OUT_OF_REACH,
    "comfy.ldm.seedvr.model.NaDiT": OUT_OF_REACH,
    "comfy.ldm.cascade.stage_c.StageC": RECTANGULAR,
    "comfy.ldm.cascade.stage_b.StageB": RECTANGULAR,
    "comfy.ldm.hidream_o1.model.HiDreamO1Transformer": RECTANGULAR,
    "comfy.ldm.wan.model_animate2.WanAnimate2Model": RECTANGULAR,
    "comfy.ldm.wan.ar_model.CausalWanModel": RECTANGULAR,
    "comfy.ldm.audio.dit.AudioDiffusionTransformer": NO_PICTURES,
    "comfy.ldm.ace.model.ACEStepTransformer2DModel": NO_PICTURES,
    "comfy.ldm.hunyuan3d.model.Hunyuan3Dv2": NO_PICTURES,
    "comfy.ldm.hunyuan3dv2_1.hunyuandit.HunYuanDiTPlain": NO_PICTURES,
}
