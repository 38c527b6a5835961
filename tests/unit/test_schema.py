"""What saved workflows and API prompts rely on, for ever: the ids of the nodes, their inputs in order, and their outputs.

Saved workflows hold values and outputs by position. A new input goes to the end and is optional, a new output goes to the end;
`UPDATE_SCHEMA=1 python3 -m tests tests/unit/test_schema.py` then writes it down.
"""

import inspect
import json
import os
from pathlib import Path

import pytest
from comfy_api.latest import io
from support.host import NODES

COMFYUIS_OWN = ("sampler_name", "scheduler")  # whose words come and go with ComfyUI
GOLDEN = Path(__file__).parents[1] / "golden"
PROMISED = GOLDEN / "schema.json"


def described(cls):
    """What a prompt or a workflow can name of a node, each thing on a line: its inputs in order, and its outputs."""
    info = cls.GET_NODE_INFO_V1()
    lines = []
    for need, names in info["input_order"].items():
        for name in names if need != "hidden" else []:
            kind, options = info["input"][need][name]
            of = ("default",) if name in COMFYUIS_OWN else ("options", "default", "min", "max", "step")
            kept = {key: options[key] for key in of if key in options}
            lines.append(f"{need} {name}: {kind} {json.dumps(kept)}")
    return {"inputs": lines, "outputs": [f"{name}: {kind}" for name, kind in zip(info["output_name"], info["output"])]}


@pytest.fixture(scope="module")
def promised():
    if os.environ.get("UPDATE_SCHEMA"):
        PROMISED.write_text(json.dumps({id: described(cls) for id, cls in NODES.items()}, indent=2) + "\n")
    return json.loads(PROMISED.read_text())


def test_no_node_is_lost_and_none_forgotten(promised):
    assert list(promised) == list(NODES)


@pytest.mark.parametrize("id", NODES)
def test_the_schema_is_the_promised_one(promised, id):
    assert described(NODES[id]) == promised[id]


# The widgets that a new front end shows before a click on "Show advanced inputs", of those nodes that have others.
FIRST = {
    "CirculationControl": ["alpha", "beta", "method"],
    "CirculationAdaptive": ["alpha", "beta", "method"],
    "CirculationSweep": ["alpha", "beta", "method"],
    "CirculationGrid": [
        *("alpha", "beta", "seed", "seeds", "steps", "cfg", "sampler_name", "scheduler", "denoise", "method", "cell", "frame_changes"),
    ],
    "ComparisonSheet": ["labels", "cell", "frame_changes"],
    "StabilityProbe": ["label"],
    "StabilityReadout": ["plot", "measure", "run"],
    "StabilityCompare": [],
}
CHANGE_SAMPLING = {"CirculationControl", "CirculationAdaptive", "CirculationSweep", "CirculationGrid"}


@pytest.mark.parametrize("id", NODES)
def test_the_knobs_that_matter_come_first(id):
    if "advanced" not in inspect.signature(io.Float.Input).parameters:
        pytest.skip("this ComfyUI has no advanced inputs")
    shown = [input for input in NODES[id].GET_SCHEMA().inputs if isinstance(input, io.WidgetInput) and not input.force_input]
    first = [input.id for input in shown if not input.advanced]
    assert first == FIRST.get(id, [input.id for input in shown])


@pytest.mark.parametrize("id", NODES)
def test_a_search_for_the_packs_name_or_its_purpose_finds_all_that_belong(id):
    schema = NODES[id].GET_SCHEMA()
    if not hasattr(schema, "search_aliases"):
        pytest.skip("this ComfyUI has no search aliases")
    assert "circulation" in schema.search_aliases
    assert ("fidelity" in schema.search_aliases) == (id in CHANGE_SAMPLING)


@pytest.mark.parametrize("by", ["older", "newer"])
def test_every_node_that_a_user_finds_is_in_the_saved_workflows(by):
    saved = json.loads((GOLDEN / f"saved-by-{by}.json").read_text())["nodes"]
    found = {id for id, cls in NODES.items() if not cls.define_schema().is_deprecated}
    assert {node["type"] for node in saved} - {"CheckpointLoaderSimple"} == found
