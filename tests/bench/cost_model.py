"""What each method adds to a whole step of a full-size model on a GPU, as a ratio to the step of the model left alone. All modelled.

What a step computes is counted on ComfyUI's own classes at full size, on PyTorch's fake tensors; how fast a card does it is assumed
(tests/bench/assumptions.py). Every self-attention of every row is circulated. Left out: what Python and the start of a kernel cost,
rows of the text that take a call of their own, offloading, compilation.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from support.host import COMFYUI, engine  # first: it finds ComfyUI

import torch

import page
from assumptions import CARDS, FUSED, LARGER, METHODS, PADDED, UNPADDED, Card, Kernels, Method
from full_size import MODELS, Attention, Step, count

kernels = engine("comfy.kernels")
BYTES = 2  # of a number in half precision


def attention_seconds(products: float, flops: float, head_dim: int, backend: Kernels) -> float:
    """Time of as many products of `flops` each, with heads padded to the next size that there is a kernel for."""
    size = min(size for size in backend if size >= head_dim)
    padding = 1 if size == LARGER else size / head_dim
    return products * flops * padding / (backend[size] * 1e12)


def plain_seconds(each: Attention, backend: Kernels) -> float:
    return attention_seconds(2, each.product, each.head_dim, backend)


def circulated_seconds(each: Attention, card: Card, method: Method) -> float:
    """Time of a circulated attention. A call with doubled heads is 2 products for the logits, and with padded values 2 more, else 1."""
    backend = card.exact or card.attention if method.keeps_plain else card.attention
    values = values_of(each, card, method)
    seconds = method.passes[values] * each.size_of_q * BYTES / (card.bandwidth * 1e12)
    if method.keeps_plain:
        seconds += plain_seconds(each, backend)
    if method.eta:
        seconds += 6 * each.size_of_q * each.head_dim / (card.matmul * 1e12)
    if values == FUSED:
        return seconds + attention_seconds(3, each.product, each.head_dim, card.fused)
    if values == UNPADDED:
        return seconds + attention_seconds(3, each.product, 2 * each.head_dim, card.unpadded)
    return seconds + attention_seconds(4, each.product, 2 * each.head_dim, backend)


def values_of(each: Attention, card: Card, method: Method) -> str:
    """What becomes of the values, where the method leaves it open as the pack decides."""
    if method.values and not (method.values == FUSED and each.head_dim > max(card.fused)):
        return method.values
    width = 2 * each.head_dim
    if card.exact and not method.keeps_plain and width <= kernels.HEAD_LIMITS["sage"]:
        return PADDED  # by the quantised backend
    narrow = card.tries_cudnn_for_narrow and kernels.narrow_is_faster(width, card.capability, card.cudnn)
    return UNPADDED if narrow else PADDED


def step_seconds(step: Step, card: Card, method: Method | None = None) -> float:
    """Time of a step, of the model left alone where there is no method."""
    seconds = step.matmul / (card.matmul * 1e12) + step.convolution / (card.convolution * 1e12) + step.moved / (card.bandwidth * 1e12)
    for each, times in step.attentions.items():
        circulated = method is not None and each.circulated
        seconds += times * (circulated_seconds(each, card, method) if circulated else plain_seconds(each, card.attention))
    return seconds


def attention_share(step: Step, card: Card) -> float:
    """Of the plain step's time, what its circulated attentions take."""
    seconds = sum(times * plain_seconds(each, card.attention) for each, times in step.attentions.items() if each.circulated)
    return seconds / step_seconds(step, card)


def assumed() -> dict:
    return dict(cards=[asdict(card) for card in CARDS], methods=[asdict(method) for method in METHODS])


def as_dict(step: Step) -> dict:
    attentions = [{**asdict(each), "times": times} for each, times in step.attentions.items()]
    return dict(matmul=step.matmul, convolution=step.convolution, moved=step.moved, attentions=attentions)


def from_dict(counted: dict) -> Step:
    """The step that `as_dict` was given."""
    attentions = {
        Attention(**{key: value for key, value in each.items() if key != "times"}): each["times"] for each in counted["attentions"]
    }
    return Step(**{**counted, "attentions": attentions})


def modelled(steps: dict[str, Step]) -> list[dict]:
    """A row for each model and card: its shares, and the ratio of each method."""
    return [
        dict(
            card=card.name,
            model=name,
            share_of_flops=step.share,
            share_of_time=attention_share(step, card),
            ratios={method.name: step_seconds(step, card, method) / step_seconds(step, card) for method in METHODS},
        )
        for card in CARDS
        for name, step in steps.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench.steps", description=__doc__)
    parser.add_argument("--json", type=Path, help="file to write counts, assumptions and ratios to")
    options = parser.parse_args()
    steps = {model.name: count(model) for model in MODELS}
    found = dict(
        comfyui=COMFYUI,
        torch=torch.__version__,
        counted={name: as_dict(step) for name, step in steps.items()},
        assumed=assumed(),
        modelled=modelled(steps),
    )
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    if options.json:
        options.json.write_text(text, encoding="utf-8")
    found = json.loads(text)
    print(page.modelled(found), page.counted(found), page.assumed(found), sep="\n")


if __name__ == "__main__":
    main()
