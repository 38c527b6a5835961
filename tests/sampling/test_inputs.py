"""What the nodes refuse, before sampling starts."""

import math
import re

import pytest
from support.host import engine, patch
from support.models import build

NODES = ["CirculationControl", "CirculationAdaptive"]
NAN, INF = math.nan, math.inf


@pytest.fixture(scope="module")
def model():
    return build("sd15")


@pytest.mark.parametrize("node_id", NODES)
@pytest.mark.parametrize("inputs, words", [
    (dict(alpha=NAN), "alpha is nan"),
    (dict(alpha=INF), "alpha is inf"),
    (dict(alpha=3.01), "alpha is 3.01 and must be between -1 and 3"),
    (dict(alpha=-1.01), "alpha"),
    (dict(beta=NAN), "beta is nan"),
    (dict(beta=-0.1), "beta"),
    (dict(beta=11), "beta is 11 and must be between 0 and 10"),
    (dict(start_percent=NAN), "start_percent is nan"),
    (dict(start_percent=-0.1), "start_percent"),
    (dict(end_percent=1.1), "end_percent"),
    (dict(start_percent=0.6, end_percent=0.4), "start_percent 0.6 lies after end_percent 0.4"),
    (dict(blocks=""), "No block is selected"),
    (dict(blocks="everything!"), "'everything!' is not a block"),
    (dict(blocks="input.99"), "'input.99' selects no block. This model has input.1.0"),
    (dict(schedule={}), "schedule: connect the schedule output of a Circulation Schedule node"),
    (dict(rescale="sideways"), "rescale is 'sideways'"),
    (dict(branches="neither"), "branches is 'neither'"),
    (dict(tokens="text"), "tokens is 'text'"),
    (dict(alpha=None), "alpha is None (NoneType) and must be a number between -1 and 3"),
    (dict(alpha=[1.2]), "alpha is [1.2] (list) and must be a number"),
    (dict(alpha=10**400), "alpha is 1000"),
    (dict(beta="3"), "beta is '3' and must be a number between 0 and 10"),
    (dict(start_percent={}), "start_percent is {} (dict)"),
    (dict(end_percent=object), "end_percent is <class 'object'> (type)"),
    (dict(blocks=5), "blocks is 5 and must be text"),
    (dict(blocks=None), "blocks is None (NoneType) and must be text"),
    (dict(blocks="input." + "9" * 5000), "is not a block"),
    (dict(branches=["both"]), "branches is ['both'] (list) and must be one of"),
    (dict(rescale=None), "rescale is None"),
])  # fmt: skip
def test_bad_numbers_and_words_are_refused(model, node_id, inputs, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        patch(model, node_id, **inputs)


@pytest.mark.parametrize("inputs, words", [
    (dict(formula="other"), "formula is 'other'"),
    (dict(eta_over="moon"), "eta_over is 'moon'"),
])  # fmt: skip
def test_bad_words_of_the_adaptive_node_are_refused(model, inputs, words):
    with pytest.raises(ValueError, match=words):
        patch(model, "CirculationAdaptive", **inputs)


@pytest.mark.parametrize("node_id", NODES)
@pytest.mark.parametrize("thing", [None, "model", object()])
def test_what_is_not_a_diffusion_model_is_refused(node_id, thing):
    with pytest.raises(TypeError, match="not a diffusion model"):
        patch(thing, node_id)


def test_a_refusal_leaves_the_model_alone(model):
    before = dict(model.attachments), dict(model.wrappers), dict(model.model_options)
    with pytest.raises(ValueError):
        patch(model, blocks="nowhere")
    patch(model)
    assert before == (model.attachments, model.wrappers, model.model_options)


def test_blocks_without_self_attention_are_not_offered():
    """All but the innermost blocks of the x4 upscaler attend to the text in place of themselves."""
    found = engine("rules.blocks").describe(engine("comfy.model").patchable_blocks(build("x4_upscaler")))
    assert found == "input.7.0, middle.0.0, output.0.0, output.1.0"
