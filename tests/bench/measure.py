"""Layers of SD1.5 and SDXL and a whole small UNet: plain, value space, input space, adaptive.

A round runs each variant once, in turn, and yields one ratio to the plain layer of the same round;
printed are the median of the ratios, their least and greatest, and the peak of what one call allocates.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own chatter

from support.host import engine, patch  # first: it finds ComfyUI

import torch
from support import models, sampling

import comfy.ldm.modules.attention as attention
import comfy.model_management
import comfy.ops

method, rule, blocks, run = engine("circulation"), engine("rule"), engine("blocks"), engine("run")

# model: (tokens, channels, heads) of its self-attentions, for 512² and 1024² pixels
LAYERS = {
    "SD1.5 512²": [(4096, 320, 8), (1024, 640, 8), (256, 1280, 8), (64, 1280, 8)],
    "SDXL 1024²": [(4096, 640, 10), (1024, 1280, 20)],
    "SDXL 512²": [(1024, 640, 10), (256, 1280, 20)],
}
VARIANTS = {
    "plain": None,
    "value space": method.Circulation(1.05, 3.0),
    "adaptive": method.Circulation(1.2, 5.0, adaptive=method.Adaptive()),
    "input space": method.Circulation(1.05, 3.0, method.INPUT_SPACE),
}
NODES = {
    "plain": None,
    "value space": ("CirculationControl", {}),
    "adaptive": ("CirculationAdaptive", {}),
    "input space": ("CirculationControl", {"rescale": method.INPUT_SPACE}),
}
BACKENDS = {"pytorch": attention.attention_pytorch, "sub_quad": attention.attention_sub_quad}


def layer(tokens, channels, heads, circulation, batch, dtype):
    """A function that computes one self-attention layer, with its projections, as ComfyUI does."""
    module = attention.CrossAttention(
        channels, heads=heads, dim_head=channels // heads, dtype=dtype, operations=comfy.ops.disable_weight_init
    )
    models.fill(module)
    x = torch.randn(batch, tokens, channels, dtype=dtype)
    if circulation is None:
        return lambda: module(x)
    block = blocks.Block("input", 1, 0, heads, channels // heads)
    selection = blocks.Selection.parse("all")
    plan = engine("plan").Plan([rule.Rule(circulation, selection, (block,))], None)
    one_run = run.Run(plan, [], [block], [1.0, 0.0], video=False)

    def override(func, *args, **kwargs):
        return one_run.attention(engine("attention").Call(func, None, args, kwargs))

    def call():
        one_run.announce(block.address, x, (0,), (0,))
        return module(x, transformer_options={"optimized_attention_override": override})

    return call


def peak_memory(call) -> int:
    """The greatest sum of bytes that one call holds at a time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def compare(calls: dict, rounds: int) -> dict:
    """{variant: (median, least, greatest ratio to plain, seconds of plain or None)}."""
    for call in calls.values():
        call()
    seconds = {variant: [] for variant in calls}
    for _ in range(rounds):
        for variant, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[variant].append(time.perf_counter() - start)
    ratios = {v: [s / p for s, p in zip(seconds[v], seconds["plain"])] for v in calls}
    return {v: (statistics.median(r), min(r), max(r), statistics.median(seconds[v])) for v, r in ratios.items()}


def report(title: str, calls: dict, rounds: int) -> None:
    peaks = {variant: peak_memory(call) for variant, call in calls.items()}
    for variant, (median, least, greatest, seconds) in compare(calls, rounds).items():
        spread = f"{median:6.2f}×  ({least:.2f} to {greatest:.2f})" if variant != "plain" else f"{1000 * seconds:6.1f} ms"
        print(f"{title:34} {variant:12} {spread:26} {peaks[variant] / 2**20:9.1f} MiB", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--backend", choices=list(BACKENDS), default="pytorch")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="only the shapes up to 1024 tokens")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    attention.optimized_attention = attention.optimized_attention_masked = BACKENDS[options.backend]

    print(f"torch {torch.__version__}, float32 on the CPU, {options.threads} threads, {options.backend} attention, ")
    print(f"batch {options.batch}, {options.rounds} interleaved rounds: ratios to plain, and peak memory of one call\n")
    with torch.inference_mode():
        for model, shapes in LAYERS.items():
            for tokens, channels, heads in shapes:
                if options.quick and tokens > 1024:
                    continue
                calls = {
                    variant: layer(tokens, channels, heads, circulation, options.batch, torch.float32)
                    for variant, circulation in VARIANTS.items()
                }
                report(f"{model} L {tokens} C {channels} H {heads}", calls, options.rounds)
        for name in ("sd15", "sdxl"):
            model = models.build(name)
            calls = {
                variant: lambda patched=patch(model, node[0], **node[1]) if node else model: sampling.sample(
                    patched, name, steps=1, size=32
                )
                for variant, node in NODES.items()
            }
            report(f"small {name} UNet, 32×32 latent, one step", calls, options.rounds)
            comfy.model_management.unload_all_models()


if __name__ == "__main__":
    main()
