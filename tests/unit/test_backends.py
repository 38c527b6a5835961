"""Attention backends: single calls."""

import comfy.ldm.modules.attention as attention
import pytest
import torch
from support import calls, dense
from support.errors import change

SPACES = ["value space", "input space (paper)", "off"]
PLAIN_BACKENDS = ["sub_quad", "split", "pytorch", "basic"]


def backend(name):
    return getattr(attention, f"attention_{name}")


def heads_of(tensor, heads):
    return tensor.unflatten(-1, (heads, -1)).transpose(1, 2)


MASKS = {"none": None, "one": (24, 24), "per row": (4, 24, 24), "broadcast": (1, 1, 24, 24), "per head": (4, 2, 24, 24)}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", PLAIN_BACKENDS)
def test_a_masked_call_gives_the_same_on_every_backend(name, space, mask):
    q, k, v, x, heads = calls.inputs()
    shape = MASKS[mask]
    mask = None if shape is None else 4 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    out = calls.site(rescale=space)(backend(name), q, k, v, x, heads=heads, mask=mask)
    wide = mask if mask is None or mask.ndim != 3 else mask.unsqueeze(1)
    exact = dense.call(q, k, v, x, heads, space=space, mask=wide)
    assert change(out, exact) < 3e-6
    half = calls.site(rescale=space, branches="positive")(backend(name), q, k, v, x, heads=heads, mask=mask)
    assert torch.equal(half[:2], backend(name)(q, k, v, heads=heads, mask=mask)[:2])
    assert change(half[2:], exact[2:]) < 3e-6


@pytest.mark.parametrize("layout", ["skip_reshape", "skip_output_reshape"])
@pytest.mark.parametrize("name", PLAIN_BACKENDS)
def test_calls_with_heads_split_off_already_keep_their_layout(name, layout):
    q, k, v, x, heads = calls.inputs()
    exact = dense.call(q, k, v, x, heads)
    if layout == "skip_reshape":
        q, k, v = (heads_of(t, heads) for t in (q, k, v))
    else:
        exact = heads_of(exact, heads)
    assert change(calls.site()(backend(name), q, k, v, x, heads=heads, **{layout: True}), exact) < 3e-6


@pytest.mark.parametrize("head_dim, sizes", [(64, [64, 128]), (80, [])])
def test_a_backend_that_nobody_knows_is_never_given_a_head_that_fused_kernels_refuse(head_dim, sizes):
    """Doubled heads of more than 128 go to torch's own attention instead, and so does what they are blended with."""
    taken = []

    @attention.wrap_attn
    def attention_of_tomorrow(q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False, skip_output_reshape=False, **kwargs):
        taken.append(q.shape[-1] if skip_reshape else q.shape[-1] // heads)
        assert taken[-1] <= 128
        out = attention.attention_basic(q, k, v, heads, mask, attn_precision, skip_reshape, _inside_attn_wrapper=True)
        return heads_of(out, heads) if skip_output_reshape else out

    *tensors, heads = calls.inputs(head_dim=head_dim, scale=1.0)
    out = calls.site()(attention_of_tomorrow, *tensors, heads=heads)
    assert taken == sizes
    assert change(out, dense.call(*tensors, heads)) < 3e-6


@pytest.mark.parametrize("name", ["sub_quad", "split", "basic"])
def test_a_plain_backend_takes_heads_of_any_size(name, monkeypatch):
    monkeypatch.setattr(attention, "attention_pytorch", None)
    *tensors, heads = calls.inputs(head_dim=160, scale=1.0)
    assert change(calls.site()(backend(name), *tensors, heads=heads), dense.call(*tensors, heads)) < 3e-6
