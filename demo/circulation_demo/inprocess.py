"""ComfyUI in this process, on the CPU unless CIRCULATION_DEVICE names another, and packs loaded into it as ComfyUI loads them.

Import this before anything of ComfyUI's. Its options can be set in `args` until a pack is loaded.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from pathlib import Path

COMFY = Path(os.environ["COMFYUI_PATH"]).resolve()

sys.path.insert(0, str(COMFY))

from comfy.cli_args import args

args.cpu = os.environ.get("CIRCULATION_DEVICE", "cpu") == "cpu"


def comfy_nodes():
    """ComfyUI's module `nodes`; this pack has a folder of the same name."""
    import nodes

    return nodes


@functools.cache
def load(pack: Path) -> str:
    """Load a pack, once; the name that ComfyUI gives the package."""
    assert asyncio.run(comfy_nodes().load_custom_node(str(pack))), f"ComfyUI could not load {pack}"
    return str(pack).replace(".", "_x_")


def node(node_id: str):
    """A node class as ComfyUI has registered it."""
    return comfy_nodes().NODE_CLASS_MAPPINGS[node_id]


def patch(model, node_id: str = "CirculationControl", **inputs):
    """The MODEL that one of our nodes makes of `model`, with its defaults for what is not given."""
    required, optional = (node(node_id).INPUT_TYPES()[kind] for kind in ("required", "optional"))
    values = {name: spec[1]["default"] for name, spec in {**required, **optional}.items() if "default" in spec[1]}
    return node(node_id).execute(model, **{**values, **inputs}).result[0]


def probe(model, **inputs):
    """The MODEL and the live record that a Stability Probe makes of `model`."""
    values = {"measure_in": "value space", "every_n_steps": 1, "blocks": "all", **inputs}
    return with_hidden("StabilityProbe", UNIQUE_ID="1").execute(model, **values).result


def with_hidden(node_id: str, **hidden):
    """A node class with its hidden inputs, by ComfyUI's names of them."""
    import comfy_api.latest._io

    newer = hasattr(comfy_api.latest._io, "V3Data")
    return node(node_id).PREPARE_CLASS_CLONE({"hidden_inputs": hidden} if newer else hidden)
