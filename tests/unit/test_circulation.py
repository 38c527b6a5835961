"""The engine's formulas against the authors' numbers and against the written-out ones."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support import dense
from support.errors import assert_rounding_at_most_twice, change
from support.golden import golden, named
from support.host import engine

choices, formula = engine("choices"), engine("method.formula")
circulate, Workspace = engine("method.fast.circulate").circulate, engine("method.fast.workspace").Workspace
CirculationSettings, AdaptiveSettings = engine("method.settings").CirculationSettings, engine("method.settings").AdaptiveSettings
SPACES = [choices.VALUE_SPACE, choices.INPUT_SPACE, choices.NO_RESCALE]


def circulated(q, k, v, setting, x=None, mask=None, attend=F.scaled_dot_product_attention):
    masked = attend if mask is None else partial(attend, attn_mask=mask)
    out = torch.empty_like(v)
    circulate(q, k, v, masked(q, k, v), lambda q, k, v, heads: masked(q, k, v), setting, out, Workspace(), x, mask)
    return out


def heads(*shape, dtype=torch.float64, seed=0, scale=1.5):
    generator = torch.Generator().manual_seed(seed)
    return tuple((scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype) for _ in range(3))


STATIC = [(case, setting) for case in golden.cases for setting in case["static"]]
ADAPTIVE = [(case, setting) for case in golden.cases for setting in case["adaptive"]]


@pytest.mark.parametrize("case, setting", STATIC, ids=named)
def test_input_space_is_the_authors_static_rule(case, setting):
    x, q, k, v = golden.qkv(case)
    ours = circulated(q, k, v, CirculationSettings(setting["alpha"], setting["beta"], choices.INPUT_SPACE), x)
    assert change(ours.transpose(1, 2).flatten(-2), golden.output(case, setting["key"])) < 1e-5


@pytest.mark.parametrize("case, setting", ADAPTIVE, ids=named)
def test_input_space_is_the_authors_adaptive_rule(case, setting):
    x, q, k, v = golden.qkv(case)
    formula = {"dev": choices.DEVIATION, "scale": choices.SCALE}[setting["alpha_mode"]]
    adaptive = AdaptiveSettings(setting["eta_alpha"], setting["eta_beta"], formula, choices.BATCH)
    ours = circulated(
        q, k, v, CirculationSettings(setting["alpha"], setting["beta"], choices.INPUT_SPACE, adaptive), x
    )
    assert change(ours.transpose(1, 2).flatten(-2), golden.output(case, setting["key"])) < 1e-5


@pytest.mark.parametrize("case", golden.cases, ids=named)
def test_symmetry_index_is_the_authors(case):
    _, q, k, _ = golden.qkv(case)
    torch.testing.assert_close(symmetry_index(q, k), golden.output(case, "eta_per_batch_head"), rtol=0, atol=2e-6)


def test_golden_settings_differ_from_each_other():
    """Otherwise an engine that ignores alpha or beta would pass the tests above."""
    for case in golden.cases:
        outputs = [golden.output(case, setting["key"]) for setting in case["static"]]
        for i, one in enumerate(outputs):
            assert all(change(one, other) > 1e-3 for other in outputs[i + 1 :])


def symmetry_index(q, k):
    return formula.symmetry_index(*formula.products(q, k))


def exact(q, k, v):
    """Ordinary attention without rounding of its own: what is left is the engine's."""
    return F.scaled_dot_product_attention(q.double(), k.double(), v.double()).to(q.dtype)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    alpha=st.floats(-1, 3),
    beta=st.floats(0, 5),
    space=st.sampled_from([choices.VALUE_SPACE, choices.NO_RESCALE]),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 40), st.integers(4, 48)),
    seed=st.integers(0, 1000),
)
def test_float32_adds_no_rounding_worth_naming(alpha, beta, space, shape, seed):
    q, k, v = heads(*shape, seed=seed, scale=1)
    truth = dense.circulation(q, k, v, alpha, beta, space)
    q, k, v = q.float(), k.float(), v.float()
    ours = circulated(q, k, v, CirculationSettings(alpha, beta, space), attend=exact)
    assert change(ours, truth) < 1e-6


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    alpha=st.floats(-1, 3),
    beta=st.floats(0, 5),
    space=st.sampled_from(SPACES),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 40), st.integers(4, 48)),
    masked=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_float32_equals_the_written_out_formula(alpha, beta, space, shape, masked, seed):
    """To the rounding of the attention itself, which the blend of two of them carries 1 + 2β times."""
    batch, _, tokens, _ = shape
    q, k, v = heads(*shape, seed=seed, scale=1)
    x = heads(batch, tokens, 24, seed=seed + 1)[0]
    mask = heads(batch, 1, tokens, tokens, seed=seed + 2)[0] if masked else None
    truth = dense.circulation(q, k, v, alpha, beta, space, x, mask)
    attention = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    single = [None if t is None else t.float() for t in (q, k, v, x, mask)]
    ours = circulated(*single[:3], CirculationSettings(alpha, beta, space), *single[3:])
    rounding = change(F.scaled_dot_product_attention(*single[:3], attn_mask=single[4]), attention)
    assert change(ours, truth) <= max(1e-6, 2 * (1 + 2 * beta) * rounding)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("alpha, beta", [(1.05, 3), (1.2, 5), (0.8, 5), (0, 1), (3, 1)])
@pytest.mark.parametrize("space", SPACES)
def test_half_precision_rounds_no_worse_than_the_written_out_formula(dtype, alpha, beta, space):
    q, k, v = heads(2, 4, 96, 40, dtype=dtype)
    x = heads(2, 96, 160, dtype=dtype)[0]
    truth = dense.circulation(*(t.double() for t in (q, k, v)), alpha, beta, space, x.double())
    plain = dense.circulation(q, k, v, alpha, beta, space, x)
    ours = circulated(q, k, v, CirculationSettings(alpha, beta, space), x)
    assert ours.dtype == dtype
    assert_rounding_at_most_twice(ours, plain, truth)


@pytest.mark.parametrize("over", [choices.IMAGE, choices.HEAD, choices.BATCH])
@pytest.mark.parametrize("formula", [choices.DEVIATION, choices.SCALE])
@pytest.mark.parametrize("which", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adaptive_rule_equals_the_written_out_formula(over, formula, which, dtype):
    q, k, v = heads(3, 4, 48, 16, dtype=dtype, scale=1)
    k = (k + q) / 2**0.5  # away from η = 0, where the rules hardly differ
    adaptive = AdaptiveSettings(*which, formula, over)

    def written_out(q, k, v):
        return dense.circulation(q, k, v, *dense.adaptive(q, k, 1.5, 3, over, formula, *which))

    truth = written_out(*(t.double() for t in (q, k, v)))
    ours = circulated(q, k, v, CirculationSettings(1.5, 3, choices.VALUE_SPACE, adaptive))
    assert_rounding_at_most_twice(ours, written_out(q, k, v), truth, negligible=1e-6)


def test_eta_of_an_image_ignores_its_neighbours():
    q, k, v = heads(3, 2, 32, 8, dtype=torch.float32)
    k = k + q * torch.tensor([0.0, 1.0, 2.0]).reshape(3, 1, 1, 1)
    for over, independent in ((choices.IMAGE, True), (choices.HEAD, True), (choices.BATCH, False)):
        setting = CirculationSettings(1.5, 3, choices.VALUE_SPACE, AdaptiveSettings(eta_over=over))
        alone = circulated(q[1:2], k[1:2], v[1:2], setting)
        together = circulated(q, k, v, setting)[1:2]
        assert (change(together, alone) < 1e-6) == independent


@pytest.mark.parametrize("alpha, adaptive, off", [
    (1, None, True),
    (1.05, None, False),
    (1, AdaptiveSettings(), True),
    (1, AdaptiveSettings(adapts_alpha=False), True),
    (1, AdaptiveSettings(adapts_alpha=False, formula=choices.SCALE), True),
    (1, AdaptiveSettings(formula=choices.SCALE), False),
])  # fmt: skip
def test_off(alpha, adaptive, off):
    assert CirculationSettings(alpha, 3, choices.VALUE_SPACE, adaptive).off == off
    assert CirculationSettings(alpha, 0, choices.VALUE_SPACE, adaptive).off


def test_extremes_of_the_symmetry_index():
    q, _, _ = heads(2, 3, 20, 8, dtype=torch.float32)
    turn = torch.block_diag(*[torch.tensor([[0.0, 1.0], [-1.0, 0.0]])] * 4)  # q turned by 90°: M is skew
    assert symmetry_index(q, q).sub(1).abs().max() < 1e-6
    assert symmetry_index(q, q @ turn).add(1).abs().max() < 1e-6
    assert symmetry_index(q * 0, q).isfinite().all()
