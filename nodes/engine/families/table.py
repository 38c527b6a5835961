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


QWEN = (Stage("double", "transformer_blocks", "attn", "double"),)
LAYERS = Stage("layer", "layers", "attention", "double")
REFERENCES = Stage("ref_image_refiner", "ref_image_refiner", "attn", left_alone=REFERENCE_REFINER, needs="ref_latents")


def refined(attention: str) -> tuple[Stage, ...]:
    """Text and image each go through layers of their own before they go through the main ones together."""
    return (
        Stage("context_refiner", "context_refiner", attention, left_alone=TEXT_ONLY),
        Stage("noise_refiner", "noise_refiner", attention, left_alone=IMAGE_REFINER),
    )


def unpatched(module) -> tuple[int, ...]:
    return 1, 1


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
    "comfy.ldm.qwen_image.model.QwenImageTransformer2DModel": Transformer("Qwen-Image", QWEN, before_references),
    "comfy.ldm.mage_flow.model.MageFlowTransformer2DModel": Transformer("Mage-Flow", QWEN, before_references),
    "comfy.ldm.lens.model.LensTransformer2DModel": Transformer("Lens", QWEN, first, patch=unpatched),
    "comfy.ldm.joyimage.model.JoyImageTransformer3DModel": Transformer(
        "JoyImage", (Stage("double", "double_blocks", "attn", "double"),), first
    ),
    "comfy.ldm.krea2.model.SingleStreamDiT": Transformer(
        "Krea 2", (Stage("single", "blocks", "attn", "single"),), krea2, patch=lambda module: pair(module.patch)
    ),
    "comfy.ldm.lumina.model.NextDiT": Transformer("Lumina 2, Z-Image", (*refined("attention"), LAYERS), padded_last, counted=True),
    "comfy.ldm.omnigen.omnigen2.OmniGen2Transformer2DModel": Transformer(
        "OmniGen2", (*refined("attn"), REFERENCES, Stage("layer", "layers", "attn")), last, counted=True
    ),
    "comfy.ldm.boogu.model.BooguTransformer2DModel": Transformer(
        "Boogu",
        (
            *refined("attn"),
            REFERENCES,
            # with the text, and then the image alone
            Stage("double", "double_stream_layers", "img_self_attn", "double", own=lambda block: 2, calls=2),
            Stage("single", "single_stream_layers", "attn", "single"),
        ),
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
    "comfy.ldm.ideogram4.model.Ideogram4Transformer": Transformer(
        "Ideogram 4", (Stage("layer", "layers", "attention"),), last, patch=unpatched, counted=True
    ),
    "comfy.ldm.pixeldit.model.PixDiT_T2I": Transformer(
        "PixelDiT",
        (Stage("double", "patch_blocks", "attn", "double"), Stage("pixel", "pixel_blocks", "attn", "pixel")),
        last,
        counted=True,
    ),
    "comfy.ldm.wan.model.WanModel": Transformer("Wan 2.1 and 2.2", WAN, wan, slots=True),
    "comfy.ldm.wan.model.SCAILWanModel": Transformer("Wan 2.1 and 2.2", WAN, after_reference, slots=True),
    "comfy.ldm.lightricks.model.LTXVModel": Transformer(
        "LTX-Video", (Stage("layer", "transformer_blocks", "attn1", "double", calls=2),), everything, unpatched, slots=True
    ),
    "comfy.ldm.genmo.joint_model.asymm_models_joint.AsymmDiTJoint": Transformer(
        "Mochi", (Stage("double", "blocks", "attn", "double"),), first, slots=True
    ),
    "comfy.ldm.cogvideo.model.CogVideoXTransformer3DModel": Transformer(
        "CogVideoX",
        (Stage("layer", "blocks", ""),),
        last,
        patch=lambda module: (module.patch_size_t or 1, *pair(module.patch_size)),
        counted=True,
    ),
    "comfy.ldm.cosmos.model.GeneralDIT": Transformer(
        "Cosmos 1", (Stage("layer", "blocks", "blocks.0.block.attn", calls=2),), everything, in_space_and_time, counted=True
    ),
    "comfy.ldm.cosmos.predict2.MiniTrainDIT": Transformer(
        "Cosmos Predict2, Anima", (Stage("layer", "blocks", "self_attn", calls=2),), everything, in_space_and_time, counted=True
    ),
    "comfy.ldm.kandinsky5.model.Kandinsky5": Transformer(
        "Kandinsky 5", (Stage("layer", "visual_transformer_blocks", "self_attention", "double", calls=2),), everything
    ),
}

OUT_OF_REACH = "their attention asks for no override, so no node can reach it"
RECTANGULAR = "in their attention the keys outnumber the queries, and circulation is defined where both are the same tokens"
WITH_SOUND = "they make sound together with the picture, and Circulation cannot yet tell one's attention from the other's"
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
    "comfy.ldm.lightricks.av_model.LTXAVModel": WITH_SOUND,
    "comfy.ldm.minimax.model.MiniMaxH3Model": WITH_SOUND,
    "comfy.ldm.audio.dit.AudioDiffusionTransformer": NO_PICTURES,
    "comfy.ldm.ace.model.ACEStepTransformer2DModel": NO_PICTURES,
    "comfy.ldm.ace.ace_step15.AceStepConditionGenerationModel": NO_PICTURES,
    "comfy.ldm.minimax_music.dit.MiniMaxMusic3DiT": NO_PICTURES,
    "comfy.ldm.hunyuan3d.model.Hunyuan3Dv2": NO_PICTURES,
    "comfy.ldm.hunyuan3dv2_1.hunyuandit.HunYuanDiTPlain": NO_PICTURES,
    "comfy.ldm.trellis2.model.Trellis2": NO_PICTURES,
    "comfy.ldm.triposplat.model.LatentSeqMMFlowModel": NO_PICTURES,
}
