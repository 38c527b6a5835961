"""The transformers that ComfyUI samples: a row for each, by the class of its network.

A family is one row, and a function where it is odd. Classes are found by name along their bases, so
that rows for newer versions of ComfyUI do no harm in older ones, and a class that is made of another
counts as that one unless it has its own row.
"""

from dataclasses import dataclass

from .transformer import (
    IMAGE_REFINER,
    OLDEST,
    REFERENCE_REFINER,
    TEXT_ONLY,
    Stage,
    TransformerFamily,
    at_the_end,
    at_the_start,
    before_references,
    everything,
    first,
    in_groups,
    last,
    pair,
)


def before_cached_references(forward, queries: int, keys: int) -> int:
    """Flux KV Cache lets the reference images ask in the first step alone, and then hands on their keys behind the others."""
    return 0 if keys - queries == forward.tokens_of("ref_latents") else keys


def padded_last(forward, tokens: int, image_start: int | None) -> slice:
    """Lumina and Z-Image: the image comes last, filled up to a multiple of some number of tokens."""
    multiple = forward.network.pad_tokens_multiple or 1
    start = tokens - -(-forward.image_tokens // multiple) * multiple
    return slice(start, start + forward.image_tokens)


def hunyuan_video(forward, tokens: int, image_start: int | None) -> slice:
    """[references, image, text] in older versions of ComfyUI, [text, references, image] in newer ones."""
    if not getattr(forward.network.double_blocks[0], "flipped_img_txt", False):
        return last(forward, tokens, image_start)
    start = forward.tokens_of("ref_latent")
    return slice(start, start + forward.image_tokens)


def wan(forward, tokens: int, image_start: int | None) -> slice:
    """A reference that has its own patch embedding comes before the frames, all other things after them."""
    start = forward.tokens_of("reference_latent") if getattr(forward.network, "ref_conv", None) is not None else 0
    return slice(start, start + forward.image_tokens)


def after_reference(forward, tokens: int, image_start: int | None) -> slice:
    start = forward.tokens_of("reference_latent")
    return slice(start, start + forward.image_tokens)


def hidream(forward, tokens: int, image_start: int | None) -> slice:
    """First. An image to edit stands beside the new one in the same rows, so it belongs to it here."""
    return slice(0, forward.image_tokens + forward.tokens_of("image_cond"))


def krea2(forward, tokens: int, image_start: int | None) -> slice:
    """Where the model says; nowhere if it does not."""
    return slice(0, 0) if image_start is None else slice(image_start, image_start + forward.image_tokens)


def hidream_o1(forward, tokens: int, image_start: int | None) -> slice:
    """[text, image, reference images]; of the text the last tokens ask with the image."""
    stop = tokens - forward.length_of("ref_patches")
    return slice(stop - forward.image_tokens, stop)


def all_tokens_are_keys(forward, queries: int, keys: int) -> bool:
    """Qwen-Image 2.1 goes through its sequence part by part, each with the keys up to its end. The image's is the last."""
    before = forward.length_of("c_crossattn") + forward.tokens_of("ref_latents")
    return (queries, keys) == (forward.image_tokens, before + forward.image_tokens)


def cascade(side: str) -> Stage:
    """Stable Cascade runs the blocks of a level several times, and each time is a block of ours."""

    def blocks(network) -> list:
        levels = zip(getattr(network, f"{side}_blocks"), getattr(network, f"{side}_repeat_mappers"))
        return [block for level, again in levels for _ in range(len(again) + 1) for block in level if hasattr(block, "attention")]

    return Stage(side, blocks, "attention.attn", side, self_attention_calls=lambda block: int(block.self_attn))


FLUX = (Stage("double", "double_blocks", "", "double"), Stage("single", "single_blocks", "", "single"))
WAN = (Stage("layer", "blocks", "self_attn", "double", attention_calls=2),)
LTX = (Stage("layer", "transformer_blocks", "attn1", "double"),)


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


TRANSFORMERS: dict[str, TransformerFamily] = {
    "comfy.ldm.modules.diffusionmodules.mmdit.MMDiT": TransformerFamily(
        "Stable Diffusion 3 and 3.5",
        # some blocks of 3.5 attend twice: with the text, and then the image alone
        (Stage("double", "joint_blocks", "x_block.attn", "double", lambda block: 2 if block.x_block.x_block_self_attn else 1),),
        last,
        slots=True,
    ),
    "comfy.ldm.aura.mmdit.MMDiT": TransformerFamily(
        "AuraFlow",
        (Stage("double", "double_layers", "attn", "double"), Stage("single", "single_layers", "attn", "single")),
        last,
        slots=True,
    ),
    "comfy.ldm.flux.model.Flux": TransformerFamily("Flux, Flux 2", FLUX, before_references, queries=before_cached_references),
    "comfy.ldm.chroma.model.Chroma": TransformerFamily("Chroma", FLUX, before_references),
    "comfy.ldm.hunyuan_video.model.HunyuanVideo": TransformerFamily("HunyuanVideo, HunyuanImage", FLUX, hunyuan_video),
    "comfy.ldm.qwen_image.model.QwenImageTransformer2DModel": TransformerFamily("Qwen-Image", QWEN, before_references),
    "comfy.ldm.mage_flow.model.MageFlowTransformer2DModel": TransformerFamily("Mage-Flow", QWEN, before_references, since="0.29.0"),
    "comfy.ldm.lens.model.LensTransformer2DModel": TransformerFamily("Lens", QWEN, first, patch=unpatched, since="0.23.0"),
    "comfy.ldm.joyimage.model.JoyImageTransformer3DModel": TransformerFamily(
        "JoyImage", (Stage("double", "double_blocks", "attn", "double"),), first, since="0.29.0"
    ),
    "comfy.ldm.krea2.model.SingleStreamDiT": TransformerFamily(
        "Krea 2", (Stage("single", "blocks", "attn", "single"),), krea2, patch=lambda module: pair(module.patch), since="0.26.0"
    ),
    "comfy.ldm.lumina.model.NextDiT": TransformerFamily("Lumina 2, Z-Image", (*refined("attention"), LAYERS), padded_last, counted=True),
    "comfy.ldm.omnigen.omnigen2.OmniGen2Transformer2DModel": TransformerFamily(
        "OmniGen2", (*refined("attn"), REFERENCES, Stage("layer", "layers", "attn")), last, counted=True
    ),
    "comfy.ldm.boogu.model.BooguTransformer2DModel": TransformerFamily(
        "Boogu",
        (
            *refined("attn"),
            REFERENCES,
            # with the text, and then the image alone
            Stage("double", "double_stream_layers", "img_self_attn", "double", self_attention_calls=lambda block: 2, attention_calls=2),
            Stage("single", "single_stream_layers", "attn", "single"),
        ),
        last,
        counted=True,
        since="0.26.0",
    ),
    "comfy.ldm.hidream.model.HiDreamImageTransformer2DModel": TransformerFamily(
        "HiDream-I1",
        (
            Stage("double", "double_stream_blocks", "block.attn1", "double"),
            Stage("single", "single_stream_blocks", "block.attn1", "single"),
        ),
        hidream,
        counted=True,
    ),
    "comfy.ldm.hidream_o1.model.HiDreamO1Transformer": TransformerFamily(
        "HiDream-O1", (Stage("layer", "language_model.layers", "self_attn", "double"),), hidream_o1, queries=at_the_end, since="0.22.0"
    ),
    "comfy.ldm.qwen_image21.model.QwenImage21Transformer2DModel": TransformerFamily(
        "Qwen-Image 2.1",
        (Stage("single", "transformer_blocks", "attn", "single"),),
        last,
        unpatched,
        queries=at_the_end,
        is_own=all_tokens_are_keys,
        since="0.37.0",
    ),
    "comfy.ldm.cascade.stage_c.StageC": TransformerFamily(
        "Stable Cascade", (cascade("down"), cascade("up")), everything, unpatched, counted=True, queries=at_the_start
    ),
    "comfy.ldm.cascade.stage_b.StageB": TransformerFamily(
        "Stable Cascade", (cascade("down"), cascade("up")), everything, unpatched, counted=True, queries=at_the_start
    ),
    "comfy.ldm.ideogram4.model.Ideogram4Transformer": TransformerFamily(
        "Ideogram 4", (Stage("layer", "layers", "attention"),), last, patch=unpatched, counted=True, since="0.24.0"
    ),
    "comfy.ldm.pixeldit.model.PixDiT_T2I": TransformerFamily(
        "PixelDiT",
        (Stage("double", "patch_blocks", "attn", "double"), Stage("pixel", "pixel_blocks", "attn", "pixel")),
        last,
        counted=True,
        since="0.23.0",
    ),
    "comfy.ldm.wan.model.WanModel": TransformerFamily("Wan 2.1 and 2.2", WAN, wan, slots=True),
    "comfy.ldm.wan.model.SCAILWanModel": TransformerFamily("Wan 2.1 and 2.2", WAN, after_reference, slots=True, since="0.16.0"),
    "comfy.ldm.wan.model.WanModel_S2V": TransformerFamily("Wan 2.2 S2V", WAN, first, slots=True, since="0.5.0"),
    "comfy.ldm.wan.ar_model.CausalWanModel": TransformerFamily(
        "Wan, causal", WAN, last, slots=True, queries=at_the_end, hands_nothing_on=True, since="0.21.0"
    ),
    "comfy.ldm.lightricks.model.LTXVModel": TransformerFamily(
        "LTX-Video", LTX, everything, unpatched, slots=True, queries=in_groups
    ),
    "comfy.ldm.lightricks.av_model.LTXAVModel": TransformerFamily(
        "LTX 2", LTX, everything, unpatched, slots=True, queries=in_groups, since="0.8.0"
    ),
    "comfy.ldm.minimax.model.MiniMaxH3Model": TransformerFamily(
        "MiniMax H3", (Stage("layer", "blocks", "attn", "double"),), last, slots=True, has_sound=True, since="0.30.0"
    ),
    "comfy.ldm.genmo.joint_model.asymm_models_joint.AsymmDiTJoint": TransformerFamily(
        "Mochi", (Stage("double", "blocks", "attn", "double"),), first, slots=True
    ),
    "comfy.ldm.cogvideo.model.CogVideoXTransformer3DModel": TransformerFamily(
        "CogVideoX",
        (Stage("layer", "blocks", ""),),
        last,
        patch=lambda module: (module.patch_size_t or 1, *pair(module.patch_size)),
        counted=True,
        since="0.21.0",
    ),
    "comfy.ldm.cosmos.model.GeneralDIT": TransformerFamily(
        "Cosmos 1", (Stage("layer", "blocks", "blocks.0.block.attn", attention_calls=2),), everything, in_space_and_time, counted=True
    ),
    "comfy.ldm.cosmos.predict2.MiniTrainDIT": TransformerFamily(
        "Cosmos Predict2, Anima", (Stage("layer", "blocks", "self_attn", attention_calls=2),), everything, in_space_and_time, counted=True
    ),
    "comfy.ldm.kandinsky5.model.Kandinsky5": TransformerFamily(
        "Kandinsky 5",
        (Stage("layer", "visual_transformer_blocks", "self_attention", "double", attention_calls=2),),
        everything,
        since="0.4.0",
    ),
}

OUT_OF_REACH = "their attention asks for no override (seen in ComfyUI {}), so no node can reach it"
FRAME_BY_FRAME = "each frame asks alone in their attention, so no call shows the circulation from one frame to another"
NO_PICTURES = "they make no pictures"


@dataclass(frozen=True)
class Refused:
    """A network that cannot be patched, and why. `since` as in `TransformerFamily`."""

    reason: str
    since: str = OLDEST


REFUSED: dict[str, Refused] = {
    "comfy.ldm.pixart.pixartms.PixArtMS": Refused(OUT_OF_REACH.format("0.38")),
    "comfy.ldm.hydit.models.HunYuanDiT": Refused(OUT_OF_REACH.format("0.33")),
    "comfy.ldm.ernie.model.ErnieImageModel": Refused(OUT_OF_REACH.format("0.38"), since="0.19.0"),
    "comfy.ldm.seedvr.model.NaDiT": Refused(OUT_OF_REACH.format("0.33"), since="0.25.0"),
    "comfy.ldm.wan.model_animate2.WanAnimate2Model": Refused(FRAME_BY_FRAME, since="0.31.0"),
    "comfy.ldm.audio.dit.AudioDiffusionTransformer": Refused(NO_PICTURES),
    "comfy.ldm.ace.model.ACEStepTransformer2DModel": Refused(NO_PICTURES),
    "comfy.ldm.ace.ace_step15.AceStepConditionGenerationModel": Refused(NO_PICTURES, since="0.12.0"),
    "comfy.ldm.minimax_music.dit.MiniMaxMusic3DiT": Refused(NO_PICTURES, since="0.33.0"),
    "comfy.ldm.hunyuan3d.model.Hunyuan3Dv2": Refused(NO_PICTURES),
    "comfy.ldm.hunyuan3dv2_1.hunyuandit.HunYuanDiTPlain": Refused(NO_PICTURES),
    "comfy.ldm.trellis2.model.Trellis2": Refused(NO_PICTURES, since="0.34.0"),
    "comfy.ldm.triposplat.model.LatentSeqMMFlowModel": Refused(NO_PICTURES, since="0.23.0"),
}
