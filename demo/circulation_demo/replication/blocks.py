"""How much one setting changes the attention of each block: the same number may be much in one block and little in another."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import torch

from . import knobs, plan, sampling

PROMPTS = 8


def measure(weights: Path, results: Path) -> None:
    """`blocks.json` in `results`: of each setting of `plan.COMPARED` the mean change in each block."""
    changes = attention_changes(weights, *sampling.asked(0, PROMPTS))
    (results / "blocks.json").write_text(json.dumps(changes, indent=1) + "\n", encoding="utf-8")


def attention_changes(weights: Path, factors, drawn) -> dict[str, dict[str, float]]:
    """Of each setting and block ‖changed − plain‖ / ‖plain‖ of what tokens retrieve, averaged over heads and a run that stays plain."""
    norms: dict[tuple[str, str], list[torch.Tensor]] = defaultdict(list)

    def watched(q, k, v, options):
        plain = knobs.attend(q, k, v)
        for name, changed in plan.COMPARED.items():
            change = (changed(q, k, v, options) - plain).norm(dim=-1) / knobs.length(plain)[..., 0]
            norms[name, " ".join(map(str, options["block"]))].append(change.mean())
        return plain

    sampling.sampled(weights, plan.Row("", knobs.everywhere(watched)), factors, drawn)
    changes: dict[str, dict[str, float]] = defaultdict(dict)
    for (name, block), of_calls in norms.items():
        changes[name][block] = round(float(torch.stack(of_calls).mean()), 4)
    return changes
