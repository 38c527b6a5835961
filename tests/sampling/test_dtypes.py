"""Number formats, and numbers that are none, in whole models."""

import logging

import pytest
import torch
from support import dense, models
from support.errors import change
from support.host import patch
from support.sampling import sample

SPACES = ["value space", "input space (paper)", "off"]


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, "circulation")
    return caplog


FORMATS = {
    "float16": dict(dtype=torch.float16),
    "bfloat16": dict(dtype=torch.bfloat16),
    "float16 weights": dict(dtype=torch.float16, compute=torch.float32),
    "float8 weights": dict(dtype=torch.float8_e4m3fn, compute=torch.float32),
    "float8 weights in bfloat16": dict(dtype=torch.float8_e4m3fn, compute=torch.bfloat16),
}


MODELS = [("sd15", each) for each in FORMATS] + [("sd20", "float16"), ("sdxl", "bfloat16"), ("sdxl", "float8 weights")]


@pytest.mark.parametrize("name, number_format", MODELS)
def test_models_in_every_number_format(name, number_format, log):
    kwargs = dict(name=name, cfg=1.5, size=8, steps=1)  # random weights grow faster than trained ones: float16 is narrow
    model = models.build(name, **FORMATS[number_format])
    image = sample(patch(model, alpha=1.2), **kwargs)
    reference = sample(dense.written_out(model, 1.2, 3.0), **kwargs)
    compute = FORMATS[number_format].get("compute", FORMATS[number_format]["dtype"])
    assert torch.isfinite(image).all()
    assert change(image, reference) < (1e-4 if compute == torch.float32 else 0.5 * change(image, sample(model, **kwargs)))
    assert "not finite" not in log.text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("space", SPACES)
def test_an_image_of_the_batch_that_is_not_finite_leaves_the_others_alone(space, value, log):
    model = models.build("sd15")
    noise = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    sound = sample(patch(model, alpha=1.5, rescale=space), batch=3, noise=noise)
    broken = noise.clone()
    broken[1, 0, 3, 3] = value
    assert "not finite" not in log.text
    mixed = sample(patch(model, alpha=1.5, rescale=space), batch=3, noise=broken)
    assert torch.equal(mixed[[0, 2]], sound[[0, 2]])
    assert torch.equal(mixed[1].isfinite(), sample(model, batch=3, noise=broken)[1].isfinite())
    assert "not finite" not in log.text  # the model's own was not: alpha and beta are not to blame
