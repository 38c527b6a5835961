"""Guiders with one, two and three conditions: what is kept as positive and negative is the guider's own, and treated so."""

import comfy.samplers
import comfy_extras.nodes_custom_sampler as custom_sampler
import comfy_extras.nodes_perpneg as perpneg
import pytest
import torch
from support import dense, models
from support.errors import change
from support.host import probe
from support.models import conditioning
from support.packs import ALPHA, BETA, ROUNDING, ours
from support.watch import watch

POSITIVE, OTHER, NEGATIVE = (conditioning("sd15", seed) for seed in (1, 3, 2))


@pytest.fixture(scope="module")
def model():
    return models.build("sd15", **models.ONE_LEVEL)


def basic(model):
    guider = custom_sampler.Guider_Basic(model)
    guider.set_conds(POSITIVE)
    return guider


def cfg(model, scale=4.0):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(POSITIVE, NEGATIVE)
    guider.set_cfg(scale)
    return guider


def perp_neg(model):
    guider = perpneg.Guider_PerpNeg(model)
    guider.set_conds(POSITIVE, NEGATIVE, OTHER)
    guider.set_cfg(4.0, 1.0)
    return guider


def dual(model, *scales, nested=False):
    guider = custom_sampler.Guider_DualCFG(model)
    guider.set_conds(POSITIVE, OTHER, NEGATIVE)
    guider.set_cfg(*(scales or (3.0, 4.0)), nested)
    return guider


# the guider, its conditions in the order in which the model gets them
GUIDERS = {
    "basic": (basic, [POSITIVE]),
    "cfg": (cfg, [POSITIVE, NEGATIVE]),
    "cfg 1": (lambda model: cfg(model, 1.0), [POSITIVE]),
    "perpneg": (perp_neg, [POSITIVE, NEGATIVE, OTHER]),
    "dual": (dual, [NEGATIVE, OTHER, POSITIVE]),
    "dual, nested": (lambda model: dual(model, nested=True), [NEGATIVE, OTHER, POSITIVE]),
    "dual, cfg of the second 1": (lambda model: dual(model, 3.0, 1.0), [None, OTHER, POSITIVE]),
    "dual, both 1": (lambda model: dual(model, 1.0, 1.0), [None, None, POSITIVE]),
}


@pytest.fixture(params=GUIDERS)
def guider(request):
    return GUIDERS[request.param]


def run(guider):
    model = guider.model_patcher
    latent = torch.zeros(1, 4, 16, 16)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 2)
    with torch.inference_mode():
        return guider.sample(noise, latent, comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True, seed=0)


def by_condition(model, make):
    """What a written-out probe sees in the first step, (block, measure) of each condition by its position."""
    measured = {}

    def see(attention, plain):
        if attention.block is not None:
            rows = dense.measures(*(t.double() for t in (attention.q, attention.k, plain)))
            for condition, row in zip(attention.conditions, rows.unbind(1)):
                measured.setdefault(condition, {}).setdefault(attention.block, row)

    run(make(watch(model, see)))
    return {condition: torch.stack(list(rows.values())).float() for condition, rows in measured.items()}


def test_the_record_keeps_the_guiders_own_positive_and_negative(model, guider):
    make, order = guider
    probed, live = probe(model)
    assert torch.equal(run(make(probed)), run(make(model)))
    (record,) = live.of(None).runs
    expected = by_condition(model, make)
    for branch, prompt in enumerate((POSITIVE, NEGATIVE)):
        kept = record.values[:, 0, :, branch, 0].mT
        position = next((position for position, each in enumerate(order) if each is prompt), None)
        if position is None:
            assert kept.isnan().all()
        else:
            torch.testing.assert_close(kept, expected[position], rtol=2e-3, atol=2e-3)
    assert any("further positive prompts" in note for note in record.info.notes) == any(each is OTHER for each in order)


@pytest.mark.parametrize("branch", ["positive", "negative"])
def test_a_rule_for_one_branch_acts_on_the_guiders_own(model, guider, branch):
    make, order = guider
    negative = next((position for position, each in enumerate(order) if each is NEGATIVE), None)
    acted = [position for position in range(len(order)) if (position == negative) == (branch == "negative")]
    reference = dense.written_out(model, ALPHA, BETA, conditions=acted)
    assert change(run(make(ours(model, branches=branch))), run(make(reference))) < ROUNDING
