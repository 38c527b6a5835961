"""The method for whole tensors, function by function, against the same written out with L×L matrices in float64.

The rules are computed in float32, as norms are; what has no norm in it also in float64.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support import dense
from support.errors import assert_rounding_at_most_twice
from support.half import measure_as_on_a_gpu
from support.host import engine

choices, formula, measures = engine("choices"), engine("method.formula"), engine("method.measures")
AdaptiveSettings = engine("method.settings").AdaptiveSettings

cases = settings(max_examples=60, deadline=None, derandomize=True)
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(3, 40), st.integers(4, 24))  # (B, H, L, d)
ALPHAS, BETAS = st.floats(-1, 3), st.floats(0, 5)


def tensors(*shape, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(count))


@st.composite
def calls(draw):
    """q, k, v, x and the mask of a call, the image's tokens as a slice and as bools, α and β: numbers, or one for each head.

    And which tokens may be the only ones that ask: a slice in which those of the image are.
    """
    batch, heads, length, d = shape = draw(SHAPES)
    q, k, v = tensors(*shape, seed=draw(st.integers(0, 1000)))
    (x,) = tensors(batch, length, heads * d, count=1, seed=1)
    mask = tensors(batch, 1, length, length, count=1, seed=2)[0] if draw(st.booleans()) else None
    start = draw(st.integers(0, length - 2))
    tokens = slice(start, draw(st.integers(start + 1, length)))
    image = torch.zeros(length, dtype=torch.bool)
    image[tokens] = True
    strength = draw(ALPHAS), draw(BETAS)
    if draw(st.booleans()):
        strength = tuple(number + torch.arange(heads, dtype=torch.float64).view(1, -1, 1, 1) / 8 for number in strength)
    asking = slice(draw(st.integers(0, start)), draw(st.integers(tokens.stop, length)))
    return q, k, v, x, mask, tokens, image, *strength, asking


def among(tokens, asking):
    """Where the tokens are among those that ask, and among all."""
    return formula.Square(slice(tokens.start - asking.start, tokens.stop - asking.start), tokens)


def attention(q, k, v, mask=None):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def single(*values):
    return [value.float() if torch.is_tensor(value) and value.is_floating_point() else value for value in values]


def assert_written_out(ours, q, k, v, alpha, beta, space, x, mask, image=None, tokens=slice(None)):
    """To rounding: ours was computed from the same in float32."""
    exact = dense.circulation(q, k, v, alpha, beta, space, x, mask, image)[:, :, tokens]
    plain = dense.circulation(*single(q, k, v, alpha, beta), space, *single(x, mask), image)[:, :, tokens]
    assert_rounding_at_most_twice(ours, plain, exact, negligible=1e-6)


@cases
@given(calls())
def test_doubled_heads_have_the_skewed_logits(call):
    q, k, _, _, _, tokens, image, alpha, _, asking = call
    m = dense.logits(q, k)
    symmetric, skew = dense.split(m)
    expected = torch.where(image, symmetric + alpha * skew, m)[:, :, tokens]
    doubled = formula.doubled(q[:, :, asking], k, torch.where(image[:, None], alpha, 1.0), among(tokens, asking))
    torch.testing.assert_close(dense.logits(*doubled), expected)
    torch.testing.assert_close(dense.logits(*formula.doubled(q, k, alpha)), symmetric + alpha * skew)


@pytest.mark.parametrize("space", choices.RESCALES)
@cases
@given(calls())
def test_the_static_rule(space, call):
    q, k, v, x, mask, alpha, beta = single(*call[:5], *call[7:9])
    attend = partial(attention, mask=mask)

    def input_space_ratio(paired_q, paired_k):
        plain, skewed = (attention(*qk, x.unsqueeze(1).expand(*q.shape[:2], -1, -1), mask) for qk in ((q, k), (paired_q, paired_k)))
        return formula.blend_to_length(plain, skewed, beta)[1]

    ratio = input_space_ratio if space == choices.INPUT_SPACE else None
    new, rho = formula.circulate(q, k, v, attend(q, k, v), attend, alpha, beta, space, ratio)
    assert (rho is None) == (space == choices.NO_RESCALE)
    assert_written_out(new if rho is None else new * rho, *call[:3], *call[7:9], space, *call[3:5])


@cases
@given(calls())
def test_the_static_rule_among_some_tokens(call):
    """All other keys keep their logits, also where some of the tokens do not ask."""
    q, k, v, _, mask, tokens, image, alpha, beta, asking = single(*call)
    rows = None if mask is None else mask[..., tokens, :]
    per_key = torch.where(image[:, None], alpha, 1.0)
    new, rho = formula.circulate(
        q[:, :, asking], k, v, attention(q, k, v, mask)[:, :, tokens], partial(attention, mask=rows), per_key, beta,
        square=among(tokens, asking),
    )  # fmt: skip
    assert_written_out(new * rho, *call[:3], alpha, beta, choices.VALUE_SPACE, *call[3:5], image, tokens)


@cases
@given(SHAPES, st.integers(0, 1000), ALPHAS, BETAS)
def test_the_adaptive_rule(shape, seed, alpha, beta):
    q, k, _ = tensors(*shape, seed=seed)
    k = k + q / 2
    for over in choices.ETA_OVER:
        for kind in choices.FORMULAS:
            for which in ((True, True), (True, False), (False, True)):
                adapted = formula.adapt(alpha, beta, dense.eta(q, k), AdaptiveSettings(*which, kind, over))
                for ours, written_out in zip(adapted, dense.adaptive(q, k, alpha, beta, over, kind, *which)):
                    torch.testing.assert_close(torch.as_tensor(ours), torch.as_tensor(written_out))


@cases
@given(SHAPES, st.integers(0, 1000))
def test_the_symmetry_index(shape, seed):
    q, k, _ = tensors(*shape, seed=seed)
    torch.testing.assert_close(formula.symmetry_index(*formula.products(q, k)), dense.eta(q, k))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_products_of_half_tensors_are_sums_in_float32(dtype, monkeypatch):
    """With and without float32 copies of q and k, of which ComfyUI's heads are slices. Sums in half would overflow float16."""
    q, k = ((20 * t).to(dtype).transpose(1, 2) for t in tensors(2, 1024, 3, 8, count=2))
    exact = formula.products(q.double(), k.double())
    in_copies = formula.products(q, k)
    measure_as_on_a_gpu(monkeypatch)
    for ours, copied, written_out in zip(formula.products(q, k), in_copies, exact):
        assert ours.dtype == copied.dtype == torch.float32
        torch.testing.assert_close(ours.double(), written_out, rtol=1e-5, atol=1e-5 * float(written_out.abs().max()))
        torch.testing.assert_close(ours, copied, rtol=1e-5, atol=1e-5 * float(written_out.abs().max()))


@cases
@given(SHAPES, st.integers(0, 1000), BETAS)
def test_the_blend_its_length_and_the_ratio(shape, seed, beta):
    retrieved, skewed, _ = single(*tensors(*shape, seed=seed))
    skewed[..., 0, :] = 0
    blended = retrieved + beta * (skewed - retrieved)
    torch.testing.assert_close(formula.blend(retrieved, skewed, beta), blended)
    torch.testing.assert_close(formula.norm(skewed), skewed.norm(dim=-1, keepdim=True).clamp_min(1e-6))
    new, rho = formula.blend_to_length(retrieved, skewed.clone(), beta)
    torch.testing.assert_close(new, blended)
    torch.testing.assert_close(rho, dense.rescale(skewed, blended))
    torch.testing.assert_close(formula.ratio(formula.norm(skewed), formula.norm(blended)), rho)


@cases
@given(SHAPES, st.integers(1, 30), st.integers(0, 1000), st.floats(0, 5))
def test_each_measure(shape, channels, seed, bias):
    q, k, _ = tensors(*shape, seed=seed)
    (retrieval,) = tensors(*shape[:3], channels, count=1, seed=seed + 1)
    q, k = q + bias, k + bias
    energy, instability, alignment, eta = measures.measures(q, k, retrieval)
    for ours, written_out in zip((energy, instability, alignment), dense.stability(q, k, retrieval)):
        torch.testing.assert_close(ours, written_out)
    centred_eta = dense.eta(dense.centred(q), dense.centred(k))
    torch.testing.assert_close(eta, centred_eta)
    symmetric, skew = dense.split(dense.logits(dense.centred(q), dense.centred(k)))
    norms = (skew.flatten(-2).norm(dim=-1) / symmetric.flatten(-2).norm(dim=-1)).clamp(max=1e3)
    torch.testing.assert_close(measures.skew_ratio(eta), norms, rtol=1e-4, atol=1e-6)
