"""What the cost model counts on ComfyUI's own classes, and what it makes of that."""

import json
import sys
from dataclasses import replace
from functools import cache

import pytest
from support.host import ROOT

sys.path.append(str(ROOT / "tests" / "bench"))

import cost_model
import page
from assumptions import A100, CARDS, H100, H100_CUDNN, LARGER, METHODS, RTX_4090, RTX_4090_SAGE, Card
from full_size import MODELS, Attention, Step, count

MODEL = {model.name: model for model in MODELS}
counted = cache(lambda name: count(MODEL[name]))
PAPER, ADAPTIVE, ONE_PASS, PADDED, UNPADDED, FUSED = METHODS

# Everything at 1 TFLOPS, and moving a tensor costs nothing: a ratio is then one of products.
EVEN = Card("even", (0, 0), 1, 1, float("inf"), attention={LARGER: 1}, unpadded={LARGER: 1}, fused={LARGER: 1}, sources={})
HALF_ATTENTION = Step(matmul=4000, convolution=0, moved=0, attentions={Attention(1, 1, 10, 10, 10, True): 1})


@pytest.mark.parametrize("name, tera, share, calls", [("SD1.5 512²", 0.803, 0.152, 16), ("SDXL 1024²", 6.761, 0.111, 70)])
def test_a_unet_computes_what_torch_counts(name, tera, share, calls):
    """FLOPs of one row by torch.utils.flop_counter.FlopCounterMode, with attentions as its own fused operations."""
    step = counted(name)
    assert step.flops / 2 == pytest.approx(tera * 1e12, rel=0.01)
    assert step.share == pytest.approx(share, rel=0.01)
    assert sum(times for each, times in step.attentions.items() if each.circulated) == calls


def test_a_video_transformer_computes_what_its_widths_say():
    """Of 40 blocks: q, k, v and the output for both attentions, of which k and v of the text are short, and two layers of the MLP."""
    step = counted("Wan 14B 480p, 81 frames")
    tokens, text, dim, mlp = 21 * 30 * 52, 512, 5120, 13824
    assert step.matmul == pytest.approx(2 * 40 * 2 * (tokens * (6 * dim * dim + 2 * dim * mlp) + text * 2 * dim * dim), rel=0.01)
    assert step.attentions == {
        Attention(2, 40, tokens, tokens, 128, True): 40,
        Attention(2, 40, tokens, text, 128, False): 40,
    }


def test_attentions_outside_of_the_blocks_are_counted_and_not_circulated():
    attentions = counted("Z-Image 1024²").attentions
    assert {(each.tokens, each.circulated): times for each, times in attentions.items()} == {
        (4352, True): 30,
        (4096, False): 2,
        (256, False): 2,
    }


@pytest.mark.parametrize("method, added", [(PAPER, 1.0), (PADDED, 0.5), (UNPADDED, 0.25), (FUSED, 0.25)])
def test_a_ratio_is_one_of_products_where_all_is_equally_fast(method, added):
    """Half of the step is attention, two products. The paper's method adds four to them, one pass needs four or three in their place."""
    assert HALF_ATTENTION.share == 0.5
    plain = cost_model.step_seconds(HALF_ATTENTION, EVEN)
    assert cost_model.step_seconds(HALF_ATTENTION, EVEN, method) / plain == pytest.approx(1 + added)


def test_heads_are_padded_to_the_next_kernel():
    assert cost_model.attention_seconds(2, 1e12, 40, {64: 1, 128: 1}) == pytest.approx(2 * 64 / 40)
    assert cost_model.attention_seconds(2, 1e12, 80, {64: 1, LARGER: 0.5}) == pytest.approx(4)


@pytest.mark.parametrize("card, head_dim, method, values", [
    (A100, 64, PAPER, "unpadded"),
    (A100, 128, PAPER, "padded"),
    (RTX_4090, 64, PAPER, "unpadded"),
    (RTX_4090, 128, ONE_PASS, "padded"),
    (H100, 128, ONE_PASS, "unpadded"),
    (H100_CUDNN, 128, ONE_PASS, "padded"),
    (replace(H100, cudnn=92200), 128, ONE_PASS, "padded"),
    (RTX_4090_SAGE, 64, PAPER, "unpadded"),  # both calls by PyTorch
    (RTX_4090_SAGE, 64, ONE_PASS, "padded"),  # by SageAttention
    (RTX_4090, 64, FUSED, "fused"),
    (H100, 160, FUSED, "padded"),  # larger than the kernel takes
])  # fmt: skip
def test_values_are_padded_where_the_pack_pads_them(card, head_dim, method, values):
    assert cost_model.values_of(Attention(1, 1, 10, 10, head_dim, True), card, method) == values


def test_both_calls_of_the_papers_method_are_exact_beside_a_quantised_backend():
    step = Step(10**15, 0, 0, {Attention(2, 10, 4096, 4096, 64, True): 10})
    exact = {**RTX_4090.attention, 64: RTX_4090.attention[64] / 2}
    slower = replace(RTX_4090_SAGE, exact=exact)
    assert cost_model.step_seconds(step, slower, PAPER) > cost_model.step_seconds(step, RTX_4090_SAGE, PAPER)
    assert cost_model.step_seconds(step, slower, PADDED) == cost_model.step_seconds(step, RTX_4090_SAGE, PADDED)


STORED = page.read("steps")


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_more_work_costs_more(card):
    ratios = {row["model"]: row["ratios"] for row in STORED["modelled"] if row["card"] == card.name}
    assert ratios.keys() == MODEL.keys()
    for of_model in ratios.values():
        assert of_model["one pass"] < of_model["paper, beta 3"] < of_model["adaptive"]
        assert min(of_model["one pass, padded"], of_model["paper, beta 3"]) > 1
    for method in (PAPER, ADAPTIVE, PADDED):
        assert ratios["Wan 14B 480p, 81 frames"][method.name] < ratios["Wan 14B 720p, 81 frames"][method.name]


def test_the_stored_ratios_are_those_of_the_stored_counts():
    assert json.loads(json.dumps(cost_model.assumed())) == STORED["assumed"]
    steps = {name: cost_model.from_dict(step) for name, step in STORED["counted"].items()}
    assert steps.keys() == MODEL.keys()
    for row, stored in zip(cost_model.modelled(steps), STORED["modelled"], strict=True):
        assert row["ratios"] == pytest.approx(stored["ratios"], rel=1e-6)


@pytest.mark.parametrize("name", ["SDXL 1024²", "Flux 1024²"])
def test_the_stored_counts_are_those_of_this_comfyui(name):
    """To a hundredth: a later ComfyUI may compute a little otherwise."""
    step, stored = counted(name), cost_model.from_dict(STORED["counted"][name])
    assert step.flops == pytest.approx(stored.flops, rel=0.01)
    assert step.attentions == stored.attentions
