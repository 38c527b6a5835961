"""A sweep gives what each of its settings alone gives, bit for bit. With ComfyUI's own executor and samplers."""

import pytest
import torch
from comfy_extras import nodes_custom_sampler, nodes_flux
from support import transformers
from support.executor import class_of, node
from support.host import comfy_nodes

OFF = {"alpha": 1.0, "beta": 3.0}


@pytest.fixture
def run(executor, monkeypatch):
    """The latents that a prompt samples, one after another."""
    flux = {
        "Flux": class_of(lambda: (transformers.build("flux"),), ("MODEL",)),
        "FluxPrompt": class_of(lambda: (transformers.conditioning("flux", 1),), ("CONDITIONING",)),
        "FluxLatent": class_of(lambda: ({"samples": torch.zeros(1, *transformers.FAMILIES["flux"].latent)},), ("LATENT",)),
    }
    names = ["BasicGuider", "BasicScheduler", "KSamplerSelect", "RandomNoise", "SamplerCustomAdvanced"]
    others = {name: getattr(nodes_custom_sampler, name) for name in names} | {"FluxGuidance": nodes_flux.FluxGuidance}
    for name, cls in {**flux, **others}.items():
        monkeypatch.setitem(comfy_nodes.NODE_CLASS_MAPPINGS, name, cls)
    return lambda prompt: [call["latent"]["samples"] for call in executor.run(prompt)["kept"]]


def by_ksampler(circulation):
    links = dict(model=["circulation", 0], positive=["positive", 0], negative=["negative", 0], latent_image=["latent", 0])
    return {
        "model": node("Model"),
        "positive": node("Prompt", seed=1),
        "negative": node("Prompt", seed=2),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=2),
        "circulation": circulation,
        "sampled": node("KSampler", seed=7, steps=2, cfg=2.0, sampler_name="euler", scheduler="normal", denoise=1.0, **links),
        "kept": node("Keep", id="kept", latent=["sampled", 0]),
    }


def by_custom_sampler(circulation):
    prompt = by_ksampler(circulation)
    prompt |= {
        "noise": node("RandomNoise", noise_seed=7),
        "sampler": node("KSamplerSelect", sampler_name="euler"),
        "guider": node("BasicGuider", model=["circulation", 0], conditioning=["positive", 0]),
        "sigmas": node("BasicScheduler", model=["circulation", 0], scheduler="simple", steps=2, denoise=1.0),
    }
    links = {name: [name, 0] for name in ("noise", "guider", "sampler", "sigmas")}
    return prompt | {"sampled": node("SamplerCustomAdvanced", latent_image=["latent", 0], **links)}


def by_flux_guidance(circulation):
    guided = {
        "model": node("Flux"),
        "positive": node("FluxGuidance", conditioning=["text", 0], guidance=3.5),
        "text": node("FluxPrompt"),
        "latent": node("FluxLatent"),
    }
    return by_custom_sampler(circulation) | guided


def circulation(class_type="CirculationControl", **inputs):
    where = {"start_percent": 0.0, "end_percent": 1.0, "blocks": "all"}
    return node(class_type, model=["model", 0], **{**where, **inputs})


@pytest.mark.parametrize("method", ["paper", "one pass"])
@pytest.mark.parametrize("graph", [by_ksampler, by_custom_sampler, by_flux_guidance])
def test_each_setting_is_the_one_alone(run, graph, method):
    swept = run(graph(circulation("CirculationSweep", alpha="1, 1.05:1.2:0.15", beta="3, 5", method=method)))
    alone = [OFF, *({"alpha": alpha, "beta": beta} for alpha in (1.05, 1.2) for beta in (3.0, 5.0))]
    expected = [run(graph(circulation(**setting, method=method)))[0] for setting in alone]
    assert len(swept) == 5 and all(torch.equal(one, other) for one, other in zip(swept, expected))
    assert len({latent.numpy().tobytes() for latent in swept}) == 5


def test_everything_else_holds_for_each_setting(run):
    options = {"start_percent": 0.0, "end_percent": 0.5, "blocks": "input", "branches": "positive", "rescale": "off", "tokens": "all"}
    swept = run(by_ksampler(circulation("CirculationSweep", alpha="1.3", beta="4", **options)))
    plain, alone = (run(by_ksampler(circulation(alpha=alpha, beta=4.0, **options)))[0] for alpha in (1.0, 1.3))
    assert torch.equal(swept[0], plain) and torch.equal(swept[1], alone) and not torch.equal(plain, alone)


def test_off_is_off_behind_another_circulation_too(run):
    prompt = by_ksampler(circulation("CirculationSweep", alpha="1.3", beta="4", blocks="input"))
    (plain,) = run(by_ksampler(circulation(**OFF)))
    prompt["circulation"]["inputs"]["model"] = ["before", 0]
    prompt["before"] = circulation(alpha=1.2, beta=5.0)
    assert torch.equal(run(prompt)[0], plain)


def test_labels_come_in_the_order_of_the_models(executor):
    prompt = by_ksampler(circulation("CirculationSweep", alpha="1.2, 1", beta="3", method="one pass"))
    prompt["kept"]["inputs"]["label"] = ["circulation", 1]
    assert [call["label"] for call in executor.run(prompt)["kept"]] == ["off", "alpha 1.2, beta 3, one pass"]
    prompt["circulation"]["inputs"]["baseline"] = False
    assert [call["label"] for call in executor.run(prompt)["kept"]] == ["alpha 1.2, beta 3, one pass", "off"]


@pytest.mark.parametrize(
    "wrong, named",
    [({"alpha": "1, x"}, "'x'"), ({"alpha": "1,05"}, "comma"), ({"blocks": "inptu"}, "inptu"), ({"schedule": "painted"}, "schedule:")],
)
def test_a_text_that_came_by_a_link_is_refused_before_anything_is_sampled(executor, monkeypatch, wrong, named):
    sampled = []
    monkeypatch.setattr(comfy_nodes, "common_ksampler", lambda *args, **kwargs: sampled.append(args))
    with pytest.raises(RuntimeError, match=named):
        executor.run(by_ksampler(circulation("CirculationSweep", **{"alpha": "1.05", "beta": "3", **wrong})))
    assert not sampled
