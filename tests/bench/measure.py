"""What Circulation costs: attentions of image and video models, and whole models, as ratios to the model left alone.

A round runs each variant once, in turn, and yields one ratio to the first variant of the same round. Printed, and written with
--json, are the median of the ratios, their least and greatest, and how much more memory a call takes at its peak than the first
variant's, in tensors of the size of q. On a GPU it also looks for reads that make Python wait.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import readme
import shapes


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench", description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shapes", default=",".join(shapes.USUAL), help="some of: %(default)s")
    parser.add_argument("--json", type=Path, help="file to write all numbers to")
    parser.add_argument("--readme", action="store_true", help="make the table of the README from tests/bench/results, and nothing else")
    parser.add_argument("--quick", action="store_true", help="about two minutes on two CPU cores")
    parser.add_argument("--rounds", type=int, help="11; on a GPU 30")
    parser.add_argument("--batch", type=int, help="1; on a GPU 2")
    parser.add_argument("--backend", choices=["pytorch", "sub_quad", "split", "sage", "flash", "xformers"], default="pytorch")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--steps", type=int, default=4, help="of the whole models")
    return parser.parse_args()


options = parse()
if options.readme:
    readme.write()
    sys.exit()
os.environ["CIRCULATION_DEVICE"] = options.device
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own chatter

import support.host  # noqa: F401  first: it finds ComfyUI

import torch
from support import memory

import comfy.ldm.modules.attention as attention
import comfy.model_management
import cases


@dataclass
class Row:
    group: str
    subject: str
    variant: str
    dtype: str
    seconds: float  # median
    ratio: float  # to the group's first variant
    least: float
    greatest: float
    extra_bytes: int  # at the peak, over the first variant
    extra_tensors: float | None  # the same in tensors of the size of q, where there is one q


def compare(calls: dict, rounds: int) -> dict[str, tuple[float, float, float, float]]:
    """{variant: (median of seconds, median, least and greatest ratio to the first)}, from interleaved rounds; three of what takes seconds."""
    seconds = {variant: [] for variant in calls}
    slow = {variant for variant, call in calls.items() if min(timed(call) for _ in range(2)) > 1}
    for number in range(rounds):
        for variant, call in calls.items():
            if number < 3 or variant not in slow:
                seconds[variant].append(timed(call))
    first = seconds[next(iter(calls))]
    ratios = {variant: [s / f for s, f in zip(each, first)] for variant, each in seconds.items()}
    return {v: (statistics.median(seconds[v]), statistics.median(r), min(r), max(r)) for v, r in ratios.items()}


def timed(call) -> float:
    start = now()
    call()
    return now() - start


def now() -> float:
    if options.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def rows(group: str, subject: str, calls: dict, dtype: torch.dtype, rounds: int, size_of_q: int | None = None) -> list[Row]:
    compared = compare(calls, rounds)
    peaks = {variant: memory.peak(call, options.device) for variant, call in calls.items()}
    first, found = next(iter(calls)), []
    for variant, times in compared.items():
        extra = peaks[variant] - peaks[first]
        row = Row(group, subject, variant, str(dtype).removeprefix("torch."), *times, extra, extra / size_of_q if size_of_q else None)
        found.append(row)
        cost = f"{1000 * row.seconds:8.1f} ms" if variant == first else f"{row.ratio:8.2f}× ({row.least:.2f} to {row.greatest:.2f})"
        more = "" if variant == first else f"{extra / 2**20:+9.1f} MiB" + (f" {row.extra_tensors:+6.1f} of q" if size_of_q else "")
        print(f"{subject:46} {variant:20} {cost:30} {more}", flush=True)
    return found


def measure_shapes(group: str, rounds: int, batch: int) -> list[Row]:
    found = []
    for shape in shapes.SHAPES[group][options.device == "cpu"]:
        if options.quick and shape.tokens > (4096 if group == "growth" else 1152):
            continue
        dtype = torch.float32 if options.device == "cpu" else torch.float16 if shape.projections else torch.bfloat16
        size = batch * shape.tokens * shape.channels * dtype.itemsize
        found += rows(group, str(shape), cases.layer(shape, batch, options.device, dtype), dtype, rounds, size)
        if shape.tokens in shapes.MEASURED.get(group, ()):
            calls = cases.measures(shape, batch, options.device)
            found += rows(group, f"measures in input space, {shape}", calls, torch.float32, rounds)
    return found


def measure_models(which: str, rounds: int) -> list[Row]:
    found = []
    dtype = torch.float32 if options.device == "cpu" else torch.float16
    for name, side in shapes.MODELS[which]:
        for compiled in (False, True)[: 1 if options.device == "cpu" else 2]:
            calls = cases.whole_model(name, side, options.steps, options.device, dtype, compiled)
            subject = f"{name} UNet, {side}×{side}{', compiled' if compiled else ''}"
            found += rows("models", subject, calls, dtype, rounds)
            if options.device != "cpu":
                print(f"{subject}: times that Python waits for the GPU:", {v: waits(call) for v, call in calls.items()})
            comfy.model_management.unload_all_models()
    return found


def waits(call) -> int:
    """Synchronisations with the GPU during a call, as the profiler sees them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
    return sum(e.count for e in profile.key_averages() if e.key in ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"))


def machine() -> dict:
    gpu = torch.cuda.get_device_name() if options.device != "cpu" else None
    return dict(
        device=options.device,
        gpu=gpu,
        cpu=platform.processor() or platform.machine(),
        capability=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        python=platform.python_version(),
        backend=options.backend,
    )


def main() -> None:
    if options.threads:
        torch.set_num_threads(options.threads)
    else:
        torch.set_num_threads(os.cpu_count() or 1)
    attention.optimized_attention = attention.optimized_attention_masked = getattr(attention, f"attention_{options.backend}")
    cpu = options.device == "cpu"
    rounds = options.rounds or (5 if options.quick else 11 if cpu else 30)
    batch = options.batch or (1 if cpu else 2)
    print(json.dumps(machine(), ensure_ascii=False), f"batch {batch}, {rounds} interleaved rounds", flush=True)
    found: list[Row] = []
    with torch.inference_mode():
        for group in options.shapes.split(","):
            if group == "models":
                found += measure_models(options.device, rounds)
            else:
                found += measure_shapes(group, rounds, batch)
            if group == "tiny":
                found += measure_models("tiny", rounds)
    if options.json:
        result = dict(machine=machine(), batch=batch, rounds=rounds, steps=options.steps, rows=[asdict(row) for row in found])
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
