"""Attention backends in whole models, and those with a largest head."""

import logging
import types
from collections import Counter

import comfy.ldm.modules.attention as attention
import pytest
import torch
import torch.nn.functional as F
from support import dense, models, others
from support.errors import change
from support.host import patch
from support.sampling import sample

SPACES = ["value space", "input space (paper)", "off"]
PLAIN_BACKENDS = ["sub_quad", "split", "pytorch", "basic"]
ALPHA, BETA = 1.5, 3.0


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO)
    return caplog


def backend(name):
    return getattr(attention, f"attention_{name}")


@pytest.fixture
def use(monkeypatch):
    """Makes a backend ComfyUI's choice, as its command line does."""

    def choose(function):
        monkeypatch.setattr(attention, "optimized_attention", function)
        monkeypatch.setattr(attention, "optimized_attention_masked", function)

    return choose


def heads_of(tensor, heads):
    return tensor.unflatten(-1, (heads, -1)).transpose(1, 2)


@pytest.mark.parametrize("space", SPACES[:2])
@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_unet_gives_the_same_on_every_backend(use, name, space):
    model = models.build(name)
    reference = sample(dense.written_out(model, ALPHA, BETA, space), name)
    for each in PLAIN_BACKENDS:
        use(backend(each))
        assert change(sample(patch(model, alpha=ALPHA, beta=BETA, rescale=space), name), reference) < 5e-5, each


# Backends with a largest head: ComfyUI's own functions for them, on kernels that compute plainly


class Kernel:
    """Refuses what the fused kernel refuses, and notes the head sizes that it took."""

    def __init__(self, limit):
        self.limit, self.sizes = limit, Counter()

    def attend(self, q, k, v, mask=None):
        """(B, H, L, d)."""
        if max(t.shape[-1] for t in (q, k, v)) > self.limit:
            raise ValueError(f"head dimension {q.shape[-1]} is larger than {self.limit}")
        self.sizes[q.shape[-1]] += 1
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def sageattn(self, q, k, v, tensor_layout="HND", attn_mask=None, **kwargs):
        if tensor_layout == "HND":
            return self.attend(q, k, v, attn_mask)
        return self.tokens_first(q, k, v, attn_mask)

    def tokens_first(self, q, k, v, attn_bias=None, **kwargs):
        return self.attend(*(t.transpose(1, 2) for t in (q, k, v)), attn_bias).transpose(1, 2)


def registered(monkeypatch, name, backend):
    """As ComfyUI does with a backend whose library is installed."""
    monkeypatch.setitem(attention.REGISTERED_ATTENTION_FUNCTIONS, name, backend)
    return backend


def sage(monkeypatch, kernel):
    monkeypatch.setattr(attention, "sageattn", kernel.sageattn, raising=False)
    return registered(monkeypatch, "sage", attention.attention_sage)


def flash(monkeypatch, kernel):
    monkeypatch.setattr(attention, "flash_attn_wrapper", kernel.tokens_first)
    return registered(monkeypatch, "flash", attention.attention_flash)


def xformers(monkeypatch, kernel):
    ops = types.SimpleNamespace(memory_efficient_attention=kernel.tokens_first)
    monkeypatch.setattr(attention, "xformers", types.SimpleNamespace(ops=ops), raising=False)
    return registered(monkeypatch, "xformers", attention.attention_xformers)


def kitchen(monkeypatch, kernel):
    def int8_attention(q, k, v, scale=None, attn_mask=None):
        return kernel.attend(q, k, v, attn_mask)

    monkeypatch.setattr(attention.comfy_kitchen, "int8_attention", int8_attention)
    # the same of calls whose q, k and v are in containers, as those of UNets are from ComfyUI 0.38 on
    monkeypatch.setattr(attention.comfy_kitchen, "prequantize_int8_attention", lambda *args, **kwargs: (args, kwargs))
    monkeypatch.setattr(attention.comfy_kitchen, "int8_attention_from_prequantized", lambda given: int8_attention(*given[0], **given[1]))
    return registered(monkeypatch, "comfy_kitchen_int8", attention.attention_comfy_kitchen_int8)


LIMITED = {sage: 128, flash: 256, xformers: 256}
if hasattr(attention, "attention_comfy_kitchen_int8"):
    LIMITED[kitchen] = 256


BLOCKS_WITH_HEADS_OF = {40: 3, 80: 3, 160: 4}


@pytest.fixture(scope="module")
def wide_heads():
    """Heads as large as those of Stable Diffusion 1.5, four instead of eight of them."""
    return models.build("sd15", model_channels=160, channel_mult=[1, 2, 4], num_heads=4)


def check(model, kernel, largest_doubled, keeps_plain=False):
    """The kernel computed all that it should, each head size as often as it should, and the image is right.

    `keeps_plain` is whether it computes the model's own self-attention also where it is not given the doubled heads.
    """
    image = sample(patch(model, alpha=ALPHA, beta=BETA), size=8, steps=1)
    written_out = dense.written_out(model, ALPHA, BETA)
    wanted = Counter()
    for head_dim, blocks in BLOCKS_WITH_HEADS_OF.items():
        takes_doubled = 2 * head_dim <= largest_doubled
        if head_dim <= kernel.limit:
            wanted[head_dim] += blocks + blocks * (takes_doubled or keeps_plain)  # cross and self
        if takes_doubled:
            wanted[2 * head_dim] += blocks
    assert kernel.sizes == wanted
    assert change(image, sample(written_out, size=8, steps=1)) < 5e-5


@pytest.mark.parametrize("limited", LIMITED, ids=lambda limited: limited.__name__)
def test_a_blend_goes_to_torch_only_where_the_backend_cannot_take_it(limited, use, wide_heads, log, monkeypatch):
    """Because doubled heads are too large, or because it rounds to 8 bits; then with what they are blended with."""
    kernel = Kernel(LIMITED[limited])
    use(limited(monkeypatch, kernel))
    check(wide_heads, kernel, largest_doubled=0 if limited in (sage, kitchen) else kernel.limit)
    # sage is refused the model's own heads of 160, and says so, with and without us
    refused = {record.getMessage().split(" is larger")[0][-3:] for record in log.records if "larger" in record.getMessage()}
    assert refused == ({"160"} if kernel.limit < 160 else set())


def test_another_packs_backend_is_never_given_a_head_that_fused_kernels_refuse(wide_heads):
    kernel = Kernel(160)

    def fused(q, k, v, heads, skip_reshape=False, skip_output_reshape=False, **kwargs):
        q, k, v = (t if skip_reshape else heads_of(t, heads) for t in (q, k, v))
        out = kernel.attend(q, k, v, kwargs.get("mask"))
        return out if skip_output_reshape else out.transpose(1, 2).flatten(-2)

    check(others.overwrite(wide_heads, fused), kernel, largest_doubled=128, keeps_plain=True)


def test_a_backend_that_falls_back_and_forgets_the_layout_asked_for(use, monkeypatch):
    model = models.build("sd15")
    reference = sample(dense.written_out(model, ALPHA, BETA))
    # xformers falls back on torch under tracing, in 0.3.75 without passing skip_output_reshape on
    with monkeypatch.context() as patched:
        patched.setattr(torch.jit, "is_scripting", lambda: True)
        use(attention.attention_xformers)
        assert change(sample(patch(model, alpha=ALPHA, beta=BETA)), reference) < 5e-5
    # torch's own attention forgets it when it splits a large batch
    monkeypatch.setattr(attention, "SDP_BATCH_LIMIT", 1)
    use(attention.attention_pytorch)
    assert change(sample(patch(model, alpha=ALPHA, beta=BETA)), reference) < 5e-5


@pytest.mark.skipif(not hasattr(attention, "ComfyAttention"), reason="In this ComfyUI no layer asks for an attention of its own.")
def test_an_attention_that_single_layers_ask_for_gives_way_and_is_back_afterwards():
    model, asked = models.build("sd15"), []

    def of_the_layer(*args, **kwargs):
        asked.append(args)
        return attention.attention_pytorch(*args, **kwargs)

    for module in model.model.diffusion_model.modules():
        if isinstance(module, attention.ComfyAttention):
            module.function = of_the_layer
    sample(model)
    times = len(asked)
    assert change(sample(patch(model, alpha=ALPHA, beta=BETA)), sample(dense.written_out(model, ALPHA, BETA))) < 5e-5
    assert times == len(asked) > 0
    sample(model)
    assert len(asked) == 2 * times
