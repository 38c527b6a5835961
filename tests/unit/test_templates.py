"""The workflows of the template browser: what ComfyUI needs to offer a missing model as a download."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.host import ROOT

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
CORES = "comfyui_workflow_templates_json"  # a package of ComfyUI's that the environment of the tests leaves out


def nodes(value):
    """Every node of a workflow, those of its subgraphs too."""
    if isinstance(value, dict):
        if isinstance(value.get("type"), str) and isinstance(value.get("properties"), dict):
            yield value
        value = list(value.values())
    for inner in value if isinstance(value, list) else []:
        yield from nodes(inner)


def offers(path):
    """(name, folder, address) of each model that a workflow offers; an address without what comes after ?."""
    for node in nodes(json.loads(path.read_text("utf-8"))):
        for model in node["properties"].get("models", []):
            if isinstance(model, dict) and "url" in model:
                yield model["name"], model["directory"], model["url"].partition("?")[0]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_loader_offers_its_files(path):
    for node in nodes(json.loads(path.read_text("utf-8"))):
        files = [value for value in node.get("widgets_values", []) if isinstance(value, str) and value.endswith(".safetensors")]
        models = node["properties"].get("models", [])
        assert [model["name"] for model in models] == files, node["type"]
        for model in models:
            assert re.fullmatch(rf"https://huggingface\.co/[\w./-]+/resolve/main/([\w.-]+/)*{model['name']}", model["url"])
    assert list(offers(path))


def test_one_file_has_one_address():
    offered = {offer for path in WORKFLOWS for offer in offers(path)}
    assert len({name for name, *_ in offered}) == len(offered) > 10


def test_comfyuis_own_templates_offer_the_same():
    spec = find_spec(CORES)
    if spec is None or spec.origin is None:
        pytest.skip(f"{CORES} is not installed")
    cores = {offer for path in Path(spec.origin).parent.rglob("*.json") for offer in offers(path)}
    assert {offer for path in WORKFLOWS for offer in offers(path)} <= cores
