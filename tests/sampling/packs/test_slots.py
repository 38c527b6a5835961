"""Packs with a forward of their own that call the slots of blocks in another way than ComfyUI, as TeaCache does for Wan and LTX-Video.

They hand a slot {"img", "txt", "vec", "pe"}, and transformer_options beside the original block or not at all; the original block,
also theirs, runs ComfyUI's without options, so that its attention asks no override.
"""

import pytest
import torch
from support import dense, transformers
from support.errors import change
from support.host import probe
from support.packs import ALPHA, BETA, ORDERS, ROUNDING, both, ours
from support.watch import image_positions

FAMILIES = ["wan", "ltxv", "sd3", "aura", "mochi"]
PLACES = ["second argument", "nowhere"]


@pytest.fixture(params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    return transformers.build(name)


def sample(model, name):
    return transformers.sample(model, name)


def written_out(model, name, only=None):
    image = None if name in ("wan", "ltxv") else image_positions(model, name)
    return dense.written_out(model, ALPHA, BETA, name=name, image=image, only=only)


def own_forward(place, taken=lambda slot: True, hands_on=False):
    """A node whose forward calls the slots `taken` in its way, with the options at a `place`.

    With `hands_on` its original block gives ComfyUI's the options that the forward was called with.
    """

    def slot(function, options):
        def called(args, extra):
            def original_block(given):
                assert "transformer_options" not in given
                return extra["original_block"]({**given, "transformer_options": options if hands_on else {}})

            args = {key: value for key, value in args.items() if key != "transformer_options"}
            beside = {"transformer_options": options} if place == "second argument" else {}
            return function(args, {"original_block": original_block, **beside})

        return called

    def wrapper(apply_model, given):
        options = given["c"]["transformer_options"]
        slots = options.get("patches_replace", {}).get("dit", {})
        theirs = {key: slot(function, options) if taken(key) else function for key, function in slots.items()}
        options = {**options, "patches_replace": {**options.get("patches_replace", {}), "dit": theirs}}
        return 0.9 * apply_model(given["input"], given["timestep"], **{**given["c"], "transformer_options": options})

    def node(model):
        model = model.clone()
        model.set_model_unet_function_wrapper(wrapper)
        return model

    return node


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("place", PLACES)
def test_the_blocks_run_and_one_line_says_why_they_were_left_alone(model, name, place, order, log, statuses):
    theirs = own_forward(place)
    alone = sample(theirs(model), name)
    assert torch.equal(sample(both(model, theirs, order), name), alone)
    (line,) = log.records
    assert line.levelname == "WARNING" and "0 of" in line.getMessage()
    for said in (line.getMessage(), statuses["1"]):
        assert "without ComfyUI's options" in said or "never came past Circulation" in said
    assert torch.equal(sample(theirs(model), name), alone), "the other pack works afterwards"
    assert torch.equal(sample(ours(model), name), sample(ours(transformers.build(name)), name))


@pytest.mark.parametrize("order", ORDERS)
def test_a_block_that_they_leave_to_comfyui_is_circulated(model, name, order, log):
    theirs = own_forward("nowhere", ("double_block", 0).__eq__)
    first = "layer.0" if name in ("wan", "ltxv") else "double.0"
    reference = written_out(model, name, lambda block: not block.startswith(first))
    result = sample(both(model, theirs, order), name)
    error, effect = change(result, sample(theirs(reference), name)), change(result, sample(theirs(model), name))
    assert error < ROUNDING and error < effect / 100
    assert f" at {first}" in log.text and "without ComfyUI's options" in log.text


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("place", PLACES)
def test_options_that_their_block_hands_on_are_used_or_the_block_is_left_alone(model, name, place, order, log):
    """Newer versions of ComfyUI say there which block it is, without our mark."""
    theirs = own_forward(place, hands_on=True)
    result = sample(both(model, theirs, order), name)
    if "0 of" in log.text:
        assert torch.equal(result, sample(theirs(model), name))
        assert "WARNING" in log.text and ("Never came to" in log.text or "without ComfyUI's options" in log.text)
    else:
        assert change(result, sample(theirs(written_out(model, name)), name)) < ROUNDING


@pytest.mark.parametrize("place", PLACES)
def test_a_probe_beside_it_measures_nothing_and_says_why(model, name, place):
    probed, live = probe(own_forward(place)(model))
    assert torch.equal(sample(probed, name), sample(own_forward(place)(model), name))
    runs = live.of(None).runs
    assert len(runs) == 1 and not runs[0].values.isfinite().any()
    assert any("without ComfyUI's options" in note or "never came past" in note for note in runs[0].info.notes)
