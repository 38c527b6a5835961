"""Packs that ask the model themselves in the place of ComfyUI's batch of conditions, by sampler_calc_cond_batch_function.

Those written before ComfyUI had ids of prompts give the chunks of the batch without them, or say nothing of chunks.
"""

import pytest
import torch
from support import dense, models, transformers
from support.errors import change
from support.host import probe
from support.packs import ALPHA, BETA, ORDERS, ROUNDING, VISIBLE, both, ours
from support.sampling import sample

TOLD = ["chunks and prompts", "chunks", "nothing"]


@pytest.fixture(scope="module")
def model():
    return models.build("sd15", **models.ONE_LEVEL)


def own_calls(told):
    """A node that sends the first condition of each branch through the model, positive first."""

    def answer(given):
        model, x, sigma = given["model"], given["input"], given["sigma"]
        conds = [(position, cond[0]) for position, cond in enumerate(given["conds"]) if cond]
        options = dict(given["model_options"]["transformer_options"])
        options["sigmas"] = sigma
        if told != "nothing":
            options["cond_or_uncond"] = [position for position, _ in conds]
        if told == "chunks and prompts":
            options["uuids"] = [cond["uuid"] for _, cond in conds]
        text = torch.cat([cond["model_conds"]["c_crossattn"].cond for _, cond in conds])
        rows = len(conds)
        out = 0.9 * model.apply_model(torch.cat([x] * rows), torch.cat([sigma] * rows), c_crossattn=text, transformer_options=options)
        answers = iter(out.chunk(rows))
        return [next(answers) if cond else torch.zeros_like(x) for cond in given["conds"]]

    def node(model):
        model = model.clone()
        model.model_options["sampler_calc_cond_batch_function"] = answer
        return model

    return node


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("told", TOLD)
def test_both_branches_are_right(model, told, order, log):
    theirs = own_calls(told)
    image = sample(both(model, theirs, order))
    reference = own_calls("chunks and prompts")(dense.written_out(model, ALPHA, BETA))
    assert change(image, sample(reference)) < ROUNDING
    assert change(image, sample(theirs(model))) > VISIBLE
    assert "4 of 4 blocks hit, all 2 steps" in log.text


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("branch, condition", [("positive", 0), ("negative", 1)])
@pytest.mark.parametrize("told", TOLD)
def test_one_branch_is_right_or_left_alone_with_a_warning(model, told, branch, condition, order, log, statuses):
    theirs = own_calls(told)
    image = sample(both(model, theirs, order, lambda model: ours(model, branches=branch)))
    if torch.equal(image, sample(theirs(model))):
        assert "WARNING" in log.text and "positive or negative" in log.text and "positive or negative" in statuses["1"]
    else:
        reference = own_calls("chunks and prompts")(dense.written_out(model, ALPHA, BETA, conditions=[condition]))
        assert change(image, sample(reference)) < ROUNDING


@pytest.mark.parametrize("told", TOLD)
def test_a_range_of_steps_holds(model, told, log):
    sample(own_calls(told)(ours(model, start_percent=0.5)), steps=4)
    assert "4 of 4 blocks hit, steps 3 to 4 of 4" in log.text


@pytest.mark.parametrize("told", TOLD)
def test_a_probe_beside_it_changes_nothing(model, told):
    probed, live = probe(own_calls(told)(model))
    assert torch.equal(sample(probed), sample(own_calls(told)(model)))
    (run,) = live.of(None).runs
    assert run.values.isfinite().any() or run.info.notes


@pytest.mark.parametrize("told", TOLD)
def test_a_transformer_asked_so_is_circulated_too(told, log):
    model = transformers.build("wan")
    image = transformers.sample(own_calls(told)(ours(model)), "wan", negative=transformers.conditioning("wan", 2))
    assert change(image, transformers.sample(own_calls(told)(model), "wan", negative=transformers.conditioning("wan", 2))) > VISIBLE
    assert "2 of 2 blocks hit" in log.text
