"""The graph that a Circulation Grid expands into.

ComfyUI keeps what a node gave under its class, its inputs and those of all in front of it; of Circulation, which says so, under its id
too. Ids here come from a setting and a seed, never from a place in the grid, so that a cell is found again whatever is beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.samplers
from comfy.utils import ProgressBar
from comfy_execution.graph_utils import GraphBuilder, is_link

from ..text import got
from .prompt import executing, node_of_graph

SAMPLERS, SCHEDULERS = comfy.samplers.KSampler.SAMPLERS, comfy.samplers.KSampler.SCHEDULERS

Link = list  # [id of a node, number of its output]
Inputs = Mapping[str, Any]


def check_link(name: str, link: object) -> None:
    """Raise ValueError that names the input if it is a value and no link."""
    if not is_link(link):
        raise ValueError(f"{name} is {got(link)} and must be a link to another node.")


def expanded(
    model: Link, settings: Mapping[str, Inputs], seeds: Sequence[int], sampler: Inputs, vae: Link, sheet: Inputs
) -> tuple[dict, list[Link]]:
    """The nodes, and the outputs of the grid: those of its sheet, and its images, a batch for each setting.

    `settings` are the inputs of a Circulation node by its label, `sampler` those of KSampler but for model and seed, `sheet` options of
    Comparison Sheet. Each has a row and a column of its own.
    """
    graph = GraphBuilder()
    images = {}
    for row, (label, setting) in enumerate(settings.items()):
        circulation = graph.node("CirculationControl", label, model=model, **setting)
        for column, seed in enumerate(seeds):
            name = f"{label}, seed {seed}"
            sampled = graph.node("KSampler", f"{name}, sampled", model=circulation.out(0), seed=seed, **sampler)
            decoded = graph.node("VAEDecode", f"{name}, decoded", samples=sampled.out(0), vae=vae)
            place = dict(label=label, seed=seed, row=row, column=column, rows=len(settings), columns=len(seeds))
            graph.node("CirculationGridCell", f"{name}, shown", image=decoded.out(0), model=circulation.out(0), **place)
            images[f"row {row} column {column}"] = decoded.out(0)
    rows = graph.node("CirculationGridRows", "rows", columns=len(seeds), **images)
    shown = graph.node("ComparisonSheet", "sheet", images=rows.out(0), labels="\n".join(settings), **sheet)
    return graph.finalize(), [*(shown.out(output) for output in range(4)), rows.out(1)]


def progress(done: int, of: int) -> None:
    """How many cells there are, for the node that the user sees."""
    node = executing().node
    if node is not None:
        ProgressBar(of, node_id=node_of_graph(node)).update_absolute(done)
