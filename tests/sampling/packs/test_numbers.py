"""Numbers and threads: wide models, noise that is not finite, attentions with a scale, unknown backends, a thread for each device."""

import threading

import pytest
import torch
from comfy.ldm.modules import attention
from support import calls, dense, models
from support.errors import change
from support.host import engine
from support.packs import ALPHA, BETA, ROUNDING, VISIBLE, ours
from support.sampling import sample


@pytest.fixture(scope="module")
def model():
    return models.build("sd15", **models.ONE_LEVEL)


def test_a_model_in_float64(log):
    model = models.build("sd15", torch.float64, **models.ONE_LEVEL)
    image = sample(ours(model))
    assert change(image, sample(dense.written_out(model, ALPHA, BETA))) < 1e-6
    assert change(image, sample(model)) > VISIBLE and "not finite" not in log.text


def test_noise_that_is_not_finite_is_not_blamed_on_us(model, log, statuses):
    noise = torch.randn(1, 4, 8, 8)
    noise[..., 0, 0] = torch.nan
    assert sample(ours(model), size=8, noise=noise).isnan().any()
    assert "not finite" not in log.text and "not finite" not in statuses["1"]


HONOUR_SCALE = [name for name in ("basic", "sub_quad", "split", "pytorch") if hasattr(attention, f"attention_{name}")]


@pytest.mark.parametrize("scale", [0.1, 0.5])
@pytest.mark.parametrize("name", HONOUR_SCALE)
def test_an_attention_with_a_scale_of_its_own(name, scale):
    backend = getattr(attention, f"attention_{name}")
    q, k, v, x, heads = calls.inputs(dtype=torch.float32)
    plain = backend(q, k, v, heads, scale=scale)
    factor = scale * (q.shape[-1] // heads) ** 0.5
    if change(plain, backend(q * factor, k, v, heads)) > 1e-5:
        pytest.skip("this backend takes no scale")
    out = calls.site(ALPHA, BETA)(backend, q, k, v, x, heads=heads, scale=scale)
    assert change(out, dense.call(q.double() * factor, k, v, x, heads)) < ROUNDING
    declined = calls.site(ALPHA, BETA, rescale="input space (paper)")
    assert torch.equal(declined(backend, q, k, v, x, heads=heads, scale=scale), plain)
    assert any("scale of its own" in note for note in declined.run.outcome.notes())


@pytest.mark.parametrize("head_dim, doubled", [(64, True), (65, False)])
def test_a_backend_that_nobody_registered_is_given_heads_of_128_at_most(head_dim, doubled):
    given = []

    def unknown(q, k, v, heads, *args, **kwargs):
        given.append(q.shape[-1] if kwargs.get("skip_reshape") else q.shape[-1] // heads)
        return attention.attention_basic(q, k, v, heads, *args, **{**kwargs, "_inside_attn_wrapper": True})

    q, k, v, x, heads = calls.inputs(head_dim=head_dim)
    site = calls.site(ALPHA, BETA)
    out = site(attention.wrap_attn(unknown), q, k, v, x, heads=heads)
    assert change(out, dense.call(q, k, v, x, heads)) < ROUNDING
    assert given == ([head_dim, 2 * head_dim] if doubled else []), "both of a blend come from one backend"


def test_two_threads_announce_and_attend_at_once():
    """As where a model is split over devices: each has its own announcement, and what is counted is exact."""
    site = calls.site(ALPHA, BETA)
    q, k, v, x, heads = calls.inputs()
    expected, rounds, failures = dense.call(q, k, v, x, heads), 200, []
    barrier, AttentionCall = threading.Barrier(2), engine("comfy.attention_call").AttentionCall

    def work():
        barrier.wait()
        for i in range(rounds):
            site.run.announce(site.block.address, x.device, site.chunks, site.chunks, x)
            if i % 2:
                out = site.run.attention(AttentionCall(attention.attention_basic.__wrapped__, None, (q, k, v, heads), {}))
                if change(out, expected) > ROUNDING:
                    failures.append(i)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    (note,) = site.run.outcome.notes()
    assert f"Left alone in {rounds} calls at middle.0.0: another node replaces" in note
