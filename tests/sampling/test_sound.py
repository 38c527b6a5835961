"""Pictures with sound, and guides: only the self-attention of the picture is changed."""

import functools
import weakref

import comfy.ldm.lightricks.model as lightricks
import comfy.ldm.modules.attention as attention
import pytest
import torch
from support import dense, transformers
from support.errors import change
from support.host import engine, patch
from support.transformers import conditioning, sample
from support.watch import record

PRESENT = [name for name in ("minimax_h3", "ltx2") if name in transformers.PRESENT]
WITH_GUIDES = [name for name in ("ltxv", "ltx2") if hasattr(lightricks, "GuideAttentionMask")]
ROUNDING = 1e-4
FADING = torch.linspace(0.2, 1, 8).expand(1, 1, 1, 8, 8)  # over the width of a guide


@functools.cache
def model(name):
    return transformers.build(name)


def circulated(model, **inputs):
    return patch(model, **{"alpha": 1.5, "beta": 3.0, **inputs})


def with_options(model, **options):
    model = model.clone()
    model.model_options["transformer_options"].update(options)
    return model


def given_by(model, path, name, **kwargs):
    """What a module gave at the first step, for each prompt."""
    found = []
    hook = model.model.diffusion_model.get_submodule(path).register_forward_hook(lambda module, args, out: found.append(out.clone()))
    try:
        sample(model, name, steps=1, **kwargs)
    finally:
        hook.remove()
    return found


@pytest.mark.skipif("minimax_h3" not in PRESENT, reason="This ComfyUI does not know MiniMax H3.")
@pytest.mark.parametrize("tokens", ["image", "all"])
def test_sound_text_and_conditions_of_minimax_h3_keep_their_bits(tokens):
    image = engine("families.transformer").num_tokens((1, *transformers.FAMILIES["minimax_h3"].latents[0]), (1, 2, 2))
    keyframes = [dict(latent=torch.randn(1, 24, 1, 8, 12), audio_latent=torch.randn(1, 32, 2, 3), resolved_frame_index=0)]
    prompts = {side: conditioning("minimax_h3", 1, minimax_keyframes=keyframes) for side in ("positive", "negative")}
    plain = given_by(model("minimax_h3"), "blocks.0.attn", "minimax_h3", **prompts)
    ours = given_by(circulated(model("minimax_h3"), tokens=tokens), "blocks.0.attn", "minimax_h3", **prompts)
    assert len(plain) == len(ours) == 2
    for before, after in zip(plain, ours):
        assert torch.equal(before[:-image], after[:-image]) and change(after[-image:], before[-image:]) > 1e-3


@pytest.mark.skipif("ltx2" not in PRESENT, reason="This ComfyUI does not know LTX 2.")
@pytest.mark.parametrize("module", ["attn1", "attn2", "audio_attn1", "audio_attn2", "audio_to_video_attn", "video_to_audio_attn"])
def test_of_the_attentions_of_ltx_2_the_picture_s_own_alone_is_doubled(module):
    base, calls = record(model("ltx2"), "ltx2")
    before = given_by(model("ltx2"), f"transformer_blocks.0.{module}", "ltx2")
    after = given_by(circulated(base, blocks="layer.0"), f"transformer_blocks.0.{module}", "ltx2")
    assert {call.block for call in calls if call.doubled} == {"layer.0"}
    fed_by_the_picture = module in ("attn2", "audio_to_video_attn", "video_to_audio_attn")
    assert torch.equal(before[0], after[0]) == (module != "attn1" and not fed_by_the_picture)


@pytest.mark.skipif("ltx2" not in PRESENT, reason="This ComfyUI does not know LTX 2.")
@pytest.mark.parametrize("options", [dict(run_ax=False), dict(a2v_cross_attn=False), dict(v2a_cross_attn=False)], ids=str)
def test_parts_of_ltx_2_that_do_not_run_are_not_counted(options):
    base = with_options(model("ltx2"), **options)
    reference = sample(dense.written_out(base, 1.5, 3.0, name="ltx2"), "ltx2")
    assert change(sample(circulated(base), "ltx2"), reference) < ROUNDING < change(reference, sample(base, "ltx2"))


@pytest.mark.skipif("ltx2" not in PRESENT, reason="This ComfyUI does not know LTX 2.")
def test_ltx_2_without_the_picture_is_left_alone():
    base = with_options(model("ltx2"), run_vx=False)
    assert torch.equal(sample(circulated(base), "ltx2"), sample(base, "ltx2"))


@pytest.mark.skipif("ltx2" not in PRESENT, reason="This ComfyUI does not know LTX 2.")
def test_a_self_attention_that_guidance_leaves_out_is_not_taken_for_the_next():
    """As spatio-temporal guidance does: the first attention of that block is then over the text."""
    base = with_options(model("ltx2"), stg_self_attn_blocks=(0,))
    reference = sample(dense.written_out(base, 1.5, 3.0, name="ltx2", only="layer.1".__eq__), "ltx2")
    assert change(sample(circulated(base), "ltx2"), reference) < ROUNDING < change(reference, sample(base, "ltx2"))


@pytest.mark.parametrize("weights", [dict(), dict(strength=0.5), dict(pixel_mask=FADING)], ids=list)
@pytest.mark.parametrize("inputs", [dict(), dict(method="one pass"), dict(rescale="off"), dict(tokens="all")], ids=str)
@pytest.mark.parametrize("name", WITH_GUIDES)
def test_guide_frames_ask_apart_where_their_strength_is_not_1(name, inputs, weights):
    """The frames, then the guides; each group is circulated among itself."""
    _, frames, height, width = transformers.FAMILIES[name].latents[0]
    entry = dict(pre_filter_count=height * width, latent_shape=[1, height, width], strength=1.0, pixel_mask=None)
    entry.update(weights)
    guide = dict(keyframe_idxs=torch.rand(1, 3, height * width, 2), guide_attention_entries=[entry])
    mask = torch.ones(1, 1, frames, height, width)
    mask[:, :, -1] = 0.2
    kwargs = dict(positive=conditioning(name, 1, **guide), negative=conditioning(name, 2, 11, **guide), noise_mask=mask)
    base, calls = record(model(name), name)
    sample(base, name, steps=1, **kwargs)
    if weights:
        sizes = {(call.shape[2], call.keys) for call in calls if call.block}
        assert sizes == {((frames - 1) * height * width, frames * height * width), (height * width, frames * height * width)}
    alpha, beta, space = (1 + 3 * 0.5, 1.0, "off") if "method" in inputs else (1.5, 3.0, inputs.get("rescale", "value space"))
    reference = sample(dense.written_out(model(name), alpha, beta, space, name=name), name, **kwargs)
    result = sample(circulated(model(name), **inputs), name, **kwargs)
    assert change(result, reference) < ROUNDING < change(reference, sample(model(name), name, **kwargs))



@pytest.mark.skipif("minimax_h3" not in PRESENT, reason="This ComfyUI does not know MiniMax H3.")
@pytest.mark.parametrize("chosen", [False, True], ids=["ComfyUI's backend", "a backend chosen by a node"])
def test_what_a_backend_takes_out_of_its_containers_is_gone_where_a_call_is_left_alone(chosen, monkeypatch):
    """MiniMax H3 hands q, k and v over in containers, so that a backend may drop each as soon as it can."""
    held = []

    def consume(*args, **kwargs):
        tensors = [container.take() for container in args[:3]]
        references = [weakref.ref(tensor) for tensor in tensors]
        out = attention.attention_pytorch.__wrapped__(*tensors, *args[3:], **kwargs)
        del tensors
        held.append(sum(reference() is not None for reference in references))
        return out

    monkeypatch.setattr(attention.attention_pytorch if chosen else attention.optimized_attention, "container_function", consume)
    base = model("minimax_h3").clone()
    if chosen:
        base.set_model_optimized_attention(attention.attention_pytorch)
    plain = sample(base, "minimax_h3", steps=1)
    calls = len(held)
    ours = sample(circulated(base, blocks="layer.1"), "minimax_h3", steps=1)
    assert not any(held) and len(held) - calls == calls - 2  # all but those of the block, one for each prompt
    assert change(ours, plain) > 1e-3
