"""The tables of docs/costs.md and a sentence of README.md, from what the cost model and the benchmark wrote to tests/bench/results."""

from __future__ import annotations

import json
import re
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "docs" / "costs.md")
MARK = re.compile(r"(<!-- table: (\w+) -->).*?(<!-- end -->)", re.DOTALL)
COLUMNS = ("value space", "one pass", "beta 1", "adaptive", "probe, value space", "both, value space", "input space", "probe, input space")
PUBLISHED = ("published", "published, adaptive")
PAPER, ONE_PASS = "paper, beta 3", "one pass"  # of the cost model
FUSED = "fused"  # one pass, where there is a kernel for it
MORE = "memory, value space"


def write() -> None:
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(text: str) -> str:
    """The text with what stands between marks made anew."""
    steps = read("steps")
    tables = {
        "short": short(steps),
        "modelled": modelled(steps),
        "counted": counted(steps),
        "assumed": assumed(steps),
        "measured": measured(),
    }
    return MARK.sub(lambda mark: f"{mark[1]}\n\n{tables[mark[2]]}\n{mark[3]}", text)


def read(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def short(found: dict) -> str:
    """What the table says of two models, on the card where it costs most."""

    def most(model: str, method: str) -> str:
        return f"{max(row['ratios'][method] for row in found['modelled'] if row['model'] == model):.2f}×"

    models = [
        f"{model} up to {most(model, PAPER)} with the paper's method and {most(model, ONE_PASS)} in one pass"
        for model in ("SDXL 1024²", "Wan 14B 720p, 81 frames")
    ]
    on_gpu = "" if (RESULTS / "cuda.json").exists() else " No GPU has measured it."
    return f"Modelled, a whole step as a ratio to the step left alone: {'; '.join(models)}.{on_gpu}\n"


def modelled(found: dict) -> str:
    """One table for each card: a row for each model, the ratio of a step under each method to the plain step."""
    tables = []
    for card in dict.fromkeys(row["card"] for row in found["modelled"]):
        of_card = [row for row in found["modelled"] if row["card"] == card]
        head = ["", "self-attention, of FLOPs / of time", *of_card[0]["ratios"], f"{PAPER}, half the blocks, steps or rows"]
        rows = [
            [row["model"], f"{row['share_of_flops']:.0%} / {row['share_of_time']:.0%}"]
            + [f"{ratio:.2f}×" for ratio in (*row["ratios"].values(), (1 + row["ratios"][PAPER]) / 2)]
            for row in of_card
        ]
        tables.append(f"**{card}**, modelled:\n\n{table(head, rows)}")
    return "\n".join(tables)


def counted(found: dict) -> str:
    head = ["", "rows", "linear, TFLOP", "convolution, TFLOP", "all else, GB", "circulated calls in the plain model"]
    rows = []
    for name, step in found["counted"].items():
        circulated = [each for each in step["attentions"] if each["circulated"]]
        calls = ", ".join(f"{each['times']} × {each['tokens']} tokens, {each['heads']} heads of {each['head_dim']}" for each in circulated)
        tera = [f"{step[kind] / 1e12:.2f}" for kind in ("matmul", "convolution")]
        rows.append([name, str(circulated[0]["rows"]), *tera, f"{step['moved'] / 1e9:.0f}", calls])
    return f"ComfyUI {found['comfyui']}, torch {found['torch']}:\n\n{table(head, rows)}"


def assumed(found: dict) -> str:
    def speeds(kernels: dict[str, float] | None) -> str:
        return ", ".join(f"{'above' if size == 'Infinity' else size}: {speed}" for size, speed in kernels.items()) if kernels else ""

    cards = found["assumed"]["cards"]
    head = ["", "matmul", "convolution", "TB/s", "attention, by head size", "values half as wide", "Triton"]
    rows = [
        [card["name"], str(card["matmul"]), str(card["convolution"]), str(card["bandwidth"])]
        + [speeds(card[kernels]) for kernels in ("attention", "unpadded", "fused")]
        for card in cards
    ]
    sources = [[card["name"], name, source] for card in cards for name, source in card["sources"].items()]
    methods = [
        [
            each["name"],
            "yes" if each["keeps_plain"] else "no",
            each["values"] or "as the pack decides",
            ", ".join(f"{values} {passes}" for values, passes in each["passes"].items()),
        ]
        for each in found["assumed"]["methods"]
    ]
    return "\n".join(
        (
            table(head, rows),
            table(["", "", "source"], sources),
            table(["", "the model's own call too", "values", "tensors of the size of q moved outside attention"], methods),
        )
    )


def measured() -> str:
    devices = [read(name) for name in ("cpu", "cuda") if (RESULTS / f"{name}.json").exists()]
    return "\n".join(measured_on(result) for result in devices) + (
        "" if (RESULTS / "cuda.json").exists() else "\nOn a GPU: not measured.\n"
    )


def measured_on(result: dict) -> str:
    where = result["machine"]
    device = where["gpu"] or f"{where['threads']} threads of a CPU with {where['capability']}"
    head = f"{device}, torch {where['torch']}, {where['backend']} attention, batch {result['batch']}, median of {result['rounds']} rounds:"
    with_kernel = any(row["variant"] == FUSED for row in result["rows"])
    columns = [*COLUMNS, *([FUSED] if with_kernel else []), *PUBLISHED]
    lines = []
    for subject in dict.fromkeys(row["subject"] for row in result["rows"]):
        found = {row["variant"]: row for row in result["rows"] if row["subject"] == subject}
        if "plain" not in found:
            continue
        plain, tensors = found["plain"], found["value space"]["extra_tensors"]
        more = f"{found['value space']['extra_bytes'] / 2**20:+.1f} MiB" + (f", {tensors:.1f} of q" if tensors is not None else "")
        cells = [f"{found[name]['ratio']:.2f}×" if name in found else "" for name in columns]
        lines.append([f"{subject}, {plain['dtype']}", f"{1000 * plain['seconds']:.1f} ms", *cells, more])
    return f"{head}\n\n" + table(["", "left alone", *columns, MORE], lines)
