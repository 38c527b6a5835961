"""Layers of SD1.5 and SDXL and a whole small UNet: plain, under Circulation, under a Stability Probe.

A round runs each variant once, in turn, and yields one ratio to the first variant of the same round;
printed are the median of the ratios, their least and greatest, and the peak of what one call allocates.
"""

import argparse
import os
import statistics
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own chatter

from support.host import engine, patch, probe  # first: it finds ComfyUI

import torch
from support import dense, models, sampling

import comfy.ldm.modules.attention as attention
import comfy.model_management
import comfy.ops

method, stability = engine("circulation"), engine("stability")

# model: (tokens, channels, heads) of its self-attentions, for 512² and 1024² pixels
LAYERS = {
    "SD1.5 512²": [(4096, 320, 8), (1024, 640, 8), (256, 1280, 8), (64, 1280, 8)],
    "SDXL 1024²": [(4096, 640, 10), (1024, 1280, 20)],
    "SDXL 512²": [(1024, 640, 10), (256, 1280, 20)],
}
VARIANTS = {
    "plain": (None, None),
    "value space": (method.Circulation(1.05, 3.0), None),
    "adaptive": (method.Circulation(1.2, 5.0, adaptive=method.Adaptive()), None),
    "input space": (method.Circulation(1.05, 3.0, method.INPUT_SPACE), None),
    "probe, value space": (None, method.VALUE_SPACE),
    "probe, input space": (None, method.INPUT_SPACE),
}
MODELS = {
    "plain": lambda model: model,
    "value space": lambda model: patch(model),
    "adaptive": lambda model: patch(model, "CirculationAdaptive"),
    "input space": lambda model: patch(model, rescale=method.INPUT_SPACE),
    "probe, value space": lambda model: probe(model)[0],
    "probe, input space": lambda model: probe(model, measure_in=method.INPUT_SPACE)[0],
    "both, value space": lambda model: probe(patch(model))[0],
}
BACKENDS = {"pytorch": attention.attention_pytorch, "sub_quad": attention.attention_sub_quad}


def layer(tokens, channels, heads, circulation, probed, batch):
    """A function that computes one self-attention layer, with its projections, as ComfyUI does."""
    module = attention.CrossAttention(
        channels, heads=heads, dim_head=channels // heads, dtype=torch.float32, operations=comfy.ops.disable_weight_init
    )
    models.fill(module)
    x = torch.randn(batch, tokens, channels)
    if circulation is None and probed is None:
        return lambda: module(x)
    block = engine("blocks").Block("input", 1, 0, heads, channels // heads)
    selection = engine("blocks").Selection.parse("all")
    rules = [engine("rule").Rule(circulation, selection, (block,))] if circulation else []
    live = engine("record").LiveRecord()
    probes = [engine("probe").Probe(probed, 1, (block,), "both", "", live)] if probed else []
    run = engine("run").Run(
        engine("plan").Plan(rules, None),
        [engine("probe").Observer(p, (1.0, 0.0)) for p in probes],
        [block],
        (1.0, 0.0),
        video=False,
    )
    run.begin_evaluation(torch.ones(1))

    def override(func, *args, **kwargs):
        return run.attention(engine("attention").Call(func, None, args, kwargs))

    def call():
        run.announce(block.address, x.device, (0,), (0,), x)
        return module(x, transformer_options={"optimized_attention_override": override})

    return call


def measures(tokens, channels, heads, batch):
    """The measures of one layer in input space, given what it retrieved: through C×C couplings, and ours."""
    x = torch.randn(batch, tokens, channels)
    wq, wk = (torch.randn(heads, channels // heads, channels) / channels**0.5 for _ in range(2))
    q, k = (x.unsqueeze(1) @ w.mT for w in (wq, wk))
    retrieval = torch.randn(batch, heads, tokens, channels)

    parts = retrieval.split(1, dim=1)
    return {
        "ours": lambda: stability.measure(q, k, parts),
        "published, C×C": lambda: dense.measures_by_coupling(x, wq, wk, retrieval),
    }


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
    """{variant: (median, least and greatest ratio to the first, median of seconds)}."""
    for call in calls.values():
        call()
    seconds = {variant: [] for variant in calls}
    for _ in range(rounds):
        for variant, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[variant].append(time.perf_counter() - start)
    first = seconds[next(iter(calls))]
    ratios = {v: [s / f for s, f in zip(seconds[v], first)] for v in calls}
    return {v: (statistics.median(r), min(r), max(r), statistics.median(seconds[v])) for v, r in ratios.items()}


def report(title: str, calls: dict, rounds: int) -> None:
    peaks = {variant: peak_memory(call) for variant, call in calls.items()}
    for variant, (median, least, greatest, seconds) in compare(calls, rounds).items():
        first = variant == next(iter(calls))
        spread = f"{1000 * seconds:6.1f} ms" if first else f"{median:6.2f}×  ({least:.2f} to {greatest:.2f})"
        print(f"{title:34} {variant:18} {spread:26} {peaks[variant] / 2**20:9.1f} MiB", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--backend", choices=list(BACKENDS), default="pytorch")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=4, help="of the whole UNets")
    parser.add_argument("--quick", action="store_true", help="only the shapes up to 1024 tokens")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    attention.optimized_attention = attention.optimized_attention_masked = BACKENDS[options.backend]

    print(f"torch {torch.__version__}, float32 on the CPU, {options.threads} threads, {options.backend} attention, ")
    print(f"batch {options.batch}, {options.rounds} interleaved rounds: ratios to the first of each group, and peak memory of one call\n")
    with torch.inference_mode():
        for model, shapes in LAYERS.items():
            for tokens, channels, heads in shapes:
                if options.quick and tokens > 1024:
                    continue
                shape = f"{model} L {tokens} C {channels} H {heads}"
                calls = {v: layer(tokens, channels, heads, *setting, options.batch) for v, setting in VARIANTS.items()}
                report(shape, calls, options.rounds)
                if model == "SDXL 512²":
                    report(f"measures, {shape}", measures(tokens, channels, heads, options.batch), options.rounds)
        for name in ("sd15", "sdxl"):
            model = models.build(name)
            patched = {variant: change(model) for variant, change in MODELS.items()}
            calls = {v: partial(sampling.sample, m, name, steps=options.steps, size=32) for v, m in patched.items()}
            report(f"small {name} UNet, 32×32, {options.steps} steps", calls, options.rounds)
            comfy.model_management.unload_all_models()


if __name__ == "__main__":
    main()
