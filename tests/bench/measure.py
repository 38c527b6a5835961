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

import page
import shapes


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench", description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shapes", default=",".join(shapes.USUAL), help="some of: %(default)s")
    parser.add_argument("--json", type=Path, help="file to write all numbers to, beside those of other shapes that are in it")
    parser.add_argument("--docs", action="store_true", help="make the tables of docs/costs.md from tests/bench/results, and nothing else")
    parser.add_argument("--quick", action="store_true", help="about two minutes on two CPU cores")
    parser.add_argument("--rounds", type=int, help="11; on a GPU 30")
    parser.add_argument("--batch", type=int, help="1; on a GPU 2")
    parser.add_argument("--backend", choices=["pytorch", "sub_quad", "split", "sage", "flash", "xformers"], default="pytorch")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--steps", type=int, default=4, help="of the whole models")
    return parser.parse_args()


options = parse()
if options.docs:
    page.write()
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
    """{variant: (median of seconds, median, least and greatest ratio to the first)}, from interleaved rounds.

    What takes much longer than the first has rounds of its own with the first, three where it takes seconds: it would leave
    nothing in the caches for the others.
    """
    once = {variant: min(timed(call) for _ in range(2)) for variant, call in calls.items()}
    first = next(iter(calls))
    light = [variant for variant in calls if once[variant] < 3 * once[first]]
    found: dict = {}
    for variants in (light, [first, *(variant for variant in calls if variant not in light)]):
        seconds: dict[str, list[float]] = {variant: [] for variant in variants}
        for _ in range(3 if sum(once[variant] for variant in variants) > 3 else rounds):
            for variant in variants:
                seconds[variant].append(timed(calls[variant]))
        for variant in variants:
            ratios = [own / base for own, base in zip(seconds[variant], seconds[first])]
            found.setdefault(variant, (statistics.median(seconds[variant]), statistics.median(ratios), min(ratios), max(ratios)))
    return {variant: found[variant] for variant in calls}


def timed(call) -> float:
    start = now()
    call()
    return now() - start


def now() -> float:
    if options.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def rows(group: str, subject: str, calls: dict, dtype: torch.dtype, rounds: int, size_of_q: int | None = None) -> list[Row]:
    first, found = next(iter(calls)), []
    calls[first]()  # which loads the model
    peaks = {variant: memory.peak(call, options.device) for variant, call in calls.items()}  # with what a run takes once and keeps
    compared = compare(calls, rounds)
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
    waits = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
    return sum(event.count for event in profile.key_averages() if event.key in waits)


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
    setting = dict(machine=machine(), batch=batch, rounds=rounds, steps=options.steps)
    with torch.inference_mode():
        for group in options.shapes.split(","):
            found = measure_models(options.device, rounds) if group == "models" else measure_shapes(group, rounds, batch)
            if group == "tiny":
                found += measure_models("tiny", rounds)
            if options.json:  # at once: a later group may need more memory or time than there is
                write(options.json, setting, [asdict(row) for row in found])


def write(path: Path, setting: dict, found: list[dict]) -> None:
    """Keeps what an earlier run in the same setting has found of other groups."""
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if {key: earlier.get(key) for key in setting} == setting:
        groups = {row["group"] for row in found}
        found = [row for row in earlier["rows"] if row["group"] not in groups] + found
        order = [*shapes.USUAL, "tiny"]
        found.sort(key=lambda row: order.index(row["group"]))
    path.write_text(json.dumps({**setting, "rows": found}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
