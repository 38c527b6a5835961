"""Transformers through ComfyUI's own sampler, family by family.

The yardstick is `dense`: the same model with the attentions over the image written out. Which those
are is told by hooks on the model's modules, and which tokens are the image by what changes with the noise.
"""

import functools
import importlib
import logging
from unittest import mock

import comfy.patcher_extension
import comfy_extras.nodes_flux as nodes_flux
import comfy_extras.nodes_slg
import pytest
import torch
from support import dense, others, transformers
from support.errors import change
from support.host import engine, patch, probe
from support.transformers import conditioning, sample
from support.watch import image_positions, record, watch
from support.watch import where_the_image_is as found_by_noise

ALPHA, BETA = 1.5, 3.0
ROUNDING = 1e-4  # the fast path against the written-out one, relative, over a whole run
FAMILIES = transformers.PRESENT
SLOTS = ["sd3", "aura", "flux", "flux2", "chroma", "radiance", "hunyuan_video", "hunyuan_image", "qwen"]
SLOTS += ["wan", "wan_i2v", "wan_vace", "wan_camera", "ltxv", "mochi"]
SLOTS += [name for name in ("joyimage", "lens", "mage_flow", "scail", "wan_s2v") if name in FAMILIES]  # some of Kandinsky 5 call no block


@functools.cache
def model(name, **changed):
    return transformers.build(name, **changed)


def circulated(model, **inputs):
    return patch(model, **{"alpha": ALPHA, "beta": BETA, **inputs})


def written_out(model, name, image=None, adapt=None, only=None, **kwargs):
    return sample(dense.written_out(model, ALPHA, BETA, name=name, image=image, adapt=adapt, only=only), name, **kwargs)


where_the_image_is = functools.partial(found_by_noise, model)


def is_everything(name, tokens):
    return tokens == "all" and not transformers.FAMILIES[name].has_sound


def assert_written_out(name, inputs={}, adapt=None, only=None, **kwargs):
    """The written-out result to rounding, which is far less than the whole effect is."""
    base = model(name)
    image = None if is_everything(name, inputs.get("tokens")) else where_the_image_is(name, **kwargs)
    result = sample(circulated(base, **inputs), name, **kwargs)
    reference = written_out(base, name, image, adapt, only, **kwargs)
    error, effect = change(result, reference), change(reference, sample(base, name, **kwargs))
    assert error < ROUNDING and error < effect / 100


@pytest.mark.parametrize("tokens", ["image", "all"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_attention_over_the_image_computes_the_written_out_formula(name, tokens):
    assert_written_out(name, dict(tokens=tokens), batch=2)


@pytest.mark.parametrize("over", ["image", "head", "batch"])
@pytest.mark.parametrize("name, tokens", [("flux", "image"), ("flux", "all"), ("sd3", "image")])
def test_the_adaptive_node_computes_the_written_out_formula(name, tokens, over):
    base, adapt = model(name), {"over": over, "formula": "deviation"}
    image = where_the_image_is(name, batch=2) if tokens == "image" else None
    inputs = dict(node_id="CirculationAdaptive", alpha=ALPHA, beta=BETA, eta_over=over, tokens=tokens)
    assert change(sample(patch(base, **inputs), name, batch=2), written_out(base, name, image, adapt, batch=2)) < ROUNDING


# Which calls


def calls_of(base, name, **kwargs):
    """Every attention call that reaches a backend in a run, in order, and the result."""
    clone, calls = record(base, name)
    with mock.patch.object(engine("method.fast.chunks"), "MAX_ELEMENTS_CPU", 2**40):  # one call of ours, not one for some heads each
        out = sample(kwargs.pop("then", lambda model: model)(clone), name, **kwargs)
    return calls, out


@pytest.mark.parametrize("name", FAMILIES)
def test_all_blocks_are_reported_once_each_as_they_run_and_no_other_call_is_touched(name):
    """For both texts, which differ in length: each in a call of its own, or padded and together."""
    plain, _ = calls_of(model(name), name)
    found, _ = calls_of(model(name), name, then=circulated)
    assert [call for call in found if not call.doubled] == plain
    assert [call.block for call in found if call.doubled] == [call.block for call in plain if call.block]
    blocks = [str(block) for block in engine("comfy.model").patchable_blocks(model(name))]
    run = [call.block for call in plain if call.block]
    assert run == blocks * (len(run) // len(blocks))


@pytest.mark.parametrize("name", FAMILIES)
def test_off_is_bit_identical_and_costs_no_call(name):
    plain, untouched = calls_of(model(name), name)
    calls, off = calls_of(model(name), name, then=lambda model: patch(model, alpha=1.0))
    assert calls == plain and torch.equal(off, untouched)
    sample(circulated(model(name)), name)
    assert torch.equal(sample(model(name), name), untouched)


@pytest.mark.parametrize("name", FAMILIES)
def test_only_the_selected_blocks_are_touched(name):
    blocks = [str(block) for block in engine("comfy.model").patchable_blocks(model(name))]
    assert_written_out(name, dict(blocks=blocks[-1]), only=blocks[-1].__eq__)
    half = {block for position, block in enumerate(blocks) if position + 0.5 < len(blocks) / 2}
    assert_written_out(name, dict(blocks="0%-50%"), only=half.__contains__)


# Where the image is


@pytest.mark.parametrize("name", FAMILIES)
def test_the_image_is_found_beside_texts_of_any_length(name):
    image = where_the_image_is(name)
    found = {}
    base, Forward = model(name), engine("families.forward").Forward
    family, module = engine("comfy.model").family_of(base), base.model.diffusion_model
    forward = Forward(family, module, family.address_of_call(module), (1, *transformers.FAMILIES[name].latents[0]), {})
    for tokens, wanted in image.items():
        within = forward.image(tokens, tokens - int(wanted.sum()))
        found[tokens] = torch.zeros(tokens, dtype=torch.bool)
        found[tokens][within] = True
    assert found.keys() == image.keys() and all(torch.equal(found[tokens], image[tokens]) for tokens in image)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_text_as_long_as_the_picture_is_not_taken_for_it(name):
    prompt = conditioning(name, 1, tokens=min(int(where.sum()) for where in where_the_image_is(name).values()))
    assert_written_out(name, positive=prompt, negative=prompt)


MASKS = {
    # from every token to every other, as by IPAdapter-like nodes; and for a text that is filled up
    "flux": {"attention_mask": 3 * torch.randn(1, 64, 64), "attention_mask_img_shape": (8, 6)},
    "hunyuan_video": {"attention_mask": torch.arange(16).lt(9).long()[None]},
}


@pytest.mark.parametrize("tokens", ["image", "all"])
@pytest.mark.parametrize("name", MASKS)
def test_masks_are_added_after_scaling(name, tokens):
    prompt = conditioning(name, 1, **MASKS[name])
    assert change(sample(model(name), name, positive=prompt), sample(model(name), name)) > 1e-3
    assert_written_out(name, dict(tokens=tokens), positive=prompt)


REFERENCES = {"reference_latents": [torch.randn(1, 16, 8, 10), torch.randn(1, 16, 6, 6)]}
H3_CLEAN = {"minimax_visual_cond_noise_aug": 1.0}  # else some noise is added to what is given, by the seed
H3_KEYFRAME = {"latent": torch.randn(1, 24, 1, 8, 12), "resolved_frame_index": 0}
H3_SOUND = torch.randn(1, 32, 2, 3)
H3_REFERENCES = [
    dict(kind="image", latent=torch.randn(1, 24, 1, 6, 4), latent_h=6, latent_w=4),
    dict(kind="audio", ref_audio_t=3, audio_latent=H3_SOUND),
    dict(kind="video_audio", ref_audio_t=3, audio_latent=H3_SOUND, latent_t=2, latent=torch.randn(1, 24, 2, 4, 6), latent_h=4, latent_w=6),
]
SITUATIONS = {
    "flux: two references": ("flux", REFERENCES, {}),
    "flux: a reference placed by index": ("flux", {**REFERENCES, "reference_latents_method": "index"}, {}),
    "flux2: a reference": ("flux2", {"reference_latents": [torch.randn(1, 128, 4, 5)]}, {}),
    "qwen: two references": ("qwen", {"reference_latents": [r.unsqueeze(2) for r in REFERENCES["reference_latents"]]}, {}),
    "omnigen2: two references": ("omnigen2", REFERENCES, {}),
    "z_image: two references, which newer ComfyUI takes": ("z_image", REFERENCES, {}),
    "boogu: two references": ("boogu", REFERENCES, {}),
    "joyimage: a reference": ("joyimage", {"reference_latents": [torch.randn(1, 16, 1, 8, 6)]}, {}),
    "mage_flow: a reference": ("mage_flow", {"reference_latents": [torch.randn(1, 128, 4, 5)]}, {}),
    "hidream_o1: a reference": ("hidream_o1", {"reference_latents": [torch.rand(1, 64, 96, 3)]}, {}),
    "minimax_h3: a keyframe": ("minimax_h3", {"minimax_keyframes": [H3_KEYFRAME], **H3_CLEAN}, {}),
    "minimax_h3: a keyframe with sound": ("minimax_h3", {"minimax_keyframes": [{**H3_KEYFRAME, "audio_latent": H3_SOUND}], **H3_CLEAN}, {}),
    "minimax_h3: an image, a sound, and a video with sound": ("minimax_h3", {"minimax_refs": H3_REFERENCES, **H3_CLEAN}, {}),
    "krea2: a reference": ("krea2", {"reference_latents": [torch.randn(1, 16, 8, 6)], "reference_latents_method": "index"}, {}),
    "hunyuan_video: a reference": ("hunyuan_video", {"ref_latent": torch.randn(1, 16, 1, 8, 12)}, {}),
    "scail: two references in front": ("scail", {"reference_latents": [torch.randn(1, 16, 1, 8, 12)] * 2}, {}),
    "wan_s2v: a reference behind": ("wan_s2v", {"reference_latents": [torch.randn(1, 16, 1, 8, 12)]}, {}),
    "wan: frames of a reference behind": ("wan", {"time_dim_concat": torch.randn(1, 16, 1, 8, 12)}, {}),
    "wan: a reference in front": ("wan", {"reference_latents": [torch.randn(1, 16, 1, 8, 12)]}, {"in_dim_ref_conv": 16}),
}

KNOWN = {words: situation for words, situation in SITUATIONS.items() if situation[0] in FAMILIES}


@pytest.mark.parametrize("name, extra, changed", KNOWN.values(), ids=KNOWN)
def test_references_are_not_the_image(name, extra, changed):
    base = model(name, **changed)
    prompts = dict(positive=conditioning(name, 1, **extra), negative=conditioning(name, 2, 11, **extra))
    image = where_the_image_is(name, changed, **prompts)
    assert all(where.sum() < len(where) for where in image.values()) or name == "wan"
    result = sample(circulated(base), name, **prompts)
    reference = written_out(base, name, image, **prompts)
    with_all = written_out(base, name, **prompts)
    assert change(result, reference) < ROUNDING and change(result, reference) < change(reference, with_all) / 20
    expected = with_all if is_everything(name, "all") else reference
    assert change(sample(circulated(base, tokens="all"), name, **prompts), expected) < ROUNDING


@pytest.mark.skipif(not hasattr(nodes_flux, "FluxKVCache"), reason="This ComfyUI has no cache of keys.")
def test_keys_of_references_that_are_cached_keep_their_logits():
    """In the first step the references ask too, then they are keys alone."""
    extra = {"reference_latents": [torch.randn(1, 128, 4, 5)], "reference_latents_method": "index_timestep_zero"}
    prompts = dict(positive=conditioning("flux2", 1, **extra), cfg=1.0)
    cached = lambda: others.execute(nodes_flux.FluxKVCache, model("flux2"))  # noqa: E731  it keeps the keys of one run
    image = where_the_image_is("flux2", **prompts)
    image |= {tokens - 20: where[: tokens - 20] for tokens, where in image.items()}
    result, reference = sample(circulated(cached()), "flux2", **prompts), written_out(cached(), "flux2", image, **prompts)
    assert change(result, reference) < ROUNDING < change(reference, sample(cached(), "flux2", **prompts))
    base, calls = record(cached(), "flux2")
    sample(base, "flux2", **prompts)
    assert any(call.keys == call.shape[2] + 20 for call in calls)


QWEN21_REFERENCES = {
    "reference_latents": [torch.randn(1, 64, *size, generator=torch.Generator().manual_seed(4)) for size in ((4, 5), (6, 4))],
    "image_slots": [4, 4],
}


@pytest.mark.skipif("qwen21" not in FAMILIES, reason="This ComfyUI does not know Qwen-Image 2.1.")
@pytest.mark.parametrize("extra", [{}, QWEN21_REFERENCES], ids=["text", "references"])
@pytest.mark.parametrize("where", ["auto", "off"])
def test_what_comes_before_the_picture_of_qwen_image_21_is_left_alone_cached_or_not(where, extra):
    """Its keys and values are kept for a run, unless that is off: then all parts ask in every step."""
    base = model("qwen21").clone()
    base.model_options["transformer_options"]["qwen_image21_cache"] = {"device": where}
    prompts = dict(positive=conditioning("qwen21", 1, **extra), negative=conditioning("qwen21", 2, 11, **extra))
    result, reference = sample(circulated(base), "qwen21", **prompts), written_out(base, "qwen21", **prompts)
    error, effect = change(result, reference), change(reference, sample(base, "qwen21", **prompts))
    assert error < ROUNDING and error < effect / 100
    plain, _ = calls_of(base, "qwen21", **prompts)
    found, _ = calls_of(base, "qwen21", then=circulated, **prompts)
    others = [call for call in plain if not call.block]
    assert [call for call in found if not call.block] == others
    parts, pictures = 4 if extra else 1, sum(call.block is not None for call in plain)
    assert len(others) == parts * pictures // (2 if where == "auto" else 1)  # of two steps


def test_the_picture_that_hidream_edits_counts_as_image():
    """It stands beside the new one, row by row."""
    edited = dict(concat_latent_image=torch.randn(1, 16, 16, 12, generator=torch.Generator().manual_seed(4)))
    prompts = dict(positive=conditioning("hidream", 1, **edited), negative=conditioning("hidream", 2, 11, **edited))
    tokens = image_positions(model("hidream"), "hidream", **prompts)
    assert all(where.nonzero()[-1] == 8 * 12 - 7 for where in tokens.values())  # the new one's last row ends before the edited one's
    image = {count: torch.arange(count) < 8 * 12 for count in tokens}
    result = sample(circulated(model("hidream")), "hidream", **prompts)
    assert change(result, written_out(model("hidream"), "hidream", image, **prompts)) < ROUNDING


@pytest.mark.parametrize("text", [1, 31, 32, 33])
def test_z_image_pads_text_and_image_to_32(text):
    prompt = conditioning("z_image", 1, tokens=text)
    assert_written_out("z_image", positive=prompt, negative=prompt)


# Beside other nodes


def another(model, name, blocks):
    """As packs that wrap blocks do: what they compute is theirs, and the block is called with what it was given."""
    model = model.clone()
    for index in blocks:

        def wrapped(args, extra):
            out = extra["original_block"](args)
            return {**out, "img": out["img"] * 1.1}

        model.set_model_patch_replace(wrapped, "dit", "double_block", index)
    return model


@pytest.mark.parametrize("name", SLOTS)
def test_another_node_in_the_slots_of_the_blocks_stays_there(name):
    theirs = functools.partial(another, name=name, blocks=[0])
    one = sample(circulated(theirs(model(name))), name)
    other = sample(theirs(circulated(model(name))), name)
    assert torch.equal(one, other)
    error = change(one, written_out(theirs(model(name)), name, where_the_image_is(name)))
    assert error < ROUNDING
    assert change(one, sample(theirs(model(name)), name)) > 100 * error, "our effect is missing"
    assert change(one, sample(circulated(model(name)), name)) > 100 * error, "their effect is missing"


@pytest.mark.parametrize("name", ["sd3", "flux", "qwen", "wan", "ltxv"])
def test_blocks_are_still_told_apart_where_skip_layer_guidance_skips_some(name):
    """In its extra pass; the others of that pass are circulated too."""

    def theirs(model):
        return others.execute(
            comfy_extras.nodes_slg.SkipLayerGuidanceDiT,
            model,
            double_layers="0",
            single_layers="",
            scale=2.0,
            start_percent=0.0,
            end_percent=1.0,
            rescaling_scale=0.0,
        )

    plain, _ = calls_of(theirs(model(name)), name)
    found, one = calls_of(theirs(model(name)), name, then=circulated)
    assert [call.block for call in found if call.doubled] == [call.block for call in plain if call.block]
    assert torch.equal(one, sample(theirs(circulated(model(name))), name))
    assert change(one, written_out(theirs(model(name)), name, where_the_image_is(name))) < ROUNDING


@pytest.mark.skipif("hidream_o1" not in FAMILIES, reason="This ComfyUI does not know HiDream-O1.")
def test_a_node_that_runs_the_network_several_times_in_one_call_has_each_circulated():
    """The one that smooths seams, which is in the workflow of HiDream-O1."""
    nodes = importlib.import_module("comfy_extras.nodes_hidream_o1")
    settings = dict(start_percent=0.0, end_percent=1.0, pattern="symmetric", passes="2", blend="average", strength=1.0)
    theirs = others.execute(nodes.HiDreamO1PatchSeamSmoothing, model=model("hidream_o1"), **settings)
    result, plain = sample(circulated(theirs), "hidream_o1"), sample(theirs, "hidream_o1")
    reference = written_out(theirs, "hidream_o1", where_the_image_is("hidream_o1"))
    assert change(result, reference) < ROUNDING < 1e-3 < change(reference, plain)
    assert change(plain, sample(model("hidream_o1"), "hidream_o1")) > 1e-3


def test_a_block_that_another_node_runs_in_its_own_way_is_named(caplog):
    caplog.set_level(logging.INFO, "circulation")
    theirs = model("sd3").clone()
    theirs.set_model_patch_replace(lambda args, extra: args, "dit", "double_block", 1)
    sample(circulated(theirs), "sd3")
    assert "2 of 3 blocks hit" in caplog.text
    assert "Never came to double.1: another node skips those blocks" in caplog.text


def test_where_blocks_are_counted_a_node_that_adds_attentions_stops_us(caplog):
    caplog.set_level(logging.INFO, "circulation")

    def twice(executor, *args, **kwargs):
        executor(*args, **kwargs)
        return executor(*args, **kwargs)

    theirs = model("hidream").clone()
    theirs.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, twice)
    sample(circulated(theirs), "hidream", steps=3)
    assert "told apart by counting" in caplog.text


def test_branches():
    """Flux with texts of one length computes both in one call."""
    seen = {}

    def keep(args):
        seen.update(positive=args["cond_denoised"], negative=args["uncond_denoised"])
        return args["denoised"]

    def predictions(base):
        base = base.clone()
        base.set_model_sampler_post_cfg_function(keep)
        sample(base, "flux", steps=1, negative=conditioning("flux", 2))
        return dict(seen)

    untouched = predictions(model("flux"))
    touched, both = predictions(circulated(model("flux"), branches="negative")), predictions(circulated(model("flux")))
    assert torch.equal(touched["positive"], untouched["positive"])
    assert change(touched["negative"], both["negative"]) < 1e-5 < change(touched["negative"], untouched["negative"])


@pytest.mark.parametrize("name", ["flux", "sd3", "hidream"])  # blocks named by ComfyUI, marked by us, and counted
def test_a_compiled_model_gives_the_same_and_honours_new_settings(name, compiler):
    shared = others.compiled(model(name), compiler)
    if name != "hidream":  # it takes no argument that would tell it that we came
        assert change(sample(shared, name), sample(model(name), name)) < 1e-6
    for inputs in (dict(), dict(alpha=1.2), dict(tokens="all"), dict(branches="negative")):
        assert change(sample(circulated(shared, **inputs), name), sample(circulated(model(name), **inputs), name)) < 1e-6
    assert compiler.graphs


# The probe


def measured(name, image):
    """The measures of each block and branch of one step by the dense formula, as a record holds them."""
    found = {}

    def see(attention, plain):
        if attention.block is None:
            return
        q, k, out = (t.double() for t in (attention.q, attention.k, plain))
        k = k[:, :, attention.place : attention.place + q.shape[2]]
        within = slice(None) if image is None else image[q.shape[2]]
        rows = dense.measures(q[:, :, within], k[:, :, within], out[:, :, within]).chunk(len(attention.conditions), dim=1)
        for branch, values in zip(attention.conditions, rows):
            found.setdefault((attention.block, branch), values)

    sample(watch(model(name), see, name), name, steps=1, batch=2)
    return found


@pytest.mark.parametrize("tokens", ["image", "all"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_probe_measures_the_dense_formula(name, tokens):
    probed, record = probe(model(name), tokens=tokens)
    assert torch.equal(sample(probed, name, steps=1, batch=2), sample(model(name), name, steps=1, batch=2))
    (run,) = record.of(None).runs
    truth = measured(name, None if is_everything(name, tokens) else where_the_image_is(name, batch=2))
    assert run.values.isfinite().all()
    assert len(truth) == 2 * len(run.info.blocks)
    for (block, branch), values in truth.items():
        found = run.values[:, 0, run.info.blocks.index(block), branch]
        torch.testing.assert_close(found, values.float(), rtol=1e-3, atol=1e-3)
