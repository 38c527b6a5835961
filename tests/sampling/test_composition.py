"""Beside other nodes, in either order: the result is theirs and ours together.

The yardstick is `dense`: every self-attention of the UNet written out with its L×L matrices, under
the same other node. Where the other node takes the place of a self-attention, so it does there.
"""

import logging

import comfy.model_patcher
import comfy_extras.nodes_freelunch
import comfy_extras.nodes_hypertile
import comfy_extras.nodes_model_advanced
import comfy_extras.nodes_pag
import comfy_extras.nodes_sag
import comfy_extras.nodes_tomesd
import pytest
import torch
from comfy.ldm.modules.attention import attention_basic, optimized_attention
from support import dense, models, others
from support.errors import change
from support.host import patch
from support.models import conditioning
from support.sampling import sample
from support.watch import record

ALPHA, BETA = 1.5, 3.0
ORDERS = ["theirs first", "ours first"]
ROUNDING = 1e-4  # the fast path against the written-out one, relative, over a whole run
VISIBLE = 1e-3


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, "circulation")
    return caplog


@pytest.fixture(scope="module")
def model():
    return models.build("sd15")


def ours(model, **inputs):
    return patch(model, alpha=ALPHA, beta=BETA, **inputs)


def written_out(model, **kwargs):
    return dense.written_out(model, ALPHA, BETA, **kwargs)


def run(model, **kwargs):
    torch.manual_seed(0)  # HyperTile and ToMe draw from the global generator
    return sample(model, **kwargs)


def both_together(model, theirs, reference, **kwargs):
    """Either order gives the same bits, the reference's image, and neither one's effect alone."""
    one, other = run(ours(theirs(model)), **kwargs), run(theirs(ours(model)), **kwargs)
    assert torch.equal(one, other)
    assert change(one, run(reference, **kwargs)) < ROUNDING
    assert change(one, run(theirs(model), **kwargs)) > VISIBLE, "our effect is missing"
    assert change(one, run(ours(model), **kwargs)) > VISIBLE, "their effect is missing"


# Nodes that leave self-attention alone


def freeu(model):
    return others.execute(comfy_extras.nodes_freelunch.FreeU_V2, model, b1=1.3, b2=1.4, s1=0.9, s2=0.2)


def pag(model):
    return others.execute(comfy_extras.nodes_pag.PerturbedAttentionGuidance, model, scale=3.0)


def sag(model):
    return others.execute(comfy_extras.nodes_sag.SelfAttentionGuidance, model, scale=1.0, blur_sigma=2.0)


@pytest.mark.parametrize("theirs", [freeu, others.with_lora])
def test_a_node_that_leaves_self_attention_alone_adds_to_ours(model, theirs):
    both_together(model, theirs, theirs(written_out(model)))


@pytest.mark.parametrize("theirs", [freeu, others.with_lora])
def test_the_same_holds_for_sdxl(theirs):
    model = models.build("sdxl")
    both_together(model, theirs, theirs(written_out(model)), name="sdxl")


def test_a_controlnet_adds_to_ours_and_is_not_itself_changed(model):
    control = others.controlnet()
    controlled = dict(positive=conditioning("sd15", 1, control=control, control_apply_to_uncond=True))
    one = run(ours(model), **controlled)
    assert change(one, run(written_out(model), **controlled)) < ROUNDING
    assert change(one, run(model, **controlled)) > VISIBLE
    assert change(one, run(ours(model))) > VISIBLE


# Backends


def kjnodes(model, backend):
    return others.overwrite(model, backend)


def core_selector(model, backend):
    model = model.clone()
    model.set_model_optimized_attention(backend)
    return model


SELECTORS = [kjnodes]
if hasattr(comfy.model_patcher.ModelPatcher, "set_model_optimized_attention"):
    SELECTORS.append(core_selector)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("select", SELECTORS)
def test_a_backend_selector_computes_every_call_ours_included(model, select, order):
    computed = []

    def backend(*args, **kwargs):
        computed.append(None)
        return attention_basic(*args, **{"_inside_attn_wrapper": True, **kwargs})

    both, calls = record(ours(select(model, backend)) if order == "theirs first" else select(ours(model), backend))
    assert change(run(both), run(written_out(model))) < ROUNDING
    steps, blocks = 2, 10
    assert len(computed) == len(calls) == steps * (2 + 1) * blocks  # self, cross and ours
    doubled = [call for call in calls if call.doubled]
    assert len(doubled) == steps * blocks
    for call in doubled:
        own = next(own for own in calls if own.block == call.block and not own.doubled)
        assert (call.shape, call.keys) == ((*own.shape[:3], 2 * own.shape[3]), own.keys)


def test_an_override_that_chains_acts_on_the_models_calls_and_on_ours(model):
    """Theirs scales the queries by 1.2, which is what scaling the weights of all queries does."""

    def theirs(model):
        return others.chain(model, sharper=1.2)

    reference = written_out(model)
    queries = {k: w for k, w in model.model.state_dict().items() if k.endswith("to_q.weight")}
    reference.add_patches({key: (weight,) for key, weight in queries.items()}, strength_patch=0.2)
    both_together(model, theirs, reference)


if hasattr(comfy_extras.nodes_model_advanced, "ModelAttentionBackend"):

    def test_cores_backend_node_gives_the_same_in_either_order(model):
        def theirs(model):
            return others.execute(comfy_extras.nodes_model_advanced.ModelAttentionBackend, model, "pytorch attention")

        one, other = run(ours(theirs(model))), run(theirs(ours(model)))
        assert torch.equal(one, other)
        assert change(one, run(written_out(model))) < ROUNDING


# Guidance that replaces self-attentions


def test_perturbed_attention_guidance_keeps_its_block_and_we_the_others(model, log):
    both_together(model, pag, pag(written_out(model)))
    assert "Left alone in 2 calls at middle.0.0: another node replaces the self-attention there" in log.text


def test_self_attention_guidance_keeps_its_block_and_we_the_others(model, log):
    both_together(model, sag, sag(written_out(model)))
    assert "calls at middle.0.0: another node replaces the self-attention there" in log.text


# SLG: core's nodes skip blocks of DiT models through patches_replace["dit"], which no UNet reads.


def attention_of_their_own(q, k, v, extra_options):
    return optimized_attention(q, k, v, extra_options["n_heads"]) * 0.8


def attention_with_our_options(q, k, v, extra_options):
    out = optimized_attention(q, k, v, extra_options["n_heads"], transformer_options=extra_options)
    return out * 0.8


def test_a_replaced_self_attention_that_ignores_overrides_stays_theirs(model, log):
    def theirs(model):
        model = model.clone()
        model.set_model_attn1_replace(attention_of_their_own, "middle", 0, 0)
        return model

    both_together(model, theirs, theirs(written_out(model)))
    assert "9 of 10 blocks hit" in log.text
    assert "Left alone in 2 calls at middle.0.0: another node replaces" in log.text


def test_a_replaced_self_attention_that_passes_its_options_on_is_circulated(model, log):
    def theirs(model):
        model = model.clone()
        model.set_model_attn1_replace(attention_with_our_options, "middle", 0, 0)
        return model

    both_together(model, theirs, theirs(written_out(model)))
    assert "10 of 10 blocks hit" in log.text and "Left alone" not in log.text


@pytest.mark.parametrize("pass_options", [False, True])
def test_a_replaced_cross_attention_is_never_taken_for_a_self_attention(model, pass_options):
    """As IPAdapter does it, with as many text tokens as there are image tokens in some blocks."""
    image_prompt = torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(3))

    def replacement(q, k, v, extra_options):
        options = dict(transformer_options=extra_options) if pass_options else {}
        heads = extra_options["n_heads"]
        prompt = image_prompt.expand(len(q), -1, -1)
        return optimized_attention(q, k, v, heads, **options) + optimized_attention(q, prompt, prompt, heads, **options)

    def theirs(model):
        model = model.clone()
        for place in (("input", 3), ("middle", 0), ("output", 3)):
            model.set_model_attn2_replace(replacement, *place)
        return model

    texts = dict(positive=conditioning("sd15", 1, tokens=64), negative=conditioning("sd15", 2, tokens=64))
    both_together(model, theirs, theirs(written_out(model)), **texts)


# Nodes after which queries and keys differ in number


def hypertile(model):
    node = comfy_extras.nodes_hypertile.HyperTile
    return others.execute(node, model, tile_size=32, swap_size=1, max_depth=0, scale_depth=False)


def tome(model):
    return others.execute(comfy_extras.nodes_tomesd.TomePatchModel, model, ratio=0.4)


@pytest.mark.parametrize("theirs", [hypertile, tome])
def test_merged_or_tiled_tokens_are_declined_and_the_other_blocks_circulated(model, log, theirs):
    top_of_the_unet = ("input.1.0", "output.4.0", "output.5.0")
    both_together(model, theirs, theirs(written_out(model, only=lambda block: block not in top_of_the_unet)))
    assert "7 of 10 blocks hit" in log.text
    assert "Left alone in 6 calls at input.1.0, output.4.0, output.5.0: queries and keys differ in number" in log.text
