"""What is said of a family before sampling: which are supported, why others are not, and what blocks a model has."""

import importlib
import re

import comfy.sd
import pytest
import safetensors.torch
import torch
from support import models, transformers
from support.errors import change
from support.host import comfyui_is_at_least, engine, node, patch, probe
from support.transformers import build, sample
from support.watch import watch

patchable_blocks, class_names = engine("comfy.model").patchable_blocks, engine("families.class_names").class_names
FAMILIES = transformers.PRESENT

PIXART = dict(
    image_model="pixart_sigma",
    num_heads=4,
    patch_size=2,
    hidden_size=64,
    in_channels=4,
    depth=1,
    model_max_length=300,
    input_size=64,
    pe_interpolation=1,
    micro_condition=False,
    caption_channels=32,
)


@pytest.mark.parametrize("node_id", ["CirculationControl", "CirculationAdaptive"])
def test_a_family_that_cannot_be_patched_is_named_and_told_why(node_id):
    model = models.made("PixArtSigma", PIXART)
    with pytest.raises(ValueError, match="cannot patch PixArtSigma models: .*no node can reach it.* Supported: Stable Diffusion 1.5.*Flux"):
        patch(model, node_id)
    with pytest.raises(ValueError, match="cannot patch PixArtSigma models"):
        probe(model)
    assert "cannot patch PixArtSigma models" in listed(model)


REFUSED = engine("families.table").REFUSED


@pytest.mark.parametrize("path", [path for path, row in REFUSED.items() if comfyui_is_at_least(row.since)])
def test_every_family_of_this_comfyui_that_is_refused_is_told_why(path):
    module, name = path.rsplit(".", 1)
    cls = getattr(importlib.import_module(module), name)
    model = build("flux")
    model.model.diffusion_model = cls.__new__(cls)  # of its class, without its weights
    torch.nn.Module.__init__(model.model.diffusion_model)
    with pytest.raises(ValueError, match=f"cannot patch Flux models: {re.escape(REFUSED[path].reason)}. Supported: "):
        patch(model)


def test_an_unknown_family_is_named():
    model = build("flux")
    model.model.diffusion_model = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="does not know Flux models whose network is a Linear. Supported: "):
        patch(model)


def test_every_family_of_this_comfyui_is_tried_on_a_small_model():
    """A new row needs one in support/transformers.py."""
    rows = {path for path, family in engine("families.table").TRANSFORMERS.items() if comfyui_is_at_least(family.since)}
    tried = {next(path for path in class_names(type(build(name).model.diffusion_model)) if path in rows) for name in FAMILIES}
    assert tried == rows


@pytest.mark.parametrize("name", FAMILIES)
def test_the_input_space_of_a_transformer_is_refused(name):
    model = build(name)
    family = transformers.FAMILIES[name].family
    with pytest.raises(ValueError, match=f"rescale is 'input space .paper.', but {family} models do not show"):
        patch(model, rescale="input space (paper)")
    with pytest.raises(ValueError, match=f"measure_in is 'input space .paper.', but {family} models do not show"):
        probe(model, measure_in="input space (paper)")


def test_a_block_that_is_not_there_is_answered_with_what_is():
    with pytest.raises(ValueError, match=r"'input.4' selects no block. This model has double.0-1, single.0-1\."):
        patch(build("flux"), blocks="input.4")
    with pytest.raises(ValueError, match=r"'double.1.0' selects no block. This model has double.0.0-1, double.1\."):
        patch(build("sd3"), blocks="double.1.0")
    with pytest.raises(ValueError, match=r"'single' selects no block. This model has layer.0-1\."):
        patch(build("wan"), blocks="all, single")


# List Model Blocks


def listed(model):
    return node("ModelBlocks").execute(model).result[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_blocks_listed_are_those_that_can_be_patched(name):
    model = build(name)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in listed(model).splitlines()[4:]]
    blocks = patchable_blocks(model)
    assert [row[0] for row in rows if row[3] == "yes"] == [str(block) for block in blocks]
    assert [row[1:3] for row in rows if row[3] == "yes"] == [[str(block.heads), str(block.head_dim)] for block in blocks]


@pytest.mark.parametrize("name", FAMILIES)
def test_heads_are_those_of_the_calls(name):
    found = {}

    def see(attention, plain):
        if attention.block:
            found[attention.block] = attention.q.shape[1], attention.q.shape[3]

    model = build(name)
    sample(watch(model, see, name), name, steps=1)
    assert found == {str(block): (block.heads, block.head_dim) for block in patchable_blocks(model)}


def test_what_is_left_alone_is_listed_with_the_reason():
    refined = listed(build("z_image"))
    assert "| context_refiner.0  |     4 |        64 | no: sees the text alone |" in refined
    assert "ZImage: 2 attentions that Circulation can change" in refined
    (rows,) = node("ModelBlocks").execute(build("z_image")).ui["model_blocks"]
    assert ["context_refiner.0", 4, 64, {"key": "textOnly", "values": {}, "text": "sees the text alone"}] in rows
    assert ["layer.0", 4, 64, ""] in rows
    upscaler = listed(models.build("x4_upscaler"))
    assert "no: attends to the text in place of the image" in upscaler
    with pytest.raises(TypeError, match="not a diffusion model"):
        listed(object())


# Files


@pytest.mark.parametrize("name, changed", [
    ("sd3", {}),
    ("wan", dict(dim=128, num_heads=1, freq_dim=256, text_dim=4096)),
], ids=["sd3", "wan"])  # fmt: skip
def test_a_file_that_the_stock_loader_loads_is_circulated(name, changed, tmp_path):
    made = build(name, **changed)
    weights = {f"model.diffusion_model.{key}": w.contiguous() for key, w in made.model.diffusion_model.state_dict().items()}
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    loaded = comfy.sd.load_diffusion_model(str(tmp_path / "model.safetensors"))
    assert engine("comfy.model").model_name(loaded) == transformers.FAMILIES[name].family
    assert [str(block) for block in patchable_blocks(loaded)] == [str(block) for block in patchable_blocks(made)]
    prompts = {} if name != "wan" else {
        side: [[torch.randn(1, tokens, 4096, generator=torch.Generator().manual_seed(tokens)), {}]]
        for side, tokens in (("positive", 16), ("negative", 11))
    }  # fmt: skip
    result, untouched = sample(patch(loaded, alpha=1.5), name, **prompts), sample(loaded, name, **prompts)
    assert result.isfinite().all() and change(result, untouched) > 1e-3
    assert change(result, sample(patch(made, alpha=1.5), name, **prompts)) < 1e-5
