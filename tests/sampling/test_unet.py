"""Whole models through ComfyUI's own sampler."""

import comfy.model_base
import comfy.samplers
import comfy_extras.nodes_custom_sampler as custom_sampler
import pytest
import torch
from support import dense
from support.errors import change
from support.host import engine, patch
from support.models import build, conditioning
from support.sampling import sample
from support.watch import record

UNETS = ["sd15", "sd20", "sdxl", "refiner", "ssd1b"]
SPACES = ["value space", "input space (paper)", "off"]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", UNETS)
def test_every_self_attention_computes_the_written_out_formula(name, space):
    model = build(name)
    ours = sample(patch(model, alpha=1.2, beta=3, rescale=space), name)
    truth = sample(dense.written_out(model, 1.2, 3, space), name)
    untouched = sample(model, name)
    assert change(ours, truth) < 1e-4 < 1e-2 < change(truth, untouched)


@pytest.mark.parametrize("over", ["image", "head", "batch"])
@pytest.mark.parametrize("formula", ["deviation", "scale"])
def test_the_adaptive_node_computes_the_written_out_formula(over, formula):
    model = build("sdxl")
    ours = sample(patch(model, "CirculationAdaptive", alpha=1.5, beta=3, formula=formula, eta_over=over), "sdxl")
    adapt = {"over": over, "formula": formula}
    truth = sample(dense.written_out(model, 1.5, 3, adapt=adapt), "sdxl")
    assert change(ours, truth) < 1e-4


# Where the small models attend, in execution order: depths 1, 1, 1 with one in the middle; and 0, 2, 1 with two
SD15 = ["input.1.0", "input.3.0", "input.5.0", "middle.0.0", *(f"output.{index}.0" for index in range(6))]
SDXL = ["input.3.0", "input.3.1", "input.5.0", "middle.0.0", "middle.0.1",
        "output.0.0", "output.1.0", "output.2.0", "output.2.1", "output.3.0", "output.3.1"]  # fmt: skip
BLOCKS = {"sd15": SD15, "sd20": SD15, "sdxl": SDXL, "refiner": SDXL, "ssd1b": [block for block in SDXL if "middle" not in block]}


@pytest.mark.parametrize("blocks, chosen", [
    ("input", ["input.3.0", "input.3.1", "input.5.0"]),
    ("!middle", BLOCKS["ssd1b"]),
    ("output.2-3.1", ["output.2.1", "output.3.1"]),
])  # fmt: skip
def test_only_the_selected_blocks_are_touched(blocks, chosen):
    model = build("sdxl")
    recorded, calls = record(model)
    ours = sample(patch(recorded, alpha=1.3, blocks=blocks), "sdxl")
    assert {call.block for call in calls if call.doubled} == set(chosen)
    assert change(ours, sample(dense.written_out(model, 1.3, 3, only=chosen.__contains__), "sdxl")) < 1e-4


@pytest.mark.parametrize("name", UNETS)
def test_blocks_are_listed_once_each_in_execution_order(name):
    model, calls = record(build(name))
    sample(patch(model, alpha=1.3), name, steps=1)
    assert [call.block for call in calls if call.doubled] == BLOCKS[name]
    assert [str(block) for block in engine("comfy.model").patchable_blocks(model)] == BLOCKS[name]


OFF = [
    ("CirculationControl", dict(alpha=1.0)),
    ("CirculationControl", dict(beta=0.0)),
    ("CirculationControl", dict(alpha=1.0, rescale="input space (paper)")),
    ("CirculationAdaptive", dict(alpha=1.0)),
    ("CirculationAdaptive", dict(beta=0.0, formula="scale")),
    ("CirculationAdaptive", dict(alpha=1.0, adapt_alpha=False, formula="scale")),
]


@pytest.mark.parametrize("node_id, inputs", OFF, ids=str)
def test_off_is_bit_identical_and_costs_no_call(node_id, inputs):
    model, calls = record(build("sd15"))
    untouched = sample(model)
    expected = list(calls)
    calls.clear()
    assert torch.equal(sample(patch(model, node_id, **inputs)), untouched)
    assert calls == expected


def test_a_range_outside_the_run_is_bit_identical_and_costs_no_call():
    model, calls = record(build("sd15"))
    latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    untouched = sample(model, latent=latent, denoise=0.3)
    expected = list(calls)
    calls.clear()
    assert torch.equal(sample(patch(model, alpha=1.5, end_percent=0.2), latent=latent, denoise=0.3), untouched)
    assert calls == expected


def test_a_model_is_as_before_after_its_patched_clone_ran():
    model = build("sd15")
    untouched = sample(model)
    assert not torch.equal(sample(patch(model, alpha=1.5)), untouched)
    assert torch.equal(sample(model), untouched)


def test_one_patched_model_serves_two_samplers_alike():
    patched = patch(build("sd15"), alpha=1.5)
    first = sample(patched, seed=1)
    sample(patched, seed=2, steps=1, sampler="heun")
    assert torch.equal(sample(patched, seed=1), first)


def test_the_later_rule_wins_where_both_match():
    model = build("sd15")
    twice = patch(patch(model, alpha=1.5), alpha=1.1, blocks="input")
    recorded = sample(twice)
    once = patch(patch(model, alpha=1.1, blocks="input"), alpha=1.5, blocks="!input")
    assert torch.equal(recorded, sample(once))
    assert not torch.equal(recorded, sample(patch(patch(model, alpha=1.1, blocks="input"), alpha=1.5)))
    switched_off = patch(patch(model, alpha=1.5), alpha=1.0, blocks="input")
    assert torch.equal(sample(switched_off), sample(patch(model, alpha=1.5, blocks="!input")))


@pytest.mark.parametrize("wanted", ["positive", "negative"])
@pytest.mark.parametrize("together", [True, False])
def test_branches(wanted, together):
    """The other branch is bit-identical, whether both are computed in one call or in two."""
    recorded, calls = record(build("sd15"))
    positive, negative = conditioning("sd15", 1), conditioning("sd15", 2, tokens=77 if together else 76 * 7)
    seen = {}

    def keep(args):
        seen.setdefault("positive", args["cond_denoised"])
        seen.setdefault("negative", args["uncond_denoised"])
        return args["denoised"]

    def predictions(model):
        seen.clear()
        model = model.clone()
        model.set_model_sampler_post_cfg_function(keep)
        sample(model, steps=1, positive=positive, negative=negative)
        return dict(seen)

    untouched = predictions(recorded)
    assert ({(1, 0)} if together else {(0,), (1,)}) == {call.conditions for call in calls}
    touched = predictions(patch(recorded, alpha=1.5, branches=wanted))
    both = predictions(patch(recorded, alpha=1.5))
    other = "negative" if wanted == "positive" else "positive"
    assert torch.equal(touched[other], untouched[other])
    assert change(touched[wanted], untouched[wanted]) > 0.01
    assert change(touched[wanted], both[wanted]) < 1e-5


def test_branches_follow_the_guider_that_orders_them_differently():
    """Dual CFG hands its conditions over as negative, middle, positive."""
    recorded, calls = record(build("sd15"))
    guider = custom_sampler.Guider_DualCFG(patch(recorded, alpha=1.5, branches="negative"))
    guider.set_conds(conditioning("sd15", 1), conditioning("sd15", 2), conditioning("sd15", 3))
    guider.set_cfg(4.0, 2.0)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), torch.tensor([5.0, 0.0]))
    plain = next(call for call in calls if not call.doubled)
    assert sorted(plain.conditions) == [0, 1, 2]
    assert {call.shape[0] for call in calls if call.doubled} == {1}
    assert plain.conditions[-1] == 0  # rows are in reverse order of the conditions, so the negative's are last


@pytest.mark.parametrize("node_id, inputs", [
    ("CirculationControl", dict(alpha=1.5)),
    ("CirculationControl", dict(alpha=1.5, rescale="input space (paper)")),
    ("CirculationAdaptive", dict(alpha=1.5, formula="scale", eta_over="image")),
    ("CirculationAdaptive", dict(alpha=1.5, formula="scale", eta_over="head")),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("together", [True, False])
def test_an_image_does_not_depend_on_its_neighbours(node_id, inputs, together, monkeypatch):
    model = build("sd15")
    patched = patch(model, node_id, **inputs)
    noise = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    batch = sample(patched, batch=4, noise=noise)
    if not together:  # as on a small card: one model call per branch
        monkeypatch.setattr(comfy.model_base.BaseModel, "memory_required", lambda *args, **kwargs: float("inf"))
    recorded, calls = record(patched)
    alone = sample(recorded, noise=noise[2:3])
    assert {len(call.conditions) for call in calls} == ({2} if together else {1})
    assert change(alone, batch[2:3]) < 1e-5
    assert change(alone, sample(model, noise=noise[2:3])) > 0.01


def test_the_batch_mode_does_depend_on_the_neighbours():
    patched = patch(build("sd15"), "CirculationAdaptive", alpha=1.5, formula="scale", eta_over="batch")
    noise = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    assert change(sample(patched, noise=noise[2:3]), sample(patched, batch=4, noise=noise)[2:3]) > 1e-5
