"""ComfyUI in this process, on the CPU unless the benchmark asks for a GPU, and the pack loaded into it as ComfyUI loads a pack."""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

sys.path.append(str(ROOT / "demo"))

from inprocess import load, node, patch, probe, with_hidden  # noqa: E402, F401
import torch  # noqa: E402

torch.set_num_threads(1)  # models this small gain nothing from more, and lose much on a busy machine
PACK = load(ROOT)

import nodes as comfy_nodes  # noqa: E402, F401


def engine(name: str):
    """A module of the pack's engine."""
    return importlib.import_module(f"{PACK}.nodes.engine.{name}")
