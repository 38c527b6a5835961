"""Each path with real tensors: on a GPU if torch finds one, else with small ones on the CPU, where it tries the code of these tests.

CIRCULATION_DEVICE, cpu or cuda, decides otherwise.
"""

import contextlib
import os
from functools import partial

import comfy.ldm.modules.attention as attention
import comfy.ops
import pytest
import torch
from support import calls, dense, memory
from support.errors import assert_rounding_at_most_twice
from support.host import engine
from support.rehearsal import KERNELS, Card, Layer, rehearse

DEVICE = os.environ.get("CIRCULATION_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = DEVICE != "cpu"
SIZE = dict(rows=2, heads=10, tokens=1024, head_dim=64) if ON_GPU else dict(rows=2, heads=2, tokens=64, head_dim=16)
LAYER = Layer(2, 4096, 10, 64) if ON_GPU else Layer(2, 64, 2, 16)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]

Circulation, Adaptive = engine("method.settings").CirculationSettings, engine("method.settings").AdaptiveSettings
VALUE_SPACE, INPUT_SPACE, OFF = "value space", "input space (paper)", "off"
RULES = {
    "value space": Circulation(1.05, 3.0),
    "input space": Circulation(1.05, 3.0, INPUT_SPACE),
    "no rescale": Circulation(1.05, 3.0, OFF),
    "strong": Circulation(1.2, 5.0),
    "beta 1": Circulation(1.2, 1.0),
    "one pass": Circulation(1.05, 3.0, method="one pass"),
}
PATHS = {
    **{name: dict(circulation=rule) for name, rule in RULES.items()},
    "adaptive": dict(circulation=Circulation(1.2, 5.0, adaptive=Adaptive(eta_over="batch"))),
    "probe": dict(probed=VALUE_SPACE),
    "probe, input space": dict(probed=INPUT_SPACE),
    "probe over adaptive": dict(circulation=Circulation(1.2, 5.0, adaptive=Adaptive()), probed=VALUE_SPACE),
}


def inputs(dtype):
    """q, k, v and x, (B, L, C), on the device, and the number of heads."""
    *tensors, heads = calls.inputs(**SIZE, scale=1.0, dtype=dtype)
    return *(t.to(DEVICE) for t in tensors), heads


def assert_rounding(circulation, dtype, image=None, mask=None, **written_out):
    q, k, v, x, heads = inputs(dtype)
    mask = None if mask is None else mask(q)
    site = calls.Site(circulation, image=slice(None) if image is None else image)
    out = site(attention.attention_pytorch, q, k, v, x, heads=heads, mask=mask)
    assert (out.dtype, out.device) == (q.dtype, q.device)
    among = None
    if image is not None:
        among = torch.zeros(q.shape[1], dtype=torch.bool, device=DEVICE)
        among[image] = True
    exact, plain = (dense.call(q, k, v, x, heads, wide, image=among, mask=mask, **written_out) for wide in (torch.float64, dtype))
    assert_rounding_at_most_twice(out, plain, exact)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", RULES)
def test_a_rule_rounds_at_most_twice_as_much_as_the_formula(name, dtype):
    rule = RULES[name]
    alpha, beta = (rule.alpha, rule.beta) if rule.method == "paper" else (1 + rule.beta * (rule.alpha - 1), 1.0)
    assert_rounding(rule, dtype, alpha=alpha, beta=beta, space=rule.rescale)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("beta", [5.0, 1.0])
def test_so_it_does_for_the_image_beside_text(beta, dtype):
    image = slice(SIZE["tokens"] // 4, SIZE["tokens"])
    assert_rounding(Circulation(1.2, beta), dtype, image, alpha=1.2, beta=beta)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("space", [VALUE_SPACE, INPUT_SPACE])
def test_so_it_does_with_a_mask(space, dtype):
    def mask(q):
        generator = torch.Generator().manual_seed(1)
        return torch.randn(q.shape[0], 1, q.shape[1], q.shape[1], generator=generator).to(q)

    assert_rounding(Circulation(1.2, 3.0, space), dtype, mask=mask, alpha=1.2, beta=3.0, space=space)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_so_does_the_adaptive_rule(dtype):
    """One η for all, so that the formula in half precision has numbers for α and β."""
    *tensors, _, heads = inputs(dtype)
    q, k, _ = (t.double().unflatten(-1, (heads, -1)).transpose(1, 2) for t in tensors)
    alpha, beta = (float(value) for value in dense.adaptive(q, k, 1.2, 5.0, over="batch"))
    assert_rounding(PATHS["adaptive"]["circulation"], dtype, alpha=alpha, beta=beta)


@pytest.mark.parametrize("bias", [0.0, 3.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_so_do_the_measures(dtype, bias):
    """The formulas' own η overflows in float16: ours may be one rounding off."""
    *tensors, _, heads = inputs(torch.float32)
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in tensors)
    k = k / 2 + q
    retrieval = dense.logits(q, k).softmax(-1) @ v
    q, k = (t + bias * torch.randn(t.shape[-1], generator=torch.Generator().manual_seed(1)).to(DEVICE) for t in (q, k))
    q, k, retrieval = (t.to(dtype) for t in (q, k, retrieval))
    exact, plain = dense.measures(*(t.double() for t in (q, k, retrieval))), dense.measures(q, k, retrieval)
    measured = engine("method.fast.measures").measure_values(q, k, retrieval, engine("method.fast.workspace").Workspace())
    for row in range(3):
        assert_rounding_at_most_twice(measured[row], plain[row], exact[row], negligible=1e-6)
    torch.testing.assert_close(measured[3:].double(), exact[3:], rtol=max(1e-5, torch.finfo(dtype).eps), atol=1e-5)


def call_of(path, dtype=torch.float16):
    """A call of LAYER under a rule or a probe, in the middle of a run, to be made again and again."""
    site = calls.Site(path.get("circulation"), path.get("probed"))
    q, k, v, x = (LAYER.tensor(DEVICE).to(dtype) for _ in range(4))

    def call():
        options = site.options(x)
        with waiting_is_an_error():
            return attention.attention_pytorch(q, k, v, heads=LAYER.heads, transformer_options=options)

    call()
    return call


@contextlib.contextmanager
def waiting_is_an_error():
    """Where torch itself would wait for the GPU."""
    if not ON_GPU:
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", PATHS)
def test_no_call_waits_for_the_gpu(name, dtype):
    call = call_of(PATHS[name], dtype)
    assert torch.isfinite(call()).all()


@pytest.mark.parametrize("name", PATHS)
def test_the_rehearsal_foresees_the_memory(name):
    """What a call takes at its peak beyond the plain one, to half a tensor of the size of q."""
    q, k, v = (LAYER.tensor(DEVICE) for _ in range(3))
    plain = partial(attention.attention_pytorch, q, k, v, heads=LAYER.heads)
    plain()
    extra = memory.peak(call_of(PATHS[name]), DEVICE) - memory.peak(plain, DEVICE)
    if ON_GPU:
        capability = torch.cuda.get_device_capability()
        names = {kernel: name for name, kernel in KERNELS.items()}
        order = [names[kernel] for kernel in getattr(comfy.ops, "SDPA_BACKEND_PRIORITY", ())]
        card = Card(capability, tuple(order) or None, torch.backends.cudnn.version())
        foreseen = rehearse(LAYER, **PATHS[name], card=card, steps=2).figures[1].peak
        assert extra / LAYER.bytes_of_q <= foreseen + 0.5
