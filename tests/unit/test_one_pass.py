"""Where the skewed retrieval alone is the result: at beta 1, and in one pass."""

import logging

import comfy.ldm.modules.attention as attention
import pytest
import torch
from support import calls, dense
from support.errors import assert_rounding_at_most_twice, change
from support.host import engine

choices, circulate, formula = engine("choices"), engine("method.fast.circulate"), engine("method.formula")
settings_of = engine("method.settings")
Settings, Adaptive = settings_of.CirculationSettings, settings_of.AdaptiveSettings
HALVES = [torch.float16, torch.bfloat16]
SPACES = [choices.VALUE_SPACE, choices.NO_RESCALE]
IMAGES = {"all": slice(None), "after text": slice(8, 24), "in front": slice(0, 20), "in the middle": slice(5, 21)}


def counted():
    """A backend that nobody knows, and the (rows, queries, keys, head size) of each call to it."""
    taken = []

    @attention.wrap_attn
    def backend(q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False, skip_output_reshape=False, **kwargs):
        tokens = 2 if skip_reshape else 1
        taken.append((q.shape[0], q.shape[tokens], k.shape[tokens], q.shape[-1] // (1 if skip_reshape else heads)))
        return attention.attention_pytorch(
            q, k, v, heads, mask, attn_precision, skip_reshape, skip_output_reshape, _inside_attn_wrapper=True
        )

    return backend, taken


def one_pass(alpha=1.2, beta=3.0, adaptive=None, tokens=choices.IMAGE_TOKENS, factor=1.0, **kwargs):
    return calls.Site(Settings(alpha, beta, adaptive=adaptive, tokens=tokens, factor=factor, method=choices.ONE_PASS), **kwargs)


# Beta 1


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_beta_1_has_the_bits_of_the_blend_at_beta_1(dtype, space, image, monkeypatch):
    *tensors, heads = calls.inputs(dtype=dtype)
    outs = []
    for one_call in (True, False):
        if not one_call:
            monkeypatch.setattr(Settings, "one_call", False)
        outs.append(calls.site(beta=1.0, rescale=space, image=IMAGES[image])(attention.attention_pytorch, *tensors, heads=heads))
    alone, blended = outs
    assert torch.equal(alone[:, IMAGES[image]], blended[:, IMAGES[image]])
    if dtype == torch.float32:
        assert change(alone, blended) < 1e-6
    else:  # the remaining rows are those of a call of another size
        torch.testing.assert_close(alone, blended, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)
    assert change(alone, attention.attention_pytorch(*tensors[:3], heads=heads).double()) > 1e-2


@pytest.mark.parametrize(
    "image, branches, expected",
    [
        ("all", "both", [(4, 24, 24, 128)]),
        ("after text", "both", [(4, 16, 24, 128), (4, 8, 24, 64)]),
        ("in front", "both", [(4, 20, 24, 128), (4, 4, 24, 64)]),
        ("in the middle", "both", [(4, 16, 24, 128), (4, 5, 24, 64), (4, 3, 24, 64)]),
        ("all", "positive", [(2, 24, 24, 64), (2, 24, 24, 128)]),
        ("after text", "negative", [(2, 16, 24, 128), (2, 8, 24, 64), (2, 24, 24, 64)]),
    ],
)
@pytest.mark.parametrize("layout", [{}, {"skip_output_reshape": True}])
def test_what_is_left_over_is_asked_of_the_model_alone(image, branches, expected, layout):
    backend, taken = counted()
    *tensors, heads = calls.inputs(head_dim=64)
    out = calls.site(beta=1.0, image=IMAGES[image], branches=branches)(backend, *tensors, heads=heads, **layout)
    assert taken == expected
    plain = attention.attention_pytorch(*tensors[:3], heads=heads)
    mask = torch.zeros(24, dtype=torch.bool)
    mask[IMAGES[image]] = True
    exact = dense.call(*tensors, heads, beta=1.0, image=mask)
    out = out.transpose(1, 2).flatten(-2) if layout else out
    changed = {"both": slice(None), "negative": slice(0, 2), "positive": slice(2, 4)}[branches]
    others = [row for row in range(4) if row not in range(4)[changed]]
    assert change(out[changed], exact[changed]) < 3e-6
    assert not others or change(out[others], plain[others].double()) < 1e-6


def test_masked_rows_that_are_left_over_keep_their_mask():
    *tensors, heads = calls.inputs()
    image = torch.zeros(24, dtype=torch.bool)
    image[8:] = True
    for shape in ((24, 24), (4, 24, 24), (4, 2, 24, 24), (4, 1, 1, 24)):
        mask = 4 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
        out = calls.site(beta=1.0, image=slice(8, 24))(attention.attention_pytorch, *tensors, heads=heads, mask=mask)
        wide = mask.unsqueeze(1) if mask.ndim == 3 else mask
        assert change(out, dense.call(*tensors, heads, beta=1.0, mask=wide, image=image)) < 3e-6


def test_input_space_needs_nothing_more_at_beta_1():
    backend, taken = counted()
    *tensors, heads = calls.inputs(head_dim=64)
    out = calls.site(beta=1.0, rescale=choices.INPUT_SPACE)(backend, *tensors, heads=heads)
    assert taken == [(4, 24, 24, 128)]
    assert change(out, dense.call(*tensors, heads, beta=1.0, space=choices.INPUT_SPACE)) < 3e-6


def test_a_beta_that_follows_eta_is_blended_though_it_starts_at_1():
    backend, taken = counted()
    *tensors, heads = calls.inputs(head_dim=64)
    calls.site(beta=1.0, adaptive=Adaptive())(backend, *tensors, heads=heads)
    assert [call[-1] for call in taken] == [64, 128]


# One pass


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("alpha, beta, used", [(1.05, 3.0, 1.15), (0.9, 5.0, 0.5), (1.2, 5.0, 2.0), (2.0, 5.0, 3.0), (0.5, 10.0, -1.0)])
def test_one_pass_is_the_formula_at_another_alpha(alpha, beta, used, image):
    *tensors, heads = calls.inputs()
    mask = torch.zeros(24, dtype=torch.bool)
    mask[IMAGES[image]] = True
    exact = dense.call(*tensors, heads, alpha=used, beta=1.0, image=mask)
    assert change(one_pass(alpha, beta, image=IMAGES[image])(attention.attention_pytorch, *tensors, heads=heads), exact) < 3e-6


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("head_dim", [40, 64, 128])
def test_rounding_of_one_pass_is_at_most_twice_that_of_the_plain_formula(head_dim, dtype):
    *tensors, heads = calls.inputs(tokens=96, head_dim=head_dim, scale=1.0, dtype=dtype)
    exact, plain = (dense.call(*tensors, heads, precision, alpha=1.6, beta=1.0) for precision in (torch.float64, dtype))
    assert_rounding_at_most_twice(one_pass()(attention.attention_pytorch, *tensors, heads=heads), plain, exact)


@pytest.mark.parametrize("over", choices.ETA_OVER)
@pytest.mark.parametrize("rule", choices.FORMULAS)
@pytest.mark.parametrize("adapts", [(True, True), (True, False), (False, True)])
def test_one_pass_takes_what_eta_has_set(adapts, rule, over):
    *tensors, heads = calls.inputs()
    q, k, v = (t.double().unflatten(-1, (heads, -1)).transpose(1, 2) for t in tensors[:3])
    alpha, beta = dense.adaptive(q, k, 1.1, 2.0, over, rule, *adapts)
    used = (1 + torch.as_tensor(beta) * (torch.as_tensor(alpha) - 1)).clamp(-1, 3)
    exact = dense.circulation(q, k, v, used, 1.0).transpose(1, 2).flatten(-2)
    out = one_pass(1.1, 2.0, Adaptive(*adapts, rule, over))(attention.attention_pytorch, *tensors, heads=heads)
    assert change(out, exact) < 3e-6


def test_a_schedule_is_a_factor_on_alpha_in_one_pass_too():
    *tensors, heads = calls.inputs()
    out = one_pass(1.2, 2.0, factor=0.5)(attention.attention_pytorch, *tensors, heads=heads)
    assert change(out, dense.call(*tensors, heads, alpha=1.2, beta=1.0)) < 3e-6


def test_to_first_order_it_is_the_paper_without_a_rescale():
    """Half the step, a quarter of what lies between."""
    *tensors, heads = calls.inputs(dtype=torch.float64)
    apart = []
    for alpha in (1.02, 1.01):
        both = one_pass(alpha)(attention.attention_pytorch, *tensors, heads=heads), calls.site(alpha, rescale="off")(
            attention.attention_pytorch, *tensors, heads=heads
        )
        apart.append(float((both[0] - both[1]).norm()))
    assert 3.5 < apart[0] / apart[1] < 4.5


@pytest.mark.parametrize("alpha, beta, adaptive", [(1.0, 3.0, None), (1.2, 0.0, None), (1.0, 3.0, Adaptive())])
def test_off_is_off(alpha, beta, adaptive):
    assert Settings(alpha, beta, adaptive=adaptive, method=choices.ONE_PASS).off


def test_it_says_at_which_alpha_and_where_that_was_limited():
    rule, blocks = engine("rules.rule"), engine("rules.blocks")
    schedule = engine("rules.schedule").Schedule(((1.0, 2.0),))

    def words(alpha, beta, **kwargs):
        settings = Settings(alpha, beta, adaptive=kwargs.pop("adaptive", None), method=choices.ONE_PASS)
        return str(rule.Rule(settings, blocks.Selection.parse("all"), (), **kwargs))

    assert words(1.05, 3.0) == "alpha 1.05 beta 3 in one pass at alpha 1.15 on all"
    assert words(2.0, 5.0) == "alpha 2 beta 5 in one pass at alpha 3, its limit, in the place of 6 on all"
    assert words(1.05, 3.0, schedule=schedule).startswith("alpha 1.05 beta 3 in one pass at up to alpha 1.3 on all")
    assert words(1.2, 5.0, adaptive=Adaptive()) == "alpha 1.2 beta 5 adaptive in one pass (alpha kept within -1 to 3) on all"


def test_results_that_are_not_finite_are_counted_and_used_as_they_were(caplog):
    caplog.set_level(logging.INFO, "circulation")
    *tensors, heads = calls.inputs(dtype=torch.float16)
    tensors[0][1] *= 3e4  # overflows when it is scaled for the keys
    site = one_pass(alpha=2.0)
    out = site(attention.attention_pytorch, *tensors, heads=heads)
    assert not out[1].isfinite().all() and out[[0, 2, 3]].isfinite().all()
    site.run.outcome.report()
    assert "1 attention results were not finite and were used as they were" in caplog.text


# Doubling in one buffer, as on a GPU


@pytest.mark.parametrize("alpha", [-1.0, 0.5, 1.05, 3.0, "per head"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES], ids=str)
def test_one_buffer_gives_the_same_logits(dtype, alpha):
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 3, 20, 8, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    alpha = torch.linspace(0.5, 2, 3).view(1, 3, 1, 1) if alpha == "per head" else alpha
    wide = [t.double() for t in circulate.doubled_in_one_buffer(q, k, alpha)]
    reference = [t.double() for t in formula.doubled(q, k, alpha)]
    ours, theirs = (q2 @ k2.mT for q2, k2 in (wide, reference))
    symmetric, skew = dense.split(q.double() @ k.double().mT)
    exact = 2**0.5 * (symmetric + (alpha.double() if isinstance(alpha, torch.Tensor) else alpha) * skew)
    if dtype in HALVES:
        assert change(ours, exact) <= 2 * change(theirs, exact)
    else:
        assert change(ours, exact) < (1e-6 if dtype == torch.float32 or isinstance(alpha, torch.Tensor) else 1e-7)
