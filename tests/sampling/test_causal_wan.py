"""Causal Wan makes its frames one after the other, each with the keys of those before, and calls its blocks without ComfyUI's options."""

import comfy.sample
import comfy.samplers
import pytest
import torch
from support import dense, transformers
from support.errors import change
from support.host import patch, probe
from support.transformers import conditioning
from support.watch import record

if "wan_causal" not in transformers.PRESENT:
    pytest.skip("This ComfyUI does not know causal Wan.", allow_module_level=True)

import comfy.ldm.wan.ar_model as ar_model

SETTINGS = dict(alpha=1.5, beta=3.0)
PATH = "diffusion_model.blocks.0.forward"
FRAMES = (1, 16, 3, 8, 12)


@pytest.fixture(scope="module")
def model():
    return transformers.build("wan_causal")


def sample(model):
    noise, nothing = torch.randn(FRAMES, generator=torch.Generator().manual_seed(0)), torch.zeros(FRAMES)
    prompt, sampler = conditioning("wan_causal", 1), comfy.samplers.ksampler("ar_video", {"num_frame_per_block": 1})
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 2)
    with torch.inference_mode():
        return comfy.sample.sample_custom(model, noise, 1.0, sampler, sigmas, prompt, prompt, nothing, disable_pbar=True, seed=0)


@pytest.fixture
def asking(model, monkeypatch):
    """Makes the attention of its blocks ask for an override, as that of other models does."""
    given = {}

    def forward(self, *args, transformer_options={}, **kwargs):
        given.update(now=transformer_options)
        return own(self, *args, transformer_options=transformer_options, **kwargs)

    def asks(*args, transformer_options, **kwargs):
        return attention(*args, transformer_options=transformer_options or given["now"], **kwargs)

    own, attention = ar_model.CausalWanModel.forward, ar_model.optimized_attention

    def ask(call, *args):
        with monkeypatch.context() as patched:
            patched.setattr(ar_model.CausalWanModel, "forward", forward)
            patched.setattr(ar_model, "optimized_attention", asks)
            return call(*args)

    return ask


@pytest.mark.parametrize("inputs", [dict(), dict(tokens="all"), dict(blocks="layer.1"), dict(rescale="off")], ids=str)
def test_each_frame_s_own_square_is_the_written_out_formula(model, asking, inputs):
    only = None if "blocks" not in inputs else inputs["blocks"].__eq__
    space = inputs.get("rescale", "value space")
    reference = asking(sample, dense.written_out(model, 1.5, 3.0, space, name="wan_causal", only=only))
    assert change(sample(patch(model, **SETTINGS, **inputs)), reference) < 1e-4 < 1e-3 < change(reference, sample(model))


def test_frames_attend_to_those_before(model, asking):
    watched, calls = record(model, "wan_causal")
    asking(sample, watched)
    assert {call.keys // call.shape[2] for call in calls if call.block} == {1, 2, 3}


def test_the_model_is_as_it_was_without_us(model):
    plain, block = sample(model), model.model.diffusion_model.blocks[0]
    ours = patch(model, **SETTINGS)
    sample(ours)
    assert block.forward is ours.object_patches[PATH]
    assert torch.equal(sample(model), plain) and block.forward.__func__ is type(block).forward
    assert torch.equal(sample(patch(model, alpha=1.0)), plain)


def test_several_of_our_nodes_share_their_patches(model):
    twice = patch(patch(model, alpha=1.2), **SETTINGS)
    probed, record = probe(twice)
    assert torch.equal(sample(probed), sample(patch(model, **SETTINGS)))
    assert record.of(None).runs[0].values[:, :, :, 0].isfinite().all()  # of the positive prompt: there is no other


def test_blocks_that_another_node_runs_are_left_to_it(model, caplog):
    theirs = model.clone()
    theirs.add_object_patch(PATH, model.model.diffusion_model.blocks[0].forward)
    with pytest.raises(ValueError, match="another node runs the blocks of this model in its own way"):
        patch(theirs, **SETTINGS)
    later = patch(model, **SETTINGS)
    later.add_object_patch(PATH, model.model.diffusion_model.blocks[0].forward)
    assert torch.equal(sample(later), sample(model))
    assert "left the model alone: another node runs the blocks" in caplog.text
