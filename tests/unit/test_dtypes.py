"""Number formats, and numbers that are none, in single calls."""

import logging

import comfy.ldm.modules.attention as attention
import pytest
import torch
from support import calls, dense
from support.errors import assert_rounding_at_most_twice, change

SPACES = ["value space", "input space (paper)", "off"]
BACKENDS = ["sub_quad", "split", "pytorch", "basic"]


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, "circulation")
    return caplog


def backend(name):
    return getattr(attention, f"attention_{name}")


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_rounding_is_at_most_twice_that_of_the_plain_formula(dtype, name, space):
    for seed, tokens, head_dim in ((0, 64, 40), (1, 256, 64), (2, 30, 160)):
        *tensors, heads = calls.inputs(tokens=tokens, head_dim=head_dim, scale=1.0, dtype=dtype, seed=seed)
        exact, plain = (dense.call(*tensors, heads, precision, space=space) for precision in (torch.float64, dtype))
        out = calls.site(rescale=space)(backend(name), *tensors, heads=heads)
        assert out.dtype == dtype
        assert_rounding_at_most_twice(out, plain, exact)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_same_holds_for_the_image_among_other_tokens(dtype, name):
    """Whose rows keep the model's own bits."""
    *tensors, heads = calls.inputs(tokens=256, head_dim=64, scale=1.0, dtype=dtype)
    image = torch.zeros(256, dtype=torch.bool)
    image[70:230] = True
    exact, plain = (dense.call(*tensors, heads, precision, image=image) for precision in (torch.float64, dtype))
    out = calls.site(image=slice(70, 230))(backend(name), *tensors, heads=heads)
    assert out.dtype == dtype
    assert_rounding_at_most_twice(out, plain, exact)
    assert torch.equal(out[:, ~image], backend(name)(*tensors[:3], heads=heads)[:, ~image])


def test_values_whose_norm_overflows_float16_are_rescaled_all_the_same():
    q, k, v, x, heads = calls.inputs(tokens=64, head_dim=64, dtype=torch.float16)
    v = (1.5e4 * v).clamp(-3e4, 3e4)
    out = calls.site(alpha=1.05)(backend("pytorch"), q, k, v, x, heads=heads)
    exact = dense.call(q, k, v, x, heads, alpha=1.05)
    assert exact.unflatten(-1, (heads, -1)).norm(dim=-1).max() > torch.finfo(torch.float16).max
    assert change(out, exact) < 2e-3


@pytest.mark.parametrize("name", ["sub_quad", "split", "basic"])
def test_the_models_own_attn_precision_holds_for_our_call_too(name):
    """Products that overflow float16 and do not in float32, as those of SD 2.1."""
    q, k, v, x, heads = calls.inputs(tokens=32, head_dim=64, dtype=torch.float16)
    q, k = 120 * q, 120 * k
    out = calls.site()(backend(name), q, k, v, x, heads=heads, attn_precision=torch.float32)
    plain = backend(name)(q, k, v, heads=heads, attn_precision=torch.float32)
    assert torch.isfinite(out).all()
    assert change(out, plain.double()) > 1e-2, "it fell back to the model's own output"
    assert change(out, dense.call(q, k, v, x, heads)) < 5e-3


# Numbers that are none


def test_a_result_that_overflows_is_the_models_own_for_that_image_alone(log):
    q, k, v, x, heads = calls.inputs(dtype=torch.float16)
    run = calls.site()
    sound = run(backend("pytorch"), q, k, v, x, heads=heads)
    large = v.clone()
    large[1] = large[1].sign() * 6e4  # finite as it is, but not when extrapolated
    mixed = run(backend("pytorch"), q, k, large, x, heads=heads)
    assert torch.equal(mixed[1], backend("pytorch")(q, k, large, heads=heads)[1])
    assert torch.isfinite(mixed).all()
    others = [0, 2, 3]
    assert torch.equal(mixed[others], sound[others])
    run.run.outcome.report()
    warnings = [record for record in log.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].getMessage().startswith("Circulation: 1 attention results were not finite")
