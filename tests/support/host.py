"""ComfyUI in this process, on the CPU unless the benchmark asks for a GPU, and the pack loaded into it as ComfyUI loads a pack."""

import asyncio
import importlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMFY = Path(os.environ["COMFYUI_PATH"]).resolve()

sys.path.insert(0, str(COMFY))

from comfy.cli_args import args  # noqa: E402

args.cpu = os.environ.get("CIRCULATION_DEVICE", "cpu") == "cpu"

import comfy_api.latest._io  # noqa: E402
import nodes as comfy_nodes  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)  # models this small gain nothing from more, and lose much on a busy machine
assert asyncio.run(comfy_nodes.load_custom_node(str(ROOT))), "ComfyUI could not load the pack"
PACK = str(ROOT).replace(".", "_x_")


def engine(name: str):
    """A module of the pack's engine."""
    return importlib.import_module(f"{PACK}.nodes.engine.{name}")


def node(node_id: str):
    """A node class as ComfyUI has registered it."""
    return comfy_nodes.NODE_CLASS_MAPPINGS[node_id]


def patch(model, node_id="CirculationControl", **inputs):
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
    newer = hasattr(comfy_api.latest._io, "V3Data")
    return node(node_id).PREPARE_CLASS_CLONE({"hidden_inputs": hidden} if newer else hidden)
