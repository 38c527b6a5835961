"""End to end: the real ComfyUI server with the pack in its custom_nodes, and its real front end in Chromium."""

import copy
import importlib.util
import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
COMFY = Path(os.environ["COMFYUI_PATH"])
WORKFLOW = json.loads((ROOT / "workflows" / "circulation-basic.json").read_text())
BASELINE, CIRCULATION = "circulation/baseline", "circulation/circulation"

CONTROL = {"model": None, "alpha": 1.05, "beta": 3.0, "start_percent": 0.0, "end_percent": 1.0, "blocks": "all"}
ADAPTIVE = {**CONTROL, "alpha": 1.2, "beta": 5.0, "adapt_alpha": True, "adapt_beta": True, "formula": "deviation", "eta_over": "image"}
SCOPE = {"branches": "both", "rescale": "value space", "schedule": None}
CHOICES = {
    "formula": ["deviation", "scale"],
    "eta_over": ["image", "head", "batch"],
    "branches": ["both", "positive", "negative"],
    "rescale": ["value space", "input space (paper)", "off"],
}

CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]
# What the front end itself logs as errors on a fresh start, with any pack or none.
HARMLESS = [
    r"404 .*/(favicon\.ico|user\.css|userdata\?dir=\w+.*|comfy\.templates\.json|templates/index\.json)$",  # none of them exists yet
    r"Error loading core workflow templates",  # a package of ComfyUI's that is left out here
    r"violates the following Content Security Policy",  # --disable-api-nodes keeps it from asking other hosts
    r"^ComfyApp graph accessed before initialization",  # 1.49.6
    r"^TypeError: .*reading 'id'.*\s+at onChange",  # 1.32.9, on the first setting that changes
]


def load(name):
    spec = importlib.util.spec_from_file_location(f"demo_{name}", ROOT / "demo" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


demo = load("server")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    checkpoint = base / "models" / "checkpoints" / "sd_xl_base_1.0.safetensors"
    checkpoint.parent.mkdir(parents=True)
    subprocess.run([sys.executable, ROOT / "demo" / "standin.py", COMFY, "sdxl", checkpoint], check=True)
    # Without the prompt in the PNG, equal images are equal files.
    with demo.Server(COMFY, base, arguments=["--disable-metadata"]) as server:
        yield server


@pytest.fixture(scope="module")
def prompt(server):
    """The shipped workflow as the front end turns it into a prompt, made small."""
    prompt = open_in_front_end(server, WORKFLOW)
    for node in prompt.values():
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"].update(width=128, height=128)
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 2
    return prompt


def open_in_front_end(server, workflow):
    """Load a workflow in the front end and return its prompt. Fails on missing nodes and on errors in the console."""
    server.post("/settings", {"Comfy.TutorialCompleted": True})
    errors = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=CHROMIUM_ARGUMENTS)
        page = browser.new_page()
        page.on("console", lambda message: errors.append(f"{message.text} {message.location['url']}") if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url)
        page.wait_for_function("window.app?.extensionManager && window.app?.canvas && window.app?.graph", timeout=120_000)
        page.evaluate("workflow => app.loadGraphData(workflow, true, true, 'circulation-basic')", workflow)
        missing = page.evaluate("app.graph.nodes.filter(node => node.has_errors || !LiteGraph.registered_node_types[node.type]).map(node => node.type)")
        page.wait_for_timeout(1000)
        dialogs = page.locator("[role=dialog]").all_inner_texts()
        prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
        browser.close()
    assert missing == [] and dialogs == []
    assert [error for error in errors if not any(re.search(harmless, error) for harmless in HARMLESS)] == []
    return prompt


def one(prompt, class_type):
    return next(node for node in prompt.values() if node["class_type"] == class_type)


def circulation_alone(prompt, **inputs):
    """The prompt without the baseline, and with other values in the Circulation node."""
    prompt = changed(prompt, **inputs)
    return {id: node for id, node in prompt.items() if node["inputs"].get("filename_prefix") != BASELINE}


def changed(prompt, **inputs):
    prompt = copy.deepcopy(prompt)
    one(prompt, "CirculationControl")["inputs"].update(inputs)
    return prompt


seeds = itertools.count()


def images(server, prompt):
    """The files that a prompt saves, by prefix. Each run has a new seed: ComfyUI runs nothing again that it has run before."""
    seed = next(seeds)
    for node in prompt.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["seed"] = seed
    outputs = server.run(prompt)
    return {prompt[id]["inputs"]["filename_prefix"]: server.image(output["images"][0]) for id, output in outputs.items()}


@pytest.mark.parametrize("node, inputs", [("CirculationControl", {**CONTROL, **SCOPE}), ("CirculationAdaptive", {**ADAPTIVE, **SCOPE})])
def test_nodes_have_their_inputs(server, node, inputs):
    info = server.object_info()[node]
    assert info["category"] == "circulation"
    assert info["input_order"] == {"required": list(inputs)[: -len(SCOPE)], "optional": list(SCOPE)}
    assert info["output"] == ["MODEL"]
    for name, (kind, options) in {**info["input"]["required"], **info["input"]["optional"]}.items():
        assert options.get("default") == inputs[name]
        assert options["tooltip"]
        assert name not in CHOICES or options.get("options", kind) == CHOICES[name]


def test_workflow_loads_in_the_front_end(prompt):
    """Widgets are stored by position: this is where a changed order of inputs would show."""
    inputs = dict(one(prompt, "CirculationControl")["inputs"])
    assert prompt[inputs.pop("model")[0]]["class_type"] == "CheckpointLoaderSimple"
    assert inputs == {name: value for name, value in {**CONTROL, **SCOPE}.items() if value is not None}
    first, second = (node["inputs"] for node in prompt.values() if node["class_type"] == "KSampler")
    assert {key for key in first if first[key] != second[key]} == {"model"}


def test_workflow_runs_and_the_images_differ(server, prompt):
    result = images(server, prompt)
    baseline, circulation = (numpy.asarray(Image.open(io.BytesIO(result[prefix])), int) for prefix in (BASELINE, CIRCULATION))
    assert baseline.shape == circulation.shape == (128, 128, 3)
    assert baseline.std() > 5
    assert (baseline != circulation).any(-1).mean() > 0.05


@pytest.mark.parametrize("off", [{"alpha": 1.0}, {"beta": 0.0}])
def test_off_gives_the_same_file(server, prompt, off):
    result = images(server, changed(prompt, **off))
    assert result[CIRCULATION] == result[BASELINE]


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"blocks": "all, inptu.4"}, "inptu.4"),
        ({"blocks": "input.7"}, "input.7"),
        ({"start_percent": 0.7, "end_percent": 0.3}, "start_percent"),
        ({"alpha": 7.0}, "alpha"),
    ],
)
def test_bad_input_is_named_and_the_queue_goes_on(server, prompt, wrong, named):
    with pytest.raises(demo.ServerError, match=re.escape(named)) as error:
        server.run(circulation_alone(prompt, **wrong))
    assert "Circulation" in str(error.value)
    assert CIRCULATION in images(server, circulation_alone(prompt, alpha=1.1))
