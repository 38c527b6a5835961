"""Backends that round q and k to 8 bits: beta multiplies what they make of the difference of two retrievals."""

import comfy.ldm.modules.attention as attention
import pytest
import torch
from exact import rounding
from support import calls
from support.errors import change
from support.host import engine
from support.quantised import attention_int8

choices, Settings = engine("choices"), engine("method.settings").CirculationSettings


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(attention.REGISTERED_ATTENTION_FUNCTIONS, "sage", attention_int8)


def site(method, alpha=1.05, beta=3.0, **kwargs):
    return calls.Site(Settings(alpha, beta, method=method), **kwargs)


@pytest.mark.parametrize("method", choices.METHODS)
def test_rounding_is_a_small_share_of_the_effect_with_either_method(method):
    assert rounding.share(method, 1.05, 3.0, torch.float16, int8=True) <= 0.16


def test_a_blend_of_two_quantised_retrievals_would_be_mostly_rounding():
    """What the test above would see, had both come from the model's backend."""
    assert rounding.share(choices.PAPER, 1.05, 3.0, torch.float16, int8=True, blend_int8=True) > 0.3


def test_the_papers_method_takes_both_from_pytorch_and_says_so():
    *tensors, heads = rounding.layer(torch.float16)
    paper = site(choices.PAPER, chunks=(0,))
    out = paper(attention_int8, *tensors, heads=heads)
    assert torch.equal(out, site(choices.PAPER, chunks=(0,))(attention.attention_pytorch, *tensors, heads=heads))
    assert any("beta would multiply the rounding of sage attention" in note for note in paper.run.outcome.notes())


def test_one_pass_stays_on_the_models_backend():
    *tensors, heads = rounding.layer(torch.float16)
    one = site(choices.ONE_PASS, chunks=(0,))
    out = one(attention_int8, *tensors, heads=heads)
    exact = site(choices.ONE_PASS, chunks=(0,))(attention.attention_pytorch, *tensors, heads=heads)
    assert 1e-4 < change(out, exact.double()) < 0.1 and not one.run.outcome.notes()


def test_other_calls_of_the_model_stay_on_its_backend():
    *tensors, heads = rounding.layer(torch.float16, tokens=64)
    paper = site(choices.PAPER, branches="negative", chunks=(0,))
    assert torch.equal(paper(attention_int8, *tensors, heads=heads), attention_int8(*tensors[:3], heads=heads))


def test_another_packs_attention_is_never_replaced():
    """It gets both calls, or where it is not known to take the size its own, and the log says so."""
    taken = []

    def override(func, q, k, v, heads, *args, **kwargs):
        taken.append(q.shape[-1] // (1 if kwargs.get("skip_reshape") else heads))
        return func(q, k, v, heads, *args, **kwargs)

    for head_dim, expected in ((64, [64, 128]), (80, [80])):
        *tensors, heads = rounding.layer(torch.float16, tokens=64, head_dim=head_dim)
        paper = site(choices.PAPER, previous=override, chunks=(0,))
        taken.clear()
        paper(attention.attention_sub_quad, *tensors, heads=heads)
        assert taken == expected
        assert bool(paper.run.outcome.notes()) == (head_dim == 80)
