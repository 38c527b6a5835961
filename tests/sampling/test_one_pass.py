"""Beta 1 and one pass in whole models: the skewed retrieval in the place of the model's own."""

import functools

import pytest
import torch
from support import dense, models, transformers
from support.errors import change
from support.host import patch, probe
from support.sampling import sample as sample_unet
from support.watch import where_the_image_is

ROUNDING = 1e-4


@functools.cache
def unet(name):
    return models.build(name)


@functools.cache
def transformer(name, **changed):
    return transformers.build(name, **changed)


@pytest.mark.parametrize("inputs, used", [({"method": "one pass", "alpha": 1.1, "beta": 3.0}, 1.3), ({"alpha": 1.3, "beta": 1.0}, 1.3)])
@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_unet_computes_the_formula_at_beta_1(name, inputs, used):
    out = sample_unet(patch(unet(name), **inputs), name)
    truth = sample_unet(dense.written_out(unet(name), used, 1.0), name)
    assert change(out, truth) < ROUNDING < 1e-2 < change(truth, sample_unet(unet(name), name))


@pytest.mark.parametrize("name", transformers.PRESENT)
def test_every_transformer_does(name):
    out = transformers.sample(patch(transformer(name), alpha=1.2, beta=2.5, method="one pass"), name, batch=2)
    image = where_the_image_is(transformer, name, batch=2)
    truth = transformers.sample(dense.written_out(transformer(name), 1.5, 1.0, name=name, image=image), name, batch=2)
    effect = change(truth, transformers.sample(transformer(name), name, batch=2))
    assert change(out, truth) < min(ROUNDING, effect / 100)


@pytest.mark.parametrize("branches, conditions", [("positive", [0]), ("negative", [1])])
def test_one_branch_alone(branches, conditions):
    out = sample_unet(patch(unet("sd15"), alpha=1.1, beta=3.0, method="one pass", branches=branches))
    assert change(out, sample_unet(dense.written_out(unet("sd15"), 1.3, 1.0, conditions=conditions))) < ROUNDING


def test_the_adaptive_node():
    adapt = {"over": "image", "formula": "deviation"}
    clone = unet("sdxl")

    def one_pass(q, k, alpha, beta, **kwargs):
        alpha, beta = adaptive(q, k, 1.2, 2.0, **kwargs)
        return 1 + beta * (alpha - 1), 1.0

    adaptive = dense.adaptive
    out = sample_unet(patch(clone, "CirculationAdaptive", alpha=1.2, beta=2.0, method="one pass"), "sdxl")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dense, "adaptive", one_pass)
        truth = sample_unet(dense.written_out(clone, 1.2, 2.0, adapt=adapt), "sdxl")
    assert change(out, truth) < ROUNDING < change(truth, sample_unet(clone, "sdxl"))


@pytest.mark.parametrize("space", ["value space", "input space (paper)"])
def test_a_probe_sees_what_one_pass_retrieved(space):
    """The same as at beta 1, where the node blends nothing either."""
    seen = []
    for inputs in ({"alpha": 1.1, "beta": 3.0, "method": "one pass"}, {"alpha": 1.3, "beta": 1.0}):
        model, live = probe(patch(unet("sd15"), **inputs), measure_in=space)
        sample_unet(model)
        seen.append(live.of(None).runs[-1].values)
    model, live = probe(unet("sd15"), measure_in=space)
    sample_unet(model)
    torch.testing.assert_close(*map(torch.as_tensor, seen), rtol=1e-3, atol=1e-4)
    assert change(torch.as_tensor(seen[0]), torch.as_tensor(live.of(None).runs[-1].values).double()) > 1e-2
