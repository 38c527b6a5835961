"""Small transformers with random weights, built by ComfyUI's own classes, and where their attentions are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import comfy.ldm.chroma.model as chroma
import comfy.ldm.chroma_radiance.model as chroma_radiance
import comfy.ldm.flux.model as flux
import comfy.ldm.hunyuan_video.model as hunyuan
import comfy.sample
import torch

from . import models
from .host import comfyui_is_at_least


@dataclass(frozen=True)
class Small:
    """One family.

    `own` names each list of modules whose attention is over the image, in the order in which the model
    runs them, with our word for it and how many of a module's attention calls are such at most.
    """

    family: str
    config: dict
    latent: tuple  # its shape, or those of the picture and the sound
    own: dict[str, tuple[str, int]]
    text: int = 32  # width of the text
    pooled: int | None = None
    extra: Callable[[int, torch.Generator], dict] = lambda tokens, generator: {}  # what else the family's text encoder gives
    since: str = "0.3.75"  # the first version of ComfyUI that has it
    most: int = 2**10  # images in a batch
    has_sound: bool = False  # among the tokens, so that all of them means the picture's
    queries: str = "first"  # where they are among the keys, if those outnumber them: also "last", or "in groups" one after the other
    in_parts: bool = False  # text and references ask in calls of their own, before the picture does in the same module

    @property
    def latents(self) -> tuple[tuple[int, ...], ...]:
        return self.latent if isinstance(self.latent[0], tuple) else (self.latent,)


def fitting(params: type, config: dict) -> dict:
    """What of a configuration this version of ComfyUI knows."""
    known = {field.name for field in dataclasses.fields(params)} | {"image_model"}
    return {key: value for key, value in config.items() if key in known}


FLUX = dict(
    image_model="flux", in_channels=16, out_channels=16, vec_in_dim=32, context_in_dim=32, hidden_size=64, mlp_ratio=2.0, num_heads=2, depth=2,
    depth_single_blocks=2, axes_dim=[8, 12, 12], theta=10000, patch_size=2, qkv_bias=True, guidance_embed=True, txt_ids_dims=[],
)  # fmt: skip
FLUX2 = dict(
    FLUX, image_model="flux2", in_channels=128, out_channels=128, vec_in_dim=None, axes_dim=[8, 8, 8, 8], patch_size=1, qkv_bias=False,
    ops_bias=False, global_modulation=True, mlp_silu_act=True, default_ref_method="index", txt_ids_dims=[3],
)  # fmt: skip
CHROMA = {key: value for key, value in FLUX.items() if key != "guidance_embed"}
CHROMA.update(image_model="chroma", in_channels=64, out_channels=64, in_dim=64, out_dim=64, hidden_dim=64, n_layers=1, vec_in_dim=None)
RADIANCE = dict(
    CHROMA, image_model="chroma_radiance", in_channels=3, out_channels=3, patch_size=16, nerf_hidden_size=16, nerf_mlp_ratio=2, nerf_depth=1,
    nerf_max_freqs=4, nerf_tile_size=0, nerf_final_head_type="conv", nerf_embedder_dtype=torch.float32, use_x0=False, use_sequential_txt_ids=False,
)  # fmt: skip
HUNYUAN = {key: value for key, value in FLUX.items() if key != "txt_ids_dims"}
HUNYUAN.update(
    image_model="hunyuan_video", patch_size=[1, 2, 2], byt5=False, meanflow=False, use_cond_type_embedding=False, vision_in_dim=None, meanflow_sum=False,
)  # fmt: skip
LUMINA = dict(
    image_model="lumina2", patch_size=2, in_channels=16, dim=64, cap_feat_dim=32, n_layers=2, n_refiner_layers=1, qk_norm=True, n_heads=2,
    n_kv_heads=1, axes_dims=[8, 12, 12], axes_lens=[300, 512, 512], rope_theta=10000.0, ffn_dim_multiplier=1.0, multiple_of=32,
)  # fmt: skip
Z_IMAGE = dict(
    LUMINA, dim=256, n_heads=4, n_kv_heads=4, axes_dims=[16, 24, 24], rope_theta=256.0, z_image_modulation=True, time_scale=1000.0,
    pad_tokens_multiple=32,
)  # fmt: skip
WAN = dict(
    image_model="wan2.1", model_type="t2v", dim=48, out_dim=16, num_heads=2, ffn_dim=64, num_layers=2, patch_size=(1, 2, 2), freq_dim=32,
    window_size=(-1, -1), qk_norm=True, cross_attn_norm=True, eps=1e-6, in_dim=16, text_dim=32,
)  # fmt: skip
COSMOS = dict(
    max_img_h=64, max_img_w=64, max_frames=16, in_channels=16, out_channels=16, patch_spatial=2, patch_temporal=1, concat_padding_mask=True,
    model_channels=64, num_blocks=2, num_heads=2, mlp_ratio=2.0, crossattn_emb_channels=32, pos_emb_cls="rope3d", pos_emb_learnable=False,
    pos_emb_interpolation="crop", use_adaln_lora=True, adaln_lora_dim=16,
)  # fmt: skip
OMNIGEN2 = dict(
    patch_size=2, in_channels=16, hidden_size=64, num_layers=2, num_refiner_layers=1, num_attention_heads=2, num_kv_heads=1, multiple_of=32,
    axes_dim_rope=(8, 12, 12), axes_lens=(300, 512, 512),
)  # fmt: skip
H3 = dict(
    image_model="minimax_h3", hidden_size=64, num_layers=2, token_refiner_num_layers=1, num_attention_heads=2, attention_head_dim=32,
    ffn_hidden_size=64, text_dim=32, timestep_input_dim=32, time_embed_hidden_size=64, time_embed_dim=32, rope_inv_freq_len=4,
)  # fmt: skip
DIFFUSERS = dict(num_layers=2, attention_head_dim=32, num_attention_heads=2)

DOUBLE_AND_SINGLE = {"double_blocks": ("double", 1), "single_blocks": ("single", 1)}
MAIN_LAYERS = {"layers": ("layer", 1)}
LAYERS = {"blocks": ("layer", 1)}


def llama(tokens, generator):
    return {"conditioning_llama3": torch.randn(1, 4, tokens // 2, 32, generator=generator)}


def unmasked(tokens, generator):
    return {"attention_mask": torch.ones(1, tokens, dtype=torch.long)}


def text_ids(tokens, generator):
    return {"text_input_ids": torch.randint(1000, (1, tokens), generator=generator)}


def first_frame(tokens, generator):
    return {"clip_vision_output": SimpleNamespace(penultimate_hidden_states=torch.randn(1, 257, 1280, generator=generator))}


def speech(tokens, generator):
    return {"audio_embed": torch.randn(1, 25, 16, 8, generator=generator)}


FAMILIES: dict[str, Small] = {
    "sd3": Small(
        "SD3",
        dict(
            in_channels=16, patch_size=2, out_channels=16, depth=2, input_size=None, adm_in_channels=32, num_patches=64 * 64, pos_embed_max_size=64,
            context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": 32, "out_features": 128}},
            pos_embed_scaling_factor=None, qk_norm="rms", x_block_self_attn_layers=[0],
        ),
        (16, 16, 12),
        {"joint_blocks": ("double", 2)},
        pooled=32,
    ),
    "aura": Small(
        "AuraFlow",
        dict(cond_seq_dim=32, max_seq=64, dim=64, n_layers=4, n_double_layers=2, n_heads=2, global_conddim=64),
        (4, 16, 12),
        {"double_layers": ("double", 1), "single_layers": ("single", 1)},
    ),
    "flux": Small("Flux", fitting(flux.FluxParams, FLUX), (16, 16, 12), DOUBLE_AND_SINGLE, pooled=32),
    "flux2": Small("Flux2", fitting(flux.FluxParams, FLUX2), (128, 8, 6), DOUBLE_AND_SINGLE, pooled=32),
    "chroma": Small("Chroma", fitting(chroma.ChromaParams, CHROMA), (16, 16, 12), DOUBLE_AND_SINGLE, pooled=32),
    "radiance": Small("ChromaRadiance", fitting(chroma_radiance.ChromaRadianceParams, RADIANCE), (3, 64, 48), DOUBLE_AND_SINGLE, pooled=32),
    "hunyuan_video": Small("HunyuanVideo", fitting(hunyuan.HunyuanVideoParams, HUNYUAN), (16, 2, 8, 12), DOUBLE_AND_SINGLE, pooled=32),
    "hunyuan_image": Small(
        "HunyuanImage21",
        fitting(hunyuan.HunyuanVideoParams, dict(
            HUNYUAN, patch_size=[2, 2], in_channels=64, out_channels=64, axes_dim=[16, 16], vec_in_dim=None, guidance_embed=False,
        )),
        (64, 16, 12),
        DOUBLE_AND_SINGLE,
    ),
    "qwen": Small(
        "QwenImage",
        dict(DIFFUSERS, image_model="qwen_image", in_channels=64, joint_attention_dim=32, axes_dims_rope=(8, 12, 12)),
        (16, 1, 16, 12),
        {"transformer_blocks": ("double", 1)},
    ),
    "lumina2": Small("Lumina2", LUMINA, (16, 16, 12), MAIN_LAYERS),
    "z_image": Small("ZImage", Z_IMAGE, (16, 16, 12), MAIN_LAYERS),
    "omnigen2": Small("Omnigen2", dict(OMNIGEN2, image_model="omnigen2", text_feat_dim=32), (16, 16, 12), MAIN_LAYERS, extra=unmasked),
    "hidream": Small(
        "HiDream",
        dict(
            DIFFUSERS, image_model="hidream", patch_size=2, in_channels=16, out_channels=16, num_single_layers=2, caption_channels=[32, 32],
            text_emb_dim=32, num_routed_experts=2, num_activated_experts=1, axes_dims_rope=(8, 12, 12), max_resolution=(32, 32),
            llama_layers=[0, 1, 2, 3, 3],
        ),
        (16, 16, 12),
        {"double_stream_blocks": ("double", 1), "single_stream_blocks": ("single", 1)},
        pooled=32,
        extra=llama,
    ),
    "wan": Small("WAN21_T2V", WAN, (16, 2, 8, 12), LAYERS),
    "wan_i2v": Small("WAN21_I2V", dict(WAN, model_type="i2v", in_dim=36), (16, 2, 8, 12), LAYERS, extra=first_frame),
    "wan_vace": Small("WAN21_Vace", dict(WAN, model_type="vace", vace_layers=1, vace_in_dim=96), (16, 2, 8, 12), LAYERS),
    "wan_camera": Small("WAN21_Camera", dict(WAN, model_type="camera", in_dim=32), (16, 2, 8, 12), LAYERS, extra=first_frame),
    "wan_s2v": Small(
        "WAN22_S2V",
        dict(WAN, model_type="s2v", audio_dim=16, audio_inject_layers=[0]),
        (16, 2, 8, 12),
        LAYERS,
        extra=speech,
        since="0.5.0",
    ),
    "wan_causal": Small("WAN21_CausalAR_T2V", WAN, (16, 2, 8, 12), LAYERS, since="0.21.0", queries="last"),
    "ltxv": Small(
        "LTXV",
        dict(DIFFUSERS, image_model="ltxv", in_channels=128, cross_attention_dim=64, caption_channels=32),
        (128, 3, 4, 6),
        {"transformer_blocks": ("layer", 1)},
        extra=unmasked,
        queries="in groups",
    ),
    "mochi": Small(
        "GenmoMochi",
        dict(
            image_model="mochi_preview", depth=2, patch_size=2, num_heads=2, hidden_size_x=48, hidden_size_y=32, mlp_ratio_y=2.0,
            mlp_ratio_x=256.0,  # the width is fixed
            learn_sigma=False, in_channels=12, qk_norm=True, qkv_bias=False, use_t5=True, t5_feat_dim=32, t5_token_length=16,
            posenc_preserve_area=True, timestep_scale=1000.0,
        ),
        (12, 2, 8, 12),
        {"blocks": ("double", 1)},
        extra=unmasked,
    ),
    "cosmos": Small(
        "CosmosT2V",
        dict(COSMOS, image_model="cosmos", block_config="FA-CA-MLP", block_x_format="THWBD", affline_emb_norm=True,
             extra_per_block_abs_pos_emb=True, extra_per_block_abs_pos_emb_type="learnable"),
        (16, 2, 8, 12),
        LAYERS,
    ),
    "predict2": Small("CosmosT2IPredict2", dict(COSMOS, image_model="cosmos_predict2"), (16, 1, 8, 12), LAYERS),
    "scail": Small("WAN21_SCAIL", dict(WAN, model_type="scail", in_dim=20), (16, 2, 8, 12), LAYERS, since="0.16.0"),
    "anima": Small("Anima", dict(COSMOS, image_model="anima"), (16, 1, 8, 12), LAYERS, since="0.11.0"),
    "boogu": Small(
        "Boogu",
        dict(OMNIGEN2, image_model="boogu", num_double_stream_layers=2, instruction_feat_dim=32),
        (16, 16, 12),
        {"double_stream_layers": ("double", 2), "single_stream_layers": ("single", 1)},
        extra=unmasked,
        since="0.26.0",
    ),
    "cogvideox": Small(
        "CogVideoX_T2V",
        dict(DIFFUSERS, image_model="cogvideox", in_channels=16, out_channels=16, time_embed_dim=64, text_embed_dim=32,
             use_rotary_positional_embeddings=True),
        (16, 2, 8, 12),
        LAYERS,
        since="0.21.0",
    ),
    "ideogram4": Small(
        "Ideogram4",
        dict(DIFFUSERS, image_model="ideogram4", in_channels=128, intermediate_size=64, adaln_dim=32, llm_features_dim=32, mrope_section=(6, 5, 5)),
        (128, 8, 6),
        MAIN_LAYERS,
        since="0.24.0",
    ),
    "joyimage": Small(
        "JoyImage",
        dict(image_model="joyimage", patch_size=[1, 2, 2], in_channels=16, hidden_size=64, num_attention_heads=2, text_dim=32, num_layers=2,
             mlp_width_ratio=2.0, rope_dim_list=[8, 12, 12]),
        (16, 1, 16, 12),
        {"double_blocks": ("double", 1)},
        since="0.29.0",
    ),
    "kandinsky5": Small(
        "Kandinsky5",
        dict(image_model="kandinsky5", in_text_dim=32, in_text_dim2=32, time_dim=32, model_dim=64, ff_dim=64, visual_embed_dim=132,
             num_text_blocks=1, num_visual_blocks=2, axes_dims=(8, 12, 12)),
        (16, 2, 8, 12),
        {"visual_transformer_blocks": ("layer", 1)},
        pooled=32,
        since="0.4.0",
    ),
    "krea2": Small(
        "Krea2",
        dict(image_model="krea2", features=64, heads=2, kvheads=1, multiplier=2, layers=2, txtdim=16, txtlayers=2, txtheads=1, txtkvheads=1),
        (16, 1, 16, 12),
        {"blocks": ("single", 1)},
        since="0.26.0",
    ),
    "lens": Small(
        "Lens",
        dict(DIFFUSERS, image_model="lens", in_channels=128, out_channels=32, enc_hidden_dim=16, axes_dims_rope=(8, 12, 12),
             selected_layer_index=(0, 1)),
        (128, 8, 6),
        {"transformer_blocks": ("double", 1)},
        since="0.23.0",
    ),
    "mage_flow": Small(
        "MageFlow",
        dict(DIFFUSERS, image_model="mage_flow", joint_attention_dim=32, axes_dims_rope=(8, 12, 12)),
        (128, 8, 6),
        {"transformer_blocks": ("double", 1)},
        since="0.29.0",
    ),
    "cascade_c": Small(
        "Stable_Cascade_C",
        dict(stable_cascade_stage="c", c_r=16, c_cond=32, c_hidden=[64, 64], nhead=[2, 2], blocks=[[1, 1], [1, 1]],
             block_repeat=[[1, 2], [1, 1]], c_clip_text=32, c_clip_text_pooled=32),
        (16, 6, 4),
        {},
        pooled=32,
    ),
    "cascade_b": Small(
        "Stable_Cascade_B",
        dict(stable_cascade_stage="b", c_hidden=[32, 64], nhead=[-1, 2], blocks=[[1, 1], [1, 1]], block_repeat=[[1, 1], [2, 3]], c_r=16,
             c_cond=32, c_clip=32, level_config=["CT", "CTA"]),
        (4, 16, 12),
        {},
        pooled=32,
    ),
    "hidream_o1": Small(
        "HiDreamO1",
        dict(
            image_model="hidream_o1",
            text_config_overrides=dict(hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                                       num_key_value_heads=1, head_dim=32, rope_dims=[6, 5, 5]),
            vision_config_overrides=dict(hidden_size=32, num_heads=2, intermediate_size=32, depth=1, num_position_embeddings=16),
        ),
        (3, 192, 160),
        {"language_model.layers": ("layer", 1)},
        extra=text_ids,
        since="0.22.0",
        queries="last",
    ),
    "qwen21": Small(
        "QwenImage21",
        dict(DIFFUSERS, image_model="qwen_image21", context_in_dim=32, axes_dims_rope=(8, 12, 12)),
        (64, 8, 6),
        {"transformer_blocks": ("single", 1)},
        since="0.37.0",
        queries="last",
        in_parts=True,
    ),
    "minimax_h3": Small("MiniMaxH3", H3, ((24, 2, 8, 12), (32, 2, 5)), LAYERS, since="0.30.0", most=1, has_sound=True),
    "minimax_h3_silent": Small("MiniMaxH3", H3, ((24, 1, 8, 12), (32, 2, 0)), LAYERS, since="0.30.0", most=1, has_sound=True),
    "ltx2": Small(
        "LTXAV",
        dict(DIFFUSERS, image_model="ltxav", in_channels=128, audio_in_channels=128, cross_attention_dim=64, audio_cross_attention_dim=32,
             audio_attention_head_dim=16, audio_num_attention_heads=2, caption_channels=32, connector_attention_head_dim=16,
             connector_num_attention_heads=2, connector_num_layers=1),
        ((128, 3, 4, 6), (8, 5, 16)),
        {"transformer_blocks": ("layer", 1)},
        since="0.8.0",
        queries="in groups",
    ),
    "pixeldit": Small(
        "PixelDiTT2I",
        dict(image_model="pixeldit", num_groups=2, hidden_size=64, pixel_hidden_size=4, pixel_attn_hidden_size=64, pixel_num_groups=2,
             patch_depth=2, pixel_depth=1, txt_embed_dim=32),
        (3, 64, 48),
        {"patch_blocks": ("double", 1), "pixel_blocks": ("pixel", 1)},
        since="0.23.0",
    ),
}  # fmt: skip


PRESENT = [name for name, small in FAMILIES.items() if comfyui_is_at_least(small.since)]


def build(name: str, dtype: torch.dtype = torch.float32, **changed):
    """A MODEL, with weights in `dtype`."""
    small = FAMILIES[name]
    return models.made(small.family, {**small.config, **changed}, dtype)


def conditioning(name: str, seed: int, tokens: int = 16, **extra) -> list:
    """What a text encoder would give."""
    small = FAMILIES[name]
    generator = torch.Generator().manual_seed(seed)
    given = small.extra(tokens, generator)
    if small.pooled:
        given["pooled_output"] = torch.randn(1, small.pooled, generator=generator)
    return [[torch.randn(1, tokens, small.text, generator=generator), {**given, **extra}]]


def noise(name: str, batch: int = 1, seed: int = 0):
    """The picture's by the seed; a sound's is always the same."""
    seeds = (seed, 0)
    return together([torch.randn(batch, *shape, generator=torch.Generator().manual_seed(s)) for shape, s in zip(FAMILIES[name].latents, seeds)])


def together(latents: list[torch.Tensor]):
    """A latent, or that of picture and sound as ComfyUI has it."""
    if len(latents) == 1:
        return latents[0]
    from comfy.nested_tensor import NestedTensor  # not in the oldest versions

    return NestedTensor(latents)


def sample(model, name: str, *, steps=2, cfg=4.0, batch=1, seed=0, positive=None, negative=None, **kwargs) -> torch.Tensor:
    """The latent that ComfyUI's KSampler makes, of picture and sound one after the other. The prompts have texts of different lengths."""
    batch = min(batch, FAMILIES[name].most)
    with torch.inference_mode():
        out = comfy.sample.sample(
            model,
            noise(name, batch, seed),
            steps,
            cfg,
            "euler",
            "simple",
            conditioning(name, 1) if positive is None else positive,
            conditioning(name, 2, tokens=11) if negative is None else negative,
            together([torch.zeros(batch, *shape) for shape in FAMILIES[name].latents]),
            disable_pbar=True,
            seed=seed,
            **kwargs,
        )
    return torch.cat([part.flatten(1) for part in out.unbind()], dim=1) if getattr(out, "is_nested", False) else out
