"""End to end: the real ComfyUI server with the pack in its custom_nodes."""

import copy
import io
import itertools
import re

import numpy
import pytest
from PIL import Image
from support.executor import node
from support.server import demo, started

BASELINE, CIRCULATION = "circulation/baseline", "circulation/circulation"

CONTROL = {"model": None, "alpha": 1.05, "beta": 3.0, "start_percent": 0.0, "end_percent": 1.0, "blocks": "all"}
ADAPTIVE = {**CONTROL, "alpha": 1.2, "beta": 5.0, "adapt_alpha": True, "adapt_beta": True, "formula": "deviation", "eta_over": "image"}
SCOPE = {"branches": "both", "rescale": "value space", "schedule": None, "tokens": "image", "method": "paper"}
CHOICES = {
    "formula": ["deviation", "scale"],
    "eta_over": ["image", "head", "batch"],
    "branches": ["both", "positive", "negative"],
    "rescale": ["value space", "input space (paper)", "off"],
    "tokens": ["image", "all"],
    "method": ["paper", "one pass"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONIOENCODING", "cp1251")  # a console that lacks most letters, as many on Windows
        with started(tmp_path_factory.mktemp("comfyui")) as server:
            yield server


@pytest.fixture
def prompt():
    """A baseline, and beside it the same with Circulation."""
    made = {
        "model": node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors"),
        "positive": node("CLIPTextEncode", clip=["model", 1], text="a street musician"),
        "negative": node("CLIPTextEncode", clip=["model", 1], text="blurry"),
        "latent": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "circulation": node("CirculationControl", **{**CONTROL, "model": ["model", 0]}),
    }
    for model, prefix in (("model", BASELINE), ("circulation", CIRCULATION)):
        links = dict(model=[model, 0], positive=["positive", 0], negative=["negative", 0], latent_image=["latent", 0])
        settings = dict(seed=0, steps=2, cfg=7.0, sampler_name="euler", scheduler="normal", denoise=1.0)
        made[f"{prefix} sampled"] = node("KSampler", **links, **settings)
        made[f"{prefix} decoded"] = node("VAEDecode", samples=[f"{prefix} sampled", 0], vae=["model", 2])
        made[f"{prefix} saved"] = node("SaveImage", images=[f"{prefix} decoded", 0], filename_prefix=prefix)
    return made


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
    for step in prompt.values():
        if step["class_type"] == "KSampler":
            step["inputs"]["seed"] = seed
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
        ({"blocks": "all, inptu.4"}, "'inptu.4': no model has blocks of this name. Did you mean input?"),
        ({"blocks": "input.7"}, "input.7"),
        ({"start_percent": 0.7, "end_percent": 0.3}, "start_percent"),
        ({"alpha": 7.0}, "alpha"),
        ({"blocks": "\ud800"}, r"'\ud800' is not a block"),
        ({"blocks": "输入"}, r"'\u8f93\u5165' is not a block"),
        ({"blocks": "×" * 100_000}, r"is not a block"),
    ],
)
def test_bad_input_is_named_and_the_queue_goes_on(server, prompt, wrong, named):
    with pytest.raises(demo.ServerError, match=re.escape(named)) as error:
        server.run(circulation_alone(prompt, **wrong))
    assert "Circulation" in str(error.value)
    assert CIRCULATION in images(server, circulation_alone(prompt, alpha=1.1))


def scheduled(prompt, grid):
    """The prompt with a painted schedule."""
    prompt = changed(prompt, schedule=["painted", 0])
    prompt["painted"] = {"class_type": "CirculationSchedule", "inputs": {"grid": grid}}
    return prompt


def test_a_schedule_of_zeros_gives_the_same_file_as_the_baseline(server, prompt):
    result = images(server, scheduled(prompt, '{"grid":[[0,0]]}'))
    assert result[CIRCULATION] == result[BASELINE]
    result = images(server, scheduled(prompt, '{"grid":[[1,0]]}'))
    assert result[CIRCULATION] != result[BASELINE]


@pytest.mark.parametrize("grid, place", [('{"grid": [[1, 1], [1, 3]]}', "row 2, number 2 is 3"), ('{"grid": [[1, 1]', "line 1, column 17")])
def test_a_schedule_that_is_wrong_is_refused_at_its_node_before_anything_runs(server, prompt, grid, place):
    with pytest.raises(demo.ServerError, match=re.escape(place)) as error:
        server.run(scheduled(prompt, grid))
    assert "CirculationSchedule" in str(error.value)
