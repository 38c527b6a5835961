"""The table of the README, from what the benchmark has found."""

from __future__ import annotations

import json
import re
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
README = Path(__file__).resolve().parents[2] / "README.md"
MARK = re.compile(r"(<!-- table: cost -->).*?(<!-- end -->)", re.DOTALL)
COLUMNS = ("value space", "adaptive", "probe, value space", "both, value space", "input space", "probe, input space")
PUBLISHED = ("published", "published, adaptive")
MORE = "memory, value space"


def write() -> None:
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")


def with_table(text: str) -> str:
    return MARK.sub(lambda mark: f"{mark[1]}\n\n{tables()}\n{mark[2]}", text)


def tables() -> str:
    measured = [path for path in (RESULTS / "cpu.json", RESULTS / "cuda.json") if path.exists()]
    return "\n".join(table(json.loads(path.read_text(encoding="utf-8"))) for path in measured) + (
        "" if (RESULTS / "cuda.json").exists() else "\nOn a GPU: not measured.\n"
    )


def table(result: dict) -> str:
    where = result["machine"]
    device = where["gpu"] or f"{where['threads']} threads of a CPU with {where['capability']}"
    head = f"{device}, torch {where['torch']}, {where['backend']} attention, batch {result['batch']}, median of {result['rounds']} rounds:"
    columns = ("| | left alone", *COLUMNS, *PUBLISHED, MORE)
    lines = [head, "", " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for subject in dict.fromkeys(row["subject"] for row in result["rows"]):
        found = {row["variant"]: row for row in result["rows"] if row["subject"] == subject}
        if "plain" not in found:
            continue
        cells = [f"{found[name]['ratio']:.2f}×" if name in found else "" for name in (*COLUMNS, *PUBLISHED)]
        plain, tensors = found["plain"], found["value space"]["extra_tensors"]
        more = f"{found['value space']['extra_bytes'] / 2**20:+.1f} MiB" + (f", {tensors:.1f} of q" if tensors is not None else "")
        lines.append(f"| {subject}, {plain['dtype']} | {1000 * plain['seconds']:.1f} ms | " + " | ".join((*cells, more)) + " |")
    return "\n".join(lines) + "\n"
