"""ComfyUI in this process, on the CPU unless the benchmark asks for a GPU, and the pack loaded into it as ComfyUI loads a pack."""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "demo"))  # where pytest is started without `python3 -m tests`, as on a machine with a GPU

import torch
from circulation_demo.inprocess import load, node, patch, probe, with_hidden  # noqa: F401
from packaging.version import Version

torch.set_num_threads(1)  # models this small gain nothing from more, and lose much on a busy machine
PACK = load(ROOT)

import nodes as comfy_nodes
from comfy_execution.utils import CurrentNodeContext
from comfyui_version import __version__ as COMFYUI

# Our nodes that a user can add to a graph. Those within a grid are hidden from search as deprecated ones are.
NODES = {
    id: cls
    for id, cls in comfy_nodes.NODE_CLASS_MAPPINGS.items()  # type: ignore[attr-defined]  # mypy sees our own folder of that name
    if cls.__module__.startswith(PACK) and not cls.GET_SCHEMA().is_deprecated
}


def engine(name: str):
    """A module of the pack's engine."""
    return importlib.import_module(f"{PACK}.nodes.engine.{name}")


def made_by(id: str, model, node_id: str = "CirculationControl", **inputs):
    """`patch`, as ComfyUI runs a node: under its id."""
    with CurrentNodeContext("prompt", id, 0):
        return patch(model, node_id, **inputs)


def comfyui_is_at_least(version: str) -> bool:
    return Version(COMFYUI) >= Version(version)
