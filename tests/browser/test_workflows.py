"""The shipped workflows, as ComfyUI's own front end turns them into prompts, on the real server."""

import io
import json

import numpy
import pytest
from PIL import Image
from support import front_ends
from support.server import AVATARS, demo, front_end, open_workflow, prompt_of, small
from support.workflows import can_be_opened, workflow

# what the workflows leave at its default
CIRCULATION = {
    "alpha": 1.05, "beta": 3.0, "start_percent": 0.0, "end_percent": 1.0, "blocks": "all",
    "branches": "both", "rescale": "value space", "tokens": "image", "method": "paper",
}  # fmt: skip
PROBE = {"measure_in": "value space", "every_n_steps": 1, "blocks": "all", "branches": "both", "label": "", "tokens": "image"}
FAMILIES = ["sd3", "flux", "z-image", "qwen-image", "wan", "hidream-o1", "ltx2", "minimax-h3"]  # whose files are too large to be here
KNOWN = [family for family in FAMILIES if can_be_opened(f"circulation-{family}")]
TAKES_THE_MODEL = ["KSampler", "SamplerCustom", "BasicGuider", "CFGGuider"]
RUN_HERE = ["circulation-basic", "stability-readout", "baseline-vs-circulation", "circulation-sweep", "find-your-alpha"]
COMPARING = [f"{name}-{family}" for name in ("circulation-sweep", "find-your-alpha") for family in ("flux", "z-image")]
SWEPT = {**CIRCULATION, "alpha": "1, 1.05, 1.1, 1.2", "beta": "3", "baseline": True}
SHEET = {"cell": 384, "frame_changes": False, "sort_columns": False, "difference_row": False, "threshold": 0.1}
LABELS = ["off", "alpha 1.05, beta 3", "alpha 1.1, beta 3", "alpha 1.2, beta 3"]
pytestmark = pytest.mark.parametrize("version", [front_ends.NEWEST], indirect=True)


@pytest.fixture(scope="module")
def prompts(server):
    """Of each workflow the prompt, and that of one with its sampler and its probe in a subgraph."""
    with front_end(server, Comfy_Workflow_ShowMissingModelsWarning=False) as page:
        made = {family: open_workflow(page, workflow(f"circulation-{family}"), without_files=True) for family in KNOWN}
        made |= {name: open_workflow(page, workflow(name), without_files=True) for name in COMPARING}
        made |= {name: small(open_workflow(page, workflow(name))) for name in RUN_HERE}
        made["avatars-sweep"] = open_workflow(page, json.loads((AVATARS / "example_workflows" / "avatars-sweep.json").read_text()))
        open_workflow(page, workflow("stability-readout"))
        types = ["KSampler", "StabilityProbe"]
        page.evaluate("types => { app.graph.convertToSubgraph(new Set(app.graph.nodes.filter(n => types.includes(n.type)))); }", types)
        made["subgraph"] = small(prompt_of(page))
    return made


def of_type(prompt, class_type):
    return [id for id, node in prompt.items() if node["class_type"] == class_type]


def widgets(prompt, id):
    return {name: value for name, value in prompt[id]["inputs"].items() if not isinstance(value, list)}


def inputs_that_differ(prompt):
    """Of what two samplers are given, where guiders take the model by those."""
    guided = [prompt[id]["inputs"] for id in of_type(prompt, "SamplerCustomAdvanced")]
    assert not guided or differing(*guided) == {"guider"}
    return differing(*(node["inputs"] for node in prompt.values() if node["class_type"] in TAKES_THE_MODEL))


def differing(first, second):
    return {name for name in first if first[name] != second[name]}


def picture(server, outputs, id):
    return Image.open(io.BytesIO(server.image(outputs[id]["images"][0])))


def test_the_basic_workflow_keeps_its_widgets_and_compares_two_images(server, prompts):
    """Widgets are stored by position: this is where a changed order of inputs would show."""
    prompt = prompts["circulation-basic"]
    (circulation,) = of_type(prompt, "CirculationControl")
    assert prompt[prompt[circulation]["inputs"]["model"][0]]["class_type"] == "CheckpointLoaderSimple"
    assert widgets(prompt, circulation) == CIRCULATION
    assert inputs_that_differ(prompt) == {"model"}
    outputs = server.run(prompt)
    one, other = (numpy.asarray(picture(server, outputs, id), int) for id in of_type(prompt, "SaveImage"))
    assert one.shape == other.shape == (64, 64, 3) and one.std() > 5
    assert (one != other).any(-1).mean() > 0.05


@pytest.mark.parametrize("family", KNOWN)
def test_the_workflow_of_a_family_is_right_but_for_the_model_files(server, prompts, family):
    prompt = prompts[family]
    (circulation,) = of_type(prompt, "CirculationControl")
    assert isinstance(prompt[circulation]["inputs"]["model"], list)
    assert widgets(prompt, circulation) == CIRCULATION
    assert inputs_that_differ(prompt) == {"model"}
    with pytest.raises(demo.ServerError) as refused:
        server.queue(prompt)
    _, *complaints = str(refused.value).splitlines()
    assert complaints and all("Value not in list" in line and ".safetensors' not in" in line for line in complaints), complaints


@pytest.mark.parametrize("name", COMPARING)
def test_a_comparing_workflow_of_a_family_is_right_but_for_the_model_files(server, prompts, name):
    keeps_its_widgets(prompts[name])
    with pytest.raises(demo.ServerError) as refused:
        server.queue(prompts[name])
    _, *complaints = str(refused.value).splitlines()
    assert complaints and all("Value not in list" in line and ".safetensors' not in" in line for line in complaints), complaints


def keeps_its_widgets(prompt):
    """Of a workflow with a sweep or a grid. What is not asserted is the sampler's, of which there is one for all settings."""
    for id in of_type(prompt, "CirculationSweep"):
        (sheet,) = of_type(prompt, "ComparisonSheet")
        assert widgets(prompt, id) == SWEPT and widgets(prompt, sheet) == SHEET
        assert prompt[sheet]["inputs"]["labels"] == [id, 1]
    for id in of_type(prompt, "CirculationGrid"):
        found = widgets(prompt, id)
        assert found.items() >= {**SWEPT, **SHEET, "seed": 42, "seeds": 4, "denoise": 1.0}.items()
        assert {*found} - {*SWEPT, *SHEET} == {"seed", "seeds", "steps", "cfg", "sampler_name", "scheduler", "denoise"}


def test_the_sweep_workflow_samples_each_setting(server, prompts):
    prompt = prompts["circulation-sweep"]
    keeps_its_widgets(prompt)
    (sheet,) = of_type(prompt, "ComparisonSheet")
    (message,) = server.run(prompt)[sheet]["comparison"]
    assert message["labels"] == LABELS and [len(row) for row in message["cells"]] == [4] * 4


def test_the_sweep_of_the_demos_avatars(server, prompts):
    prompt = prompts["avatars-sweep"]
    (sweep,), (sheet,) = of_type(prompt, "CirculationSweep"), of_type(prompt, "ComparisonSheet")
    assert widgets(prompt, sweep) == {**SWEPT, "alpha": "0.8, 0.9, 1.05, 1.1, 1.2", "beta": "5"}
    assert widgets(prompt, sheet) == {**SHEET, "cell": 128}
    (message,) = server.run(small(prompt))[sheet]["comparison"]
    assert message["labels"] == ["off", *(f"alpha {alpha}, beta 5" for alpha in ("0.8", "0.9", "1.05", "1.1", "1.2"))]
    assert [len(row) for row in message["cells"]] == [8] * 6


def test_the_grid_workflow_samples_each_setting_and_seed(server, prompts):
    prompt = prompts["find-your-alpha"]
    keeps_its_widgets(prompt)
    (grid,) = of_type(prompt, "CirculationGrid")
    prompt[grid]["inputs"]["steps"] = 2
    outputs = server.run(prompt)
    (message,) = outputs[f"{grid}.0.0.sheet"]["comparison"]
    assert message["labels"] == LABELS and [len(row) for row in message["cells"]] == [4] * 4
    assert picture(server, outputs, of_type(prompt, "SaveImage")[0]).width > 4 * 128


def test_the_readout_workflow_keeps_its_widgets_and_draws(server, prompts):
    prompt = prompts["stability-readout"]
    (probe,), (readout,) = of_type(prompt, "StabilityProbe"), of_type(prompt, "StabilityReadout")
    assert widgets(prompt, probe) == PROBE
    assert widgets(prompt, readout) == {"plot": "sheet", "measure": "energy", "run": 0, "theme": "light"}
    outputs = server.run(prompt)
    sheet = picture(server, outputs, readout)
    assert sheet.format == "PNG" and sheet.width == 1024 and sheet.height > 1000
    (summary,) = of_type(prompt, "PreviewAny")
    assert "Circulation: none" in outputs[summary]["text"][0]


def test_the_comparing_workflow_keeps_its_widgets_and_draws(server, prompts):
    prompt = prompts["baseline-vs-circulation"]
    probes, (compare,) = of_type(prompt, "StabilityProbe"), of_type(prompt, "StabilityCompare")
    assert [widgets(prompt, id) for id in probes] == [{**PROBE, "label": label} for label in ("baseline", "alpha 1.05")]
    first, second = (widgets(prompt, id) for id in of_type(prompt, "KSampler"))
    assert first == second
    outputs = server.run(prompt)
    for id in (*of_type(prompt, "StabilityReadout"), compare):
        drawn = picture(server, outputs, id)
        assert drawn.format == "PNG" and drawn.width == 1024
    images = [server.image(outputs[id]["images"][0]) for id in of_type(prompt, "SaveImage")]
    assert len(set(images)) == 2


def test_a_probe_and_its_sampler_work_in_a_subgraph(server, prompts):
    prompt = prompts["subgraph"]
    (probe,), (sampler,), (readout,) = (of_type(prompt, name) for name in ("StabilityProbe", "KSampler", "StabilityReadout"))
    assert ":" in probe and ":" in sampler and ":" not in readout
    prompt[sampler]["inputs"]["seed"] = 7
    assert picture(server, server.run(prompt), readout).width == 1024
