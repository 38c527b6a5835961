"""Prompts that act on parts of the image, of the run or of the batch, LoRA hooks, other guiders.

As in test_composition.py the yardstick is the same sampling with every self-attention written out.
"""

from itertools import pairwise

import comfy.hooks
import comfy.samplers
import comfy_extras.nodes_context_windows
import comfy_extras.nodes_custom_sampler
import comfy_extras.nodes_hooks
import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention
from support import dense, models, others
from support.errors import change
from support.host import patch
from support.models import conditioning
from support.sampling import sample
from support.watch import record

import nodes as comfy_nodes

ALPHA, BETA = 1.5, 3.0
ROUNDING = 1e-4
VISIBLE = 1e-3


@pytest.fixture(scope="module")
def model():
    return models.build("sd15")


def ours(model, **inputs):
    return patch(model, alpha=ALPHA, beta=BETA, **inputs)


def written_out(model, conditions=None, space="value space"):
    return dense.written_out(model, ALPHA, BETA, space, conditions=conditions)


def agree(model, sampling=sample, **kwargs):
    """Ours is the written-out method, and visible."""
    image = sampling(ours(model), **kwargs)
    assert change(image, sampling(written_out(model), **kwargs)) < ROUNDING
    assert change(image, sampling(model, **kwargs)) > VISIBLE
    return image


def test_prompts_for_areas_and_masks(model):
    (corner,) = comfy_nodes.ConditioningSetArea().append(conditioning("sd15", 3), 64, 96, 32, 0, 1.0)
    mask = torch.zeros(1, 16, 16)
    mask[:, 4:12, 4:12] = 1
    (middle,) = comfy_nodes.ConditioningSetMask().append(conditioning("sd15", 4), mask, "mask bounds", 1.0)
    positive = conditioning("sd15", 1) + corner + middle
    image = agree(model, positive=positive)
    assert change(image, sample(ours(model))) > VISIBLE


def test_prompts_for_parts_of_the_run(model):
    node = comfy_nodes.ConditioningSetTimestepRange()
    positive = node.set_range(conditioning("sd15", 1), 0.0, 0.5)[0] + node.set_range(conditioning("sd15", 3), 0.5, 1.0)[0]
    image = agree(model, positive=positive, steps=4)
    assert change(image, sample(ours(model), steps=4)) > VISIBLE


@pytest.fixture
def hooked(model):
    """A positive prompt with a LoRA on it that fades out over the run, and an unhooked one."""
    hooks = comfy.hooks.create_hook_lora(others.lora(model), 1.0, 1.0)
    keyframes = None
    for strength, start in ((1.0, 0.0), (0.3, 0.4), (0.0, 0.8)):
        (keyframes,) = comfy_extras.nodes_hooks.CreateHookKeyframe().create_hook_keyframe(strength, start, keyframes)
    (hooks,) = comfy_extras.nodes_hooks.SetHookKeyframes().set_hook_keyframes(hooks, keyframes)
    node = comfy_extras.nodes_hooks.ConditioningSetProperties()
    (prompt,) = node.set_properties(conditioning("sd15", 1), 1.0, "default", hooks=hooks)
    return prompt + conditioning("sd15", 3)


def test_lora_hooks_with_keyframes(model, hooked):
    image = agree(model, positive=hooked, steps=4)
    unhooked = conditioning("sd15", 1) + conditioning("sd15", 3)
    assert change(image, sample(ours(model), positive=unhooked, steps=4)) > VISIBLE


def windows(model):
    """The image in overlapping bands of half its height."""
    node = comfy_extras.nodes_context_windows.ContextWindowsManualNode
    inputs = {each.id: each.default for each in node.define_schema().inputs if getattr(each, "default", None) is not None}
    inputs |= dict(context_length=8, context_overlap=4, context_schedule="standard_static", dim=2)
    return others.execute(node, model, **{"fuse_method": "pyramid", **inputs})


@pytest.mark.parametrize("branch, condition", [("positive", 0), ("negative", 1)])
def test_one_branch_alone(model, hooked, branch, condition):
    """However the conditions come to the model: together, apart, with hooks, in windows."""
    images = []
    for kwargs in ({}, dict(positive=hooked), dict(positive=conditioning("sd15", 1, tokens=10))):
        images.append(sample(ours(model, branches=branch), **kwargs))
        assert change(images[-1], sample(written_out(model, [condition]), **kwargs)) < ROUNDING
        assert change(images[-1], sample(ours(model), **kwargs)) > VISIBLE
    bands = sample(ours(windows(model), branches=branch))
    assert change(bands, sample(written_out(windows(model), [condition]))) < ROUNDING


def test_context_windows_in_either_order(model):
    bands = sample(ours(windows(model)))
    assert torch.equal(bands, sample(windows(ours(model))))
    assert change(bands, sample(written_out(windows(model)))) < ROUNDING
    assert change(bands, sample(ours(model))) > VISIBLE


def guided(guider):
    model = guider.model_patcher
    latent = torch.zeros(1, 4, 16, 16)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 2)
    with torch.inference_mode():
        return guider.sample(noise, latent, comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True, seed=0)


def dual_cfg(model):
    """Its conditions reach the model in the order negative, middle, positive."""
    guider = comfy_extras.nodes_custom_sampler.Guider_DualCFG(model)
    guider.set_conds(*(conditioning("sd15", seed) for seed in (1, 3, 2)))
    guider.set_cfg(3.0, 4.0)
    return guided(guider)


@pytest.mark.parametrize("branch, conditions", [("both", (0, 1, 2)), ("negative", (0,)), ("positive", (1, 2))])
def test_the_dual_cfg_guider_whose_first_condition_is_the_negative(model, branch, conditions):
    image = dual_cfg(ours(model, branches=branch))
    assert change(image, dual_cfg(written_out(model, conditions))) < ROUNDING
    assert change(image, dual_cfg(model)) > VISIBLE
    bands = dual_cfg(ours(windows(model), branches=branch))
    assert change(bands, dual_cfg(written_out(windows(model), conditions))) < ROUNDING


def test_a_guider_without_a_negative(model):
    def basic(model):
        guider = comfy_extras.nodes_custom_sampler.Guider_Basic(model)
        guider.set_conds(conditioning("sd15", 1))
        return guided(guider)

    agree(model, sampling=basic)
    assert torch.equal(basic(ours(model, branches="negative")), basic(model))
    assert torch.equal(basic(ours(model, branches="positive")), basic(ours(model)))


if hasattr(comfy_extras.nodes_custom_sampler, "Guider_DualModel"):

    @pytest.mark.parametrize("branch", ["both", "positive", "negative"])
    def test_the_dual_model_guider_puts_the_negative_model_under_our_rules_too(model, branch):
        """ComfyUI runs the negative model with the options of the positive one; its own rules never act."""

        recorded, calls = record(model)
        positive_model = ours(recorded, branches=branch)
        guider = comfy_extras.nodes_custom_sampler.Guider_DualModel(positive_model, models.build("sd15", seed=9))
        texts = {"positive": conditioning("sd15", 1, tokens=77), "negative": conditioning("sd15", 2, tokens=80)}
        guider.set_conds(**texts)
        guider.set_cfg(4.0)
        guided(guider)
        # each of ours is followed by the cross-attention of its block, which tells the text by its length
        acted = {following.keys for call, following in pairwise(calls) if call.doubled}
        assert acted == {texts[which][0][0].shape[1] for which in texts if branch in ("both", which)}


@pytest.mark.parametrize("space", ["value space", "input space (paper)", "off"])
def test_a_masked_self_attention(model, space):
    """A replacement that passes a mask on: both softmaxes see it, added after the scaling."""
    mask = torch.zeros(64, 64).masked_fill_(torch.rand(64, 64, generator=torch.Generator().manual_seed(1)) < 0.4, -1e4)

    def masked(q, k, v, extra_options):
        here = mask if q.shape[1] == 64 else None
        return optimized_attention(q, k, v, extra_options["n_heads"], mask=here, transformer_options=extra_options)

    theirs = model.clone()
    for place in (("input", 3), ("output", 2), ("output", 3)):
        theirs.set_model_attn1_replace(masked, *place)
    image = sample(ours(theirs, rescale=space))
    assert change(image, sample(written_out(theirs, space=space))) < ROUNDING
