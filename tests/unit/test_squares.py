"""Calls whose queries are a part of their keys, against the formula written out for all tokens in float64.

There the logits are split among the image's tokens alone, and the queries' rows are what is compared.
"""

import itertools

import comfy.ldm.modules.attention as attention
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support import calls, dense
from support.errors import change
from support.host import engine

choices, settings_of = engine("choices"), engine("method.settings")
Settings, Adaptive = settings_of.CirculationSettings, settings_of.AdaptiveSettings
RULES = [
    Settings(alpha, beta, rescale, adaptive, method=method)
    for (alpha, beta), rescale, adaptive, method in itertools.product(
        [(1.5, 3.0), (0.4, 1.0)], choices.RESCALES, [None, Adaptive(eta_over=choices.HEAD)], choices.METHODS
    )
]
PLACES = ["first", "in the middle", "last"]


def strength(rule, q, k):
    """α and β that the rule means for the image's q and k."""
    alpha, beta = rule.alpha, rule.beta
    if rule.adaptive is not None:
        alpha, beta = dense.adaptive(q, k, alpha, beta, over="head")
    if rule.method == choices.PAPER:
        return alpha, beta
    return torch.as_tensor(1 + beta * (alpha - 1)).clamp(-1, 3), 1.0


def by_hand(func, q, k, v, heads, mask=None, skip_reshape=False, skip_output_reshape=False, **kwargs):
    """Another node's attention in float64, for any sizes and numbers of heads."""
    if not skip_reshape:
        q, k, v = (t.unflatten(-1, (-1, q.shape[-1] // heads)).transpose(1, 2) for t in (q, k, v))
    k, v = (t.repeat_interleave(heads // t.shape[1], dim=1) for t in (k, v))
    if mask is not None:
        mask = (mask.unsqueeze(1) if mask.ndim == 3 else mask).double()
    out = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), attn_mask=mask).to(v.dtype)
    return out if skip_output_reshape else out.transpose(1, 2).flatten(-2)


@st.composite
def rectangles(draw, place):
    """Which of the tokens ask, and which are the image: a part of them, or all."""
    image, before, after = draw(st.integers(1, 24)), draw(st.integers(1, 12)), draw(st.integers(1, 12))
    before, after = {"first": (0, after), "in the middle": (before, after), "last": (before, 0)}[place]
    left, right = draw(st.integers(0, before)), draw(st.integers(0, after))
    return before + image + after, slice(before - left, before + image + right), slice(before, before + image)


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    data=st.data(),
    rule=st.sampled_from(RULES),
    kv_heads=st.integers(1, 3),
    shared=st.integers(1, 3),
    masked=st.sampled_from([None, (), (4,), (4, 1), (4, 0)]),
    in_heads=st.booleans(),
    backend=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_call_whose_queries_are_a_part_of_its_keys(place, data, rule, kv_heads, shared, masked, in_heads, backend, seed):
    tokens, asking, image = data.draw(rectangles(place))
    shared = 1 if backend else shared  # not all versions of ComfyUI take fewer heads of keys
    heads, d = kv_heads * shared, 8
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(4, n, tokens, d, generator=generator) for n in (heads, kv_heads, kv_heads))
    x = torch.randn(4, tokens, 16, generator=generator)
    mask = None
    if masked is not None:
        mask = 2 * torch.randn(*(size or heads for size in masked), tokens, tokens, generator=generator)
    wide = None if mask is None else (mask.unsqueeze(1) if mask.ndim == 3 else mask).double()
    inside = torch.zeros(tokens, dtype=torch.bool)
    inside[image] = True
    full = [t.double().repeat_interleave(heads // t.shape[1], dim=1) for t in (q, k, v)]
    alpha, beta = strength(rule, full[0][:, :, image], full[1][:, :, image])
    space = rule.rescale if rule.method == choices.PAPER else choices.NO_RESCALE
    exact = dense.circulation(*full, alpha, beta, space, x.double(), wide, inside)[:, :, asking]

    square = slice(image.start - asking.start, image.stop - asking.start), image
    site = calls.Site(rule, image=square, every=(slice(None), asking), previous=None if backend else by_hand)
    given_q = q[:, :, asking]
    if in_heads:
        layout: dict = dict(skip_reshape=True, skip_output_reshape=True)
    else:
        given_q, k, v = (t.transpose(1, 2).flatten(-2) for t in (given_q, k, v))
        layout = {}
    if mask is not None:
        layout["mask"] = mask[..., asking, :]
    out = site(attention.attention_pytorch, given_q, k, v, x, heads=heads, **layout)
    out = out if in_heads else out.unflatten(-1, (heads, -1)).transpose(1, 2)
    assert not site.run.outcome.notes()
    assert change(out, exact) < 1e-5


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data(), seed=st.integers(0, 1000), every=st.booleans())
def test_the_probe_measures_the_tokens_that_are_queries_and_keys(place, data, seed, every):
    tokens, asking, image = data.draw(rectangles(place))
    q, k, v, x, heads = calls.inputs(tokens=tokens, seed=seed)
    measured = asking if every else image
    square = slice(measured.start - asking.start, measured.stop - asking.start), measured
    site = calls.Site(None, probed=choices.VALUE_SPACE, image=square, every=(slice(None), asking))
    seen = []
    site.run.observers[0].see = lambda address, chunks, values: seen.append(values)
    out = site(attention.attention_pytorch, q[:, asking], k, v, x, heads=heads)
    assert torch.equal(out, attention.attention_pytorch(q[:, asking], k, v, heads))
    q, k, out = (t.double().unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, out))
    expected = dense.measures(q[:, :, measured], k[:, :, measured], out[:, :, square[0]])
    if measured.stop - measured.start > 8:  # a few tokens have no energy worth naming
        torch.testing.assert_close(seen[0].double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("every", [slice(None), None])
def test_a_call_with_more_keys_than_queries_is_left_alone_where_nobody_says_which_they_are(every):
    q, k, v, x, heads = calls.inputs()
    site = calls.site()
    site.every = engine("method.formula").WHOLE if every else None
    out = site(attention.attention_pytorch, q[:, :12], k, v, x, heads=heads)
    assert torch.equal(out, attention.attention_pytorch(q[:, :12], k, v, heads))
    assert "queries and keys differ in number" in site.run.outcome.notes()[0]
