"""Every way in which a call can be computed, against the written-out formula: heads together or by parts, in tiles or by a backend."""

import comfy.ldm.modules.attention as attention
import pytest
import torch
from support import calls, dense, memory
from support.errors import assert_rounding_at_most_twice, change
from support.host import engine

choices, chunks, tiles = engine("choices"), engine("method.fast.chunks"), engine("method.fast.tiles")
circulate, Workspace = engine("method.fast.circulate").circulate, engine("method.fast.workspace").Workspace
CirculationSettings, AdaptiveSettings = engine("method.settings").CirculationSettings, engine("method.settings").AdaptiveSettings
ALPHA, BETA = 1.5, 3.0
AT_ONCE = {"together": 2**40, "by twos": 2**13, "one by one": 1}  # numbers in q; three heads of 64 tokens of 24 channels
IMAGE = {"all": slice(None), "image": slice(20, 50)}


@pytest.fixture(params=AT_ONCE)
def parts(request, monkeypatch):
    monkeypatch.setattr(chunks, "MAX_ELEMENTS_CPU", AT_ONCE[request.param])
    return {"together": 1, "by twos": 2, "one by one": 3}[request.param]


@pytest.fixture(params=["in tiles", "by the backend", "by another pack's backend"])
def path(request, monkeypatch):
    """What the call is given as the override before ours, how wide the values are that our own attention is given, and
    whether values of heads are."""
    monkeypatch.setattr(chunks, "MIN_QUERIES", 16)
    monkeypatch.setattr(chunks, "MAX_QUERIES", 24)
    if request.param == "by the backend":
        monkeypatch.setattr(engine("comfy.attention_call").AttentionCall, "_in_tiles", lambda self, q: False)
    called = []
    own = tiles.attention
    monkeypatch.setattr(tiles, "attention", lambda *args: called.append(args[2].shape[-1]) or own(*args))
    previous = (lambda func, *args, **kwargs: func(*args, **kwargs)) if "another" in request.param else None
    return previous, called, request.param == "in tiles"


@pytest.mark.parametrize("space, image", [(choices.VALUE_SPACE, "all"), (choices.INPUT_SPACE, "all"), (choices.NO_RESCALE, "all"),
                                          (choices.VALUE_SPACE, "image")])  # fmt: skip
@pytest.mark.parametrize("masked", [False, True], ids=["no mask", "mask of each head"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rounding_is_at_most_twice_that_of_the_plain_formula(parts, path, dtype, masked, space, image):
    previous, called, in_tiles = path
    *tensors, heads = calls.inputs(rows=2, heads=3, tokens=64, head_dim=24, scale=1.0, dtype=dtype)
    mask = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).to(dtype) if masked else None
    chosen = torch.zeros(64, dtype=torch.bool)
    chosen[IMAGE[image]] = True
    exact, plain = (dense.call(*tensors, heads, precision, space=space, mask=mask, image=chosen) for precision in (torch.float64, dtype))
    out = calls.site(rescale=space, previous=previous, image=IMAGE[image])(attention.attention_pytorch, *tensors, heads=heads, mask=mask)
    assert_rounding_at_most_twice(out, plain, exact)
    in_input_space, ours = space == choices.INPUT_SPACE, not masked and dtype == torch.float32
    parts = heads if in_input_space else parts
    twice_by_sixteen_queries = 2 * heads * 64 // 16
    assert called.count(24) == (parts if ours and in_tiles else 0)
    assert called.count(24 * heads) == (twice_by_sixteen_queries if ours and in_input_space else 0)


@pytest.mark.parametrize("over", choices.ETA_OVER)
def test_eta_is_that_of_all_heads_though_they_are_done_by_parts(parts, over):
    q, k, v, _, heads = calls.inputs(rows=2, heads=3, tokens=64, head_dim=24, scale=1.0)
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    k = (k + q) / 2**0.5
    expected = dense.circulation(*(t.double() for t in (q, k, v)), *dense.adaptive(q.double(), k.double(), ALPHA, BETA, over))
    out, sdpa = torch.empty_like(v), torch.nn.functional.scaled_dot_product_attention
    setting = CirculationSettings(ALPHA, BETA, adaptive=AdaptiveSettings(eta_over=over))
    circulate(q, k, v, sdpa(q, k, v), lambda q, k, v, heads: sdpa(q, k, v), setting, out, Workspace())
    assert change(out, expected) < 1e-5


@pytest.mark.parametrize("heads", [1, 4, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_attention_in_tiles_is_attention(monkeypatch, dtype, heads):
    """So many heads of six at a time, one alone by two threads; the last tile and the last heads fewer. Then in the same memory again."""
    monkeypatch.setattr(chunks, "MAX_LOGITS_OF_SEVERAL_HEADS", heads * 512 * 700)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    workspace = Workspace()
    for queries in (1100, 1024, 300):
        q, k, v = (torch.randn(2, 3, n, d, dtype=dtype) for n, d in ((queries, 16), (700, 16), (700, 8)))
        exact = dense.logits(q.double(), k.double()).softmax(-1) @ v.double()
        plain = dense.logits(q, k).softmax(-1) @ v
        assert_rounding_at_most_twice(tiles.attention(q, k, v, workspace), plain, exact, negligible=1e-12)


SETTINGS = {  # and how many tensors of the size of q they may take
    "static": ({}, 2),
    "adaptive": ({"adaptive": AdaptiveSettings()}, 2),
    "input space": ({"rescale": choices.INPUT_SPACE}, 3),
    "probe": ({"alpha": 1, "probed": choices.VALUE_SPACE}, 2),
    "probe, input space": ({"alpha": 1, "probed": choices.INPUT_SPACE}, 3),
}


@pytest.mark.parametrize("tokens, heads, head_dim", [(256, 20, 64), (1024, 10, 64), (4096, 8, 40)])
@pytest.mark.parametrize("settings, most", SETTINGS.values(), ids=SETTINGS)
def test_it_takes_no_more_than_a_few_tensors_of_the_size_of_q(settings, most, tokens, heads, head_dim):
    """Positive and negative of one image, at a run's first call, which takes what the run keeps."""
    q, k, v, x, heads = calls.inputs(rows=2, heads=heads, tokens=tokens, head_dim=head_dim)
    site = calls.site(**settings)
    plain = memory.peak(lambda: attention.attention_pytorch(q, k, v, heads=heads))
    ours = memory.peak(lambda: site(attention.attention_pytorch, q, k, v, x, heads=heads))
    assert 0 < ours - plain <= most * q.numel() * q.element_size()
