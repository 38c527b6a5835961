"""The measures, against the authors' numbers and against the written-out formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import dense
from support.errors import assert_rounding_at_most_twice
from support.golden import golden, named
from support.half import measure_as_on_a_gpu
from support.host import engine

stability, workspace = engine("method.fast.measures"), engine("method.fast.workspace").Workspace()
retrievals = engine("method.fast.input_space").retrievals


@pytest.mark.parametrize("case", golden.cases, ids=named)
def test_the_maps_are_the_authors(case):
    _, q, k, _ = golden.qkv(case)
    energy, unstable, alignment, eta = engine("method.measures").measures(q, k, golden.output(case, "retrieval"))
    torch.testing.assert_close(energy.mean(1), golden.output(case, "energy_map"), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(unstable.mean(1), golden.output(case, "instability_map"), rtol=0, atol=1e-4)
    torch.testing.assert_close(alignment.mean(1), golden.output(case, "align_map"), rtol=0, atol=1e-4)
    torch.testing.assert_close(eta.mean(0), golden.output(case, "eta_centred_per_head"), rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", golden.cases, ids=named)
def test_the_scalars_are_the_authors(case):
    x, q, k, _ = golden.qkv(case)
    measured = stability.measure(q, k, retrievals(q, k, x, None, workspace), workspace).mean(1)
    expected = [
        case["stability"][name]
        for name in ("energy", "instability_fraction", "alignment", "eta_centred_mean", "skew_to_sym_centred_mean")
    ]
    assert float(measured[0]) == pytest.approx(expected[0], rel=1e-5)
    assert measured[1:].tolist() == pytest.approx(expected[1:], abs=1e-4)


def rotated(t, positions):
    """Rotary position embedding: pairs of channels turned by an angle that grows with position."""
    angle = positions[:, None] / 10 ** torch.arange(t.shape[-1] // 2, dtype=t.dtype)
    even, odd = t[..., 0::2], t[..., 1::2]
    return torch.stack((even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()), -1).flatten(-2)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(3, 40), st.integers(1, 12).map(lambda n: 2 * n)),
    channels=st.integers(1, 40),
    rotary=st.booleans(),
    bias=st.floats(0, 5),
    seed=st.integers(0, 1000),
)
def test_the_measures_equal_the_written_out_formulas(shape, channels, rotary, bias, seed):
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2))
    if rotary:
        positions = torch.arange(shape[2], dtype=torch.float64)
        q, k = rotated(q, positions), rotated(k, positions)
    q, k = (t + bias * torch.randn(shape[-1], generator=generator, dtype=torch.float64) for t in (q, k))
    retrieval = torch.randn(*shape[:3], channels, generator=generator, dtype=torch.float64)
    expected = dense.measures(q, k, retrieval)
    whole = stability.measure(q, k, [retrieval], workspace)
    by_head = stability.measure(q, k, retrieval.split(1, dim=1), workspace)
    in_its_memory = stability.measure(q, k, (head.clone() for head in retrieval.split(1, dim=1)), workspace, overwrite=True)
    with pytest.MonkeyPatch.context() as patch:
        measure_as_on_a_gpu(patch)
        in_few_passes = stability.measure(q, k, retrieval.split(1, dim=1), workspace)
    for measured in (whole, by_head, in_its_memory, in_few_passes):
        torch.testing.assert_close(measured.double(), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("bias", [0.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_few_passes_round_at_most_twice_as_much_as_the_formulas(dtype, bias, monkeypatch):
    """As on a GPU, in products of half tensors. The formulas' own η overflows in float16: there it may be one rounding off."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 384, 64, generator=generator) for _ in range(3))
    k = k / 2 + q
    retrieval = dense.logits(q, k).softmax(-1) @ v
    q, k = (t + bias * torch.randn(64, generator=generator) for t in (q, k))
    q, k, retrieval = (t.to(dtype) for t in (q, k, retrieval))
    exact, plain = dense.measures(*(t.double() for t in (q, k, retrieval))), dense.measures(q, k, retrieval)
    measure_as_on_a_gpu(monkeypatch)
    measured = stability.measure_values(q, k, retrieval, workspace)
    assert measured.dtype == torch.float32
    for row in range(3):
        assert_rounding_at_most_twice(measured[row], plain[row], exact[row])
    torch.testing.assert_close(measured[3:].double(), exact[3:], rtol=max(1e-5, torch.finfo(dtype).eps), atol=0)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_few_passes_stay_within_the_range_of_float16(scale, monkeypatch):
    """u, w and h themselves would leave it. A channel that is zero has neither energy nor instability."""
    generator = torch.Generator().manual_seed(0)
    q, k, retrieval = (scale * torch.randn(1, 2, 512, 64, generator=generator) for _ in range(3))
    retrieval[..., 0] = 0
    q, k, retrieval = (t.half() for t in (q, k, retrieval))
    expected = stability.measure_values(q, k, retrieval, workspace)
    measure_as_on_a_gpu(monkeypatch)
    torch.testing.assert_close(stability.measure_values(q, k, retrieval, workspace), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "threads, tokens, parts", [(1, 384, 1), (2, 384, 2), (3, 384, 3), (64, 384, 3), (4, 512, 4), (2, 385, 1), (2, 128, 1)]
)
def test_the_measures_are_the_same_on_any_number_of_threads(threads, tokens, parts, monkeypatch):
    """A head that is alone is measured by all threads, each with as many of its tokens."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    generator = torch.Generator().manual_seed(0)
    q, k, retrieval = (torch.randn(1, 3, tokens, size, generator=generator, dtype=torch.float64) for size in (8, 8, 24))
    expected = dense.measures(q, k, retrieval)
    assert engine("method.fast.chunks").parts_of_tokens(q[:, :1], retrieval.shape[-1]) == parts
    for dtype in (torch.float64, torch.float32):
        q, k, retrieval = (t.to(dtype) for t in (q, k, retrieval))
        by_head = retrieval.split(1, dim=1)
        for of_heads, overwrite in ((by_head, False), (retrieval.split(2, dim=1), False), ((head.clone() for head in by_head), True)):
            torch.testing.assert_close(stability.measure(q, k, of_heads, workspace, overwrite).double(), expected, rtol=2e-5, atol=2e-5)


def test_the_coupling_of_the_published_algorithm_gives_the_same():
    generator = torch.Generator().manual_seed(0)
    x, wq, wk, retrieval = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((2, 20, 24), (3, 8, 24), (3, 8, 24), (2, 3, 20, 24))
    )
    q, k = (x.unsqueeze(1) @ w.mT for w in (wq, wk))
    ours = stability.measure(q, k, [retrieval], workspace)
    torch.testing.assert_close(ours.double(), dense.measures_by_coupling(x, wq, wk, retrieval), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tokens", [20, 80])  # the channels of X in two chunks, and in one
@pytest.mark.parametrize("rescaled", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_what_each_head_retrieves_of_x(tokens, rescaled, masked):
    """Of a call left alone, and of one that was circulated with an α and β for each head."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, x = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in [(2, 3, tokens, 8)] * 3 + [(2, tokens, 24)])
    mask = torch.randn(2, 1, tokens, tokens, generator=generator, dtype=torch.float64) if masked else None
    alpha, beta = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in ([1.5, 0.5, 2.0], [3.0, 1.0, 0.5]))
    symmetric, skew = dense.split(dense.logits(q, k))
    p, p_alpha = ((m if mask is None else m + mask).softmax(-1) for m in (symmetric + skew, symmetric + alpha * skew))
    rho = dense.rescale(p_alpha @ v, p @ v + beta * (p_alpha @ v - p @ v)) if rescaled else None
    plain, skewed = p @ x.unsqueeze(1), p_alpha @ x.unsqueeze(1)
    circulated = (plain + beta * (skewed - plain)) * (1 if rho is None else rho)
    applied = engine("method.formula").Applied(alpha, beta, rho, torch.tensor(True))
    for found, written_out in ((None, plain), (applied, circulated)):
        heads = torch.cat([head.clone() for head in retrievals(q, k, x, mask, workspace, found)], dim=1)
        torch.testing.assert_close(heads, written_out)
        measured = stability.measure_input(q, k, x, mask, workspace, found)
        torch.testing.assert_close(measured.double(), dense.measures(q, k, written_out), rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(stability.measure_values(q, k, v, workspace).double(), dense.measures(q, k, v), rtol=2e-5, atol=2e-5)
